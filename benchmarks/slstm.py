"""The sLSTM against the official PyTorch cell without CUDA ("vanilla"), forward and backward, on a CPU.

    pip install torch xlstm        # besides this package; needed by this script alone
    python benchmarks/slstm.py --threads 2

Both read the same pre-activations with the same weights; outputs and gradients are compared before they are timed.
Rounds are interleaved. Printed are the median, the least and the range between the quartiles.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from xlstm.blocks.slstm.cell import sLSTMCell_vanilla, sLSTMCellConfig

from qlstm_jax.cells import slstm


def draw(batch: int, steps: int, hidden: int, heads: int):
    """Pre-activations (B, T, 4H), the recurrent kernel (N, K, 4K) and the cotangent of the outputs (B, T, H)."""
    rng, size = np.random.default_rng(0), hidden // heads
    z, kernel, weight = (
        rng.normal(size=shape).astype(np.float32)
        for shape in [(batch, steps, 4 * hidden), (heads, size, 4 * size), (batch, steps, hidden)]
    )
    return z, kernel * size**-0.5, weight


def ours(z, kernel, weight):
    """A function that runs forward and backward: ys, and the gradients of z and the kernel."""

    def loss(z, kernel):
        _, ys = slstm.unroll_preactivations(kernel, z)
        return jnp.sum(ys * weight), ys

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    z, kernel = jnp.asarray(z), jnp.asarray(kernel)

    def run():
        (d_z, d_kernel), ys = jax.block_until_ready(gradients(z, kernel))
        return ys, d_z, d_kernel

    return run


def official(z, kernel, weight, heads: int):
    """The same of the official cell, whose bias is set to zero."""
    batch, steps, hidden = weight.shape
    size = hidden // heads
    config = sLSTMCellConfig(hidden_size=hidden, num_heads=heads, backend="vanilla", dtype="float32", batch_size=batch)
    config.enable_automatic_mixed_precision = False
    cell = sLSTMCell_vanilla(config)
    with torch.no_grad():
        cell._bias.zero_()
        external = torch.from_numpy(kernel).reshape(heads, size, 4, size)
        cell._recurrent_kernel.copy_(cell._recurrent_kernel_ext2int(external))
    inputs, weight = torch.from_numpy(z), torch.from_numpy(weight)

    def run():
        leaf = inputs.detach().requires_grad_()
        ys, _ = cell(leaf)
        ys = ys.permute(0, 2, 1, 3).reshape(batch, steps, hidden)
        d_z, d_kernel = torch.autograd.grad(torch.sum(ys * weight), [leaf, cell._recurrent_kernel])
        d_kernel = cell._recurrent_kernel_int2ext(d_kernel).reshape(heads, size, 4 * size)
        return ys.detach(), d_z, d_kernel

    return run


def seconds(run) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main():
    """Reads the flags, compares, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="PyTorch's threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    inputs = draw(args.batch, args.steps, args.hidden, args.heads)
    runs = {"ours": ours(*inputs), "xlstm vanilla": official(*inputs, args.heads)}
    for name, a, b in zip(
        ("outputs", "gradient of z", "gradient of R"), *(run() for run in runs.values()), strict=True
    ):
        apart = np.abs(np.asarray(a) - b.numpy()).max() / np.abs(b.numpy()).max()
        print(f"{name} differ by {apart:.1e} of the largest")
    times = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    print(f"batch {args.batch}, {args.steps} steps, hidden {args.hidden} in {args.heads} heads, forward and backward")
    for name, seen in times.items():
        first, median, third = (1e3 * q for q in statistics.quantiles(seen, n=4))
        print(f"{name:<16}{median:>9.1f} ms   least {1e3 * min(seen):.1f}   quartiles {first:.1f} .. {third:.1f}")
    ratios = [f(times["xlstm vanilla"]) / f(times["ours"]) for f in (statistics.median, min)]
    print(f"xlstm vanilla takes {ratios[0]:.1f} times as long as ours (median), {ratios[1]:.1f} (least)")


if __name__ == "__main__":
    main()
