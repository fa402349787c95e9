"""What a training step of QL-LSTM costs beside Flax's and PyTorch's LSTM of the same size, on this machine.

    python benchmarks/ql_lstm.py --length 256 --hidden 512

A step is one pass forward and backward, with gradients to the weights and the inputs. Rounds visit every contestant in
turn, so that a slow spell of the machine touches all of them alike; printed are the median, the spread (the range
between the first and third quartile as a share of the median), the fastest round, and how many times as long as the
fast path both the medians and the fastest rounds are. "peak" is the share of the rate of one large matrix product
that the model's own products reach. Memory is what the compiled program needs besides inputs and outputs.
"""

import argparse
import importlib.util
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qlstm_jax.cells import ql_lstm

LARGE = 2048  # rows and columns of the large product


def ours(args, xs, weights, *, plain=False, remat=False):
    """(step, bytes of temporary memory) of QL-LSTM."""
    params = ql_lstm.init(jax.random.key(0), args.inputs, args.hidden, block_size=args.block, remat=remat)

    def loss(params, xs):
        return jnp.sum(weights * ql_lstm.unroll(params, xs, plain=plain)[0])

    step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, xs).compile()
    return lambda: jax.block_until_ready(step(params, xs)), step.memory_analysis().temp_size_in_bytes


def flax_lstm(args, xs, weights):
    """As `ours`, of `nnx.RNN(nnx.OptimizedLSTMCell)`."""
    graph, state = nnx.split(nnx.RNN(nnx.OptimizedLSTMCell(args.inputs, args.hidden, rngs=nnx.Rngs(0))))
    params, rest = nnx.filter_state(state, nnx.Param, ...)

    zeros = jnp.zeros((args.batch, args.hidden))

    def loss(params, xs):
        return jnp.sum(weights * nnx.merge(graph, params, rest)(xs, initial_carry=(zeros, zeros)))

    step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, xs).compile()
    return lambda: jax.block_until_ready(step(params, xs)), step.memory_analysis().temp_size_in_bytes


def torch_lstm(args, xs, weights):
    """As `ours`, of `torch.nn.LSTM`, whose memory is not known."""
    import torch

    layer = torch.nn.LSTM(args.inputs, args.hidden, batch_first=True)
    xs = torch.tensor(np.asarray(xs), requires_grad=True)
    weights = torch.tensor(np.asarray(weights))

    def step():
        layer.zero_grad()
        xs.grad = None
        (layer(xs)[0] * weights).sum().backward()

    return step, None


def large_product():
    """As `ours`, of one large product."""
    a = jnp.ones((LARGE, LARGE))
    step = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(step(a, a)), None


def operations(args) -> int:
    """Floating-point operations of QL-LSTM's matrix products, forward and (twice as many) backward."""
    tokens = args.batch * args.length
    blocks = args.batch * (args.length // args.block)
    return 3 * 2 * args.hidden * (tokens * (args.inputs + args.hidden) + blocks * 3 * args.hidden)


def measure(contestants, rounds: int):
    """Seconds of each round, by name."""
    seconds = {name: [] for name in contestants}
    for step, _ in contestants.values():
        step()
    for _ in range(rounds):
        for name, (step, _) in contestants.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def parse():
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="sequences in a batch")
    parser.add_argument("--length", type=int, default=256, help="tokens in a sequence")
    parser.add_argument("--inputs", type=int, default=256, help="input channels")
    parser.add_argument("--hidden", type=int, default=512, help="hidden size")
    parser.add_argument("--block", type=int, default=32, help="tokens in a block of QL-LSTM")
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each contestant")
    return parser.parse_args()


def main():
    """Reads the flags, measures, prints one line a contestant."""
    args = parse()
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(args.batch, args.length, args.inputs)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(args.batch, args.length, args.hidden)), jnp.float32)
    contestants = {
        "QL-LSTM": ours(args, xs, weights),
        "QL-LSTM, remat": ours(args, xs, weights, remat=True),
        "QL-LSTM, plain": ours(args, xs, weights, plain=True),
        "Flax OptimizedLSTMCell": flax_lstm(args, xs, weights),
        "large product": large_product(),
    }
    if importlib.util.find_spec("torch"):
        contestants["torch.nn.LSTM"] = torch_lstm(args, xs, weights)
    else:
        print("torch is not installed: torch.nn.LSTM is left out")

    loads = os.getloadavg()[0]
    seconds = measure(contestants, args.rounds)
    print(f"batch {args.batch}, length {args.length}, {args.inputs} to {args.hidden}, blocks of {args.block}, float32")
    print(f"on {jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {loads:.1f} to {os.getloadavg()[0]:.1f}")
    peak = 2 * LARGE**3 / min(seconds["large product"])
    print(f"{'':<24}{'median':>9}{'spread':>8}{'fastest':>9}{'times':>7}{'times':>7}{'peak':>6}{'memory':>9}")
    ours_median, ours_fastest = statistics.median(seconds["QL-LSTM"]), min(seconds["QL-LSTM"])
    for name, times in seconds.items():
        median, fastest, memory = statistics.median(times), min(times), contestants[name][1]
        first, _, third = statistics.quantiles(times, n=4)
        share = f"{operations(args) / fastest / peak:.0%}" if name == "QL-LSTM" else ""
        memory = "" if memory is None else f"{memory / 1e6:.0f} MB"
        print(
            f"{name:<24}{median * 1e3:>6.0f} ms{(third - first) / median:>8.0%}{fastest * 1e3:>6.0f} ms"
            f"{median / ours_median:>7.2f}{fastest / ours_fastest:>7.2f}{share:>6}{memory:>9}"
        )


if __name__ == "__main__":
    main()
