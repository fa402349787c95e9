"""Times the sequential cells against Flax and PyTorch, interleaved in one process.

    python benchmarks/recurrent.py                                     LSTM, GRU, SimpleRNN and QL-LSTM at four sizes
    python benchmarks/recurrent.py --grid full --cells LSTM GRU        B 1..128, T 64..1,024, H 64..512
    python benchmarks/recurrent.py --sizes 32,128,256 --json out.jsonl

Each line is one cell at one size, forward and backward with respect to parameters and inputs, D = H, float32: the
median time of ours, and how many times as long the others take (`flax.nnx.RNN` of Flax's cell, `torch.nn` of the same
name where there is one), with the range of that ratio over the rounds. More than 1 means that ours is faster. QL-LSTM
is compared with their LSTM. PyTorch is left out where it is not installed.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qlstm_jax import nnx as layers

SMALL = [(8, 128, 64), (32, 128, 128), (32, 128, 256), (128, 64, 128)]
FULL = list(itertools.product((1, 8, 32, 128), (64, 256, 1024), (64, 128, 256, 512)))
FLAX = {"LSTM": nnx.OptimizedLSTMCell, "QLSTM": nnx.OptimizedLSTMCell, "GRU": nnx.GRUCell, "SimpleRNN": nnx.SimpleCell}
TORCH = {"LSTM": "LSTM", "QLSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}


def jax_run(layer: nnx.Module, xs: jax.Array, *, backward: bool) -> Callable[[], object]:
    """A function that runs a layer on xs once."""
    graph, state = nnx.split(layer)

    def loss(state: nnx.State, xs: jax.Array) -> jax.Array:
        return jnp.mean(nnx.merge(graph, state)(xs) ** 2)

    run = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True) if backward else loss)
    return lambda: jax.block_until_ready(run(state, xs))


def torch_run(name: str, xs: jax.Array, *, backward: bool) -> Callable[[], object] | None:
    """The same by PyTorch on all cores; None where it is not installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    module = getattr(torch.nn, name)(xs.shape[-1], xs.shape[-1], batch_first=True)
    inputs = torch.tensor(np.asarray(xs), requires_grad=backward)

    def run() -> object:
        with torch.set_grad_enabled(backward):
            loss = (module(inputs)[0] ** 2).mean()
        if backward:
            module.zero_grad()
            inputs.grad = None
            loss.backward()
        return loss

    return run


def times(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round, one after the other."""
    for run in runs.values():
        run()
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def compare(name: str, size: tuple[int, int, int], *, rounds: int, backward: bool) -> dict[str, object]:
    """One line of the table."""
    batch, steps, hidden = size
    xs = jax.random.normal(jax.random.key(0), (batch, steps, hidden))
    flax = nnx.RNN(FLAX[name](hidden, hidden, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    runs: dict[str, Callable[[], object] | None] = {
        "ours": jax_run(getattr(layers, name)(hidden, hidden, rngs=nnx.Rngs(0)), xs, backward=backward),
        "flax": jax_run(flax, xs, backward=backward),
        "torch": torch_run(TORCH[name], xs, backward=backward),
    }
    seconds = times({peer: run for peer, run in runs.items() if run is not None}, rounds)
    line: dict[str, object] = {"cell": name, "batch": batch, "steps": steps, "hidden": hidden, "backward": backward}
    line["ms"] = round(1e3 * statistics.median(seconds["ours"]), 2)
    for peer in seconds.keys() - {"ours"}:
        ratios = sorted(theirs / ours for theirs, ours in zip(seconds[peer], seconds["ours"], strict=True))
        median = statistics.median(seconds[peer]) / statistics.median(seconds["ours"])
        line[peer] = [round(r, 2) for r in (median, ratios[0], ratios[-1])]
    return line


def main() -> None:
    """Prints the table, and the geometric mean and the least of each column."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(FLAX), default=list(FLAX))
    parser.add_argument("--grid", choices=["small", "full"], default="small")
    parser.add_argument("--sizes", nargs="+", metavar="B,T,H", help="in place of a grid")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--forward", action="store_true", help="without the backward pass")
    parser.add_argument("--json", type=Path, help="appends the lines to a file")
    args = parser.parse_args()
    sizes = (
        [tuple(map(int, s.split(","))) for s in args.sizes] if args.sizes else {"small": SMALL, "full": FULL}[args.grid]
    )
    lines = []
    for name, size in itertools.product(args.cells, sizes):
        line = compare(name, size, rounds=args.rounds, backward=not args.forward)
        peers = "  ".join(
            f"{p} x{line[p][0]:.2f} ({line[p][1]:.2f}..{line[p][2]:.2f})" for p in ("flax", "torch") if p in line
        )
        print(f"{name:10s} B {size[0]:4d} T {size[1]:5d} H {size[2]:4d}  {line['ms']:9.2f} ms  {peers}", flush=True)
        lines.append(line)
        if args.json:
            with args.json.open("a") as file:
                file.write(json.dumps(line) + "\n")
    for name, peer in itertools.product(args.cells, ("flax", "torch")):
        ratios = [line[peer][0] for line in lines if line["cell"] == name and peer in line]
        if ratios:
            print(f"{name:10s} against {peer}: mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
