"""How fast the jitted sampler of each formal-language task is, in examples and tokens a second.

    python benchmarks/sampler.py --length 40 --batch 1024

Rounds visit every task in turn, so that a slow spell of the machine touches all of them alike. Printed are
the median over the rounds, and the spread: the range between the first and the third quartile as a share of
the median.
"""

import argparse
import statistics
import time

import jax

from qlstm_jax.data.formal import TASKS


def compile_sampler(task, batch_size: int, length: int):
    """The task's sampler as a compiled function of a key alone."""
    return jax.jit(lambda key: task.sample(key, batch_size, length)).lower(jax.random.key(0)).compile()


def seconds_per_batch(sampler, key, calls: int) -> float:
    """Mean wall time of one batch over `calls` batches, each of them awaited."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(sampler(key))
    return (time.perf_counter() - start) / calls


def main():
    """Reads the flags, measures, prints one line a task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=40, help="nominal length of every string")
    parser.add_argument("--batch", type=int, default=1024, help="strings in a batch")
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each task")
    parser.add_argument("--calls", type=int, default=10, help="batches in a measurement")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), metavar="TASK")
    args = parser.parse_args()

    samplers = {name: compile_sampler(TASKS[name], args.batch, args.length) for name in args.tasks}
    times = {name: [] for name in samplers}
    key = jax.random.key(0)
    for sampler in samplers.values():
        seconds_per_batch(sampler, key, 2)
    for round_number in range(args.rounds):
        for name, sampler in samplers.items():
            times[name].append(seconds_per_batch(sampler, jax.random.fold_in(key, round_number), args.calls))

    print(f"batch {args.batch}, length {args.length}, on {jax.devices()[0].device_kind}")
    print(f"{'task':<28}{'ms a batch':>12}{'examples/s':>14}{'tokens/s':>14}{'spread':>8}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        first, _, third = statistics.quantiles(seconds, n=4)
        rate = args.batch / median
        tokens = rate * TASKS[name].input_length(args.length)
        print(f"{name:<28}{median * 1e3:>12.3f}{rate:>14,.0f}{tokens:>14,.0f}{(third - first) / median:>8.0%}")


if __name__ == "__main__":
    main()
