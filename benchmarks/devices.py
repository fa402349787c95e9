"""Whether training is faster with a processor split into several JAX devices, cell by cell.

    JAX_NUM_CPU_DEVICES=2 python benchmarks/devices.py

A step is that of train.py, of recall after --length tokens: on one device, which has all cores for each operation, and
on all devices, each of which takes its rows of the batch. Rounds are interleaved; printed are the medians, the spread
(the range between the quartiles as a share of the median) and the ratio of the medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax
from flax import nnx

from qlstm_jax import problems
from qlstm_jax.training import config as configs
from qlstm_jax.training.devices import make_step
from qlstm_jax.training.step import initial_state, make_optimizer

CELLS = ["lstm", "gru", "ql_lstm", "slstm", "mlstm", "pr_lstm", "transformer"]


def trainer(cell: str, args, num_devices: int):
    """A function that trains for --steps steps and returns the seconds of one."""
    config = configs.default()
    config.problem = "recall"
    config.recall.length = args.length
    config.model.cell, config.model.hidden_size = cell, args.hidden
    config.train.batch_size, config.train.num_devices = args.batch, num_devices
    with tempfile.TemporaryDirectory() as folder:
        problem = problems.make(config, Path(folder))
    model = problem.model(nnx.Rngs(0))
    optimizer = make_optimizer(config.train)
    step = make_step(problem, nnx.graphdef(model), optimizer, config.train)
    state = initial_state(model, optimizer, jax.random.key(0), problem.initial_carry(model, args.batch))

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(args.steps):
            state, _ = step(state, None)
        jax.block_until_ready(state)
        return (time.perf_counter() - start) / args.steps

    return run


def main():
    """Reads the flags, measures, prints one line a cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--batch", type=int, default=32, help="sequences in a batch, of all devices together")
    parser.add_argument("--length", type=int, default=256, help="tokens in a sequence")
    parser.add_argument("--hidden", type=int, default=128, help="hidden size")
    parser.add_argument("--steps", type=int, default=5, help="steps of one measurement")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each")
    args = parser.parse_args()
    devices = jax.device_count()
    if devices < 2:
        parser.error("there is one device; expected several, for example by JAX_NUM_CPU_DEVICES=2")
    print(f"batch {args.batch}, length {args.length}, H {args.hidden}, {os.cpu_count()} cores; a step")
    print(f"{'':<12}{'1 device':>10}{'spread':>8}{f'{devices} devices':>11}{'spread':>8}{'times':>7}")
    for cell in args.cells:
        runs = [trainer(cell, args, n) for n in (1, devices)]
        for run in runs:
            run()
        seconds = list(zip(*([run() for run in runs] for _ in range(args.rounds)), strict=True))
        medians = [statistics.median(s) for s in seconds]
        spreads = [(q[2] - q[0]) / m for q, m in zip(map(statistics.quantiles, seconds), medians, strict=True)]
        print(
            f"{cell:<12}{medians[0] * 1e3:>7.1f} ms{spreads[0]:>8.0%}{medians[1] * 1e3:>8.1f} ms{spreads[1]:>8.0%}"
            f"{medians[0] / medians[1]:>7.2f}"
        )


if __name__ == "__main__":
    main()
