"""The chunkwise mLSTM against the official PyTorch forms, forward and backward, on a CPU.

    pip install torch xlstm        # besides this package; needed by this script alone
    python benchmarks/mlstm.py --threads 2

Peers are `parallel_stabilized_simple` and `chunkwise_simple` of the `xlstm` package, on the same random q, k, v and
gates. Rounds visit every form in turn, so that a slow spell of the machine touches all of them alike; at each visit a
form runs once untimed, for it finds caches and the heap as another one left them, and in training it follows itself.
The long sequence has rounds of its own with the short one. Printed are the median, the least, and the spread: the range
between the first and the third quartile as a share of the median. Before they are timed, the forms' outputs and
gradients are compared.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from xlstm.blocks.mlstm.backends import chunkwise_simple, parallel_stabilized_simple

from qlstm_jax.cells import mlstm


def draw(batch: int, steps: int, heads: int, size: int):
    """q, k, v, i, f and the cotangent of h; the forget gates open, as at the start of training."""
    rng = np.random.default_rng(0)
    q, k, v, weight = (rng.normal(size=(batch, steps, heads, size)).astype(np.float32) for _ in range(4))
    i, f = (rng.normal(loc, 1, size=(batch, steps, heads)).astype(np.float32) for loc in (0.0, 4.0))
    return (q, k, v, i, f), weight


def ours(inputs, weight, chunk_size: int):
    """A function that runs `chunkwise` forward and backward, and returns h's weighted sum and the gradients."""

    def loss(weight, *inputs):
        return jnp.sum(mlstm.chunkwise(*inputs, chunk_size=chunk_size)[1] * weight)

    gradients = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(1, 6))))
    arrays = [jnp.asarray(a) for a in (weight, *inputs)]
    return lambda: jax.block_until_ready(gradients(*arrays))


def official(form, inputs, weight, **options):
    """The same of a form of the `xlstm` package, whose axes are (B, N, T, ...)."""
    inputs = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, 2, 1))) for a in inputs]
    inputs = [a if a.ndim == 4 else a[..., None] for a in inputs]
    weight = torch.from_numpy(np.ascontiguousarray(np.moveaxis(weight, 2, 1)))

    def run():
        leaves = [a.detach().requires_grad_() for a in inputs]
        value = torch.sum(form(*leaves, **options) * weight)
        return value.detach(), torch.autograd.grad(value, leaves)

    return run


def compare(run, reference) -> float:
    """The largest difference of the gradients, relative to the largest number of each."""
    worst = 0.0
    for a, b in zip(run()[1], reference()[1], strict=True):
        b = np.moveaxis(b.numpy(), 1, 2).reshape(a.shape)
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


def rounds(runs: dict, count: int) -> dict:
    """Wall times of `count` calls of each function, in turn."""
    times = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            run()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def summary(name: str, times: list, tokens: int) -> str:
    """One line of the table."""
    first, median, third = statistics.quantiles(times, n=4)
    spread = (third - first) / median
    return (
        f"{name:<28}{median * 1e3:>10.1f}{min(times) * 1e3:>10.1f}{median / tokens * 1e9:>12.0f}"
        f"{min(times) / tokens * 1e9:>12.0f}{spread:>8.0%}"
    )


def main():
    """Reads the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--size", type=int, default=64, help="key and value size of a head")
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--long", type=int, default=16384, help="steps of the long sequence, run by our form alone")
    parser.add_argument("--chunk", type=int, default=64, help="our chunk size; the official form keeps its default")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="PyTorch's threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    short = draw(args.batch, args.steps, args.heads, args.size)
    runs = {
        "ours": ours(*short, args.chunk),
        "xlstm chunkwise": official(chunkwise_simple, *short, return_last_state=False),
        "xlstm parallel": official(parallel_stabilized_simple, *short),
    }
    for name in ("xlstm chunkwise", "xlstm parallel"):
        print(f"gradients differ from those of {name} by {compare(runs['ours'], runs[name]):.1e} at most")
    times = rounds(runs, args.rounds)
    short, long = f"ours, {args.steps} again", f"ours, {args.long} steps"
    inputs = draw(args.batch, args.long, args.heads, args.size)
    times |= rounds({short: runs["ours"], long: ours(*inputs, args.chunk)}, args.rounds)

    tokens = {name: args.batch * (args.long if name == long else args.steps) for name in times}
    print(f"batch {args.batch}, {args.heads} heads of {args.size}, {args.steps} steps, float32, forward and backward")
    print(f"{'':<28}{'median ms':>10}{'least ms':>10}{'ns a token':>12}{'least':>12}{'spread':>8}")
    for name, seen in times.items():
        print(summary(name, seen, tokens[name]))
    for name in list(runs)[1:3]:
        ratios = [f(times[name]) / f(times["ours"]) for f in (statistics.median, min)]
        print(f"{name} takes {ratios[0]:.1f} times as long as ours (median), {ratios[1]:.1f} (least)")
    ratios = [f(times[long]) / tokens[long] / (f(times[short]) / tokens[short]) for f in (statistics.median, min)]
    print(f"a token of {args.long} costs {ratios[0]:.2f} times one of {args.steps} (median), {ratios[1]:.2f} (least)")


if __name__ == "__main__":
    main()
