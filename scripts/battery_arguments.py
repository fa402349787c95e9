"""Draws arguments for every public function and counts what comes of them; a fault is printed with its arguments.

python scripts/battery_arguments.py --count 10000 --seed 0 [--only cells.]
"""

import argparse
import collections
import itertools
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import numpy as np

from tests.arguments import cells, models, modules, sources
from tests.arguments.outcomes import FAULTS, GOOD, outcome

ROOMS = (cells, modules, models, sources)


def main(argv=None):
    """Returns 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="arguments drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the beginning of the names of the functions")
    parser.add_argument("--show", type=int, default=40, help="faults to print")
    options = parser.parse_args(argv)

    calls = [call for room in ROOMS for call in room.calls() if call.name.startswith(options.only)]
    counts = collections.defaultdict(collections.Counter)
    seen = collections.Counter()
    for number, call in zip(range(options.count), itertools.cycle(calls)):
        rng = np.random.default_rng([options.seed, number])
        arguments, wrong = call.arguments(rng)
        # Compiled, each draw would cost a second; traced with the arguments as constants, it is what jit makes of it.
        traced = call.traced and rng.random() < 0.7
        with jax.disable_jit(call.traced and not traced):
            found, error = outcome(call, arguments, wrong, traced=traced)
        counts[call.name.split(".")[0]][found] += 1
        if found in FAULTS:
            kind = (call.name, found, wrong, type(error).__name__)
            seen[kind] += 1
            if seen[kind] == 1 and len(seen) <= options.show:
                values = {name: arguments.get(name) for name in wrong or arguments}
                print(f"{number} {call.name}: {found}: {str(values)[:300]}: {type(error).__name__} {str(error)[:200]}")
    print_table(counts)
    return int(any(counts[room][fault] for room in counts for fault in FAULTS))


def print_table(counts):
    """A row for each room, a column for each outcome."""
    outcomes = (*GOOD, *FAULTS)
    print("| room | drawn | " + " | ".join(outcomes) + " |")
    print("|---|" + "---|" * (1 + len(outcomes)))
    for room in (*counts, "all"):
        row = counts[room] if room in counts else sum(counts.values(), collections.Counter())
        print(f"| {room} | {row.total():,} | " + " | ".join(f"{row[o]:,}" for o in outcomes) + " |")


if __name__ == "__main__":
    sys.exit(main())
