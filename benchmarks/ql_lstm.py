"""What a training step of QL-LSTM costs beside Flax's and PyTorch's LSTM of the same size, on this machine.

    python benchmarks/ql_lstm.py --length 256 --hidden 512
    JAX_NUM_CPU_DEVICES=2 python benchmarks/ql_lstm.py          # each batch also split over two devices

A step is one pass forward and backward, with gradients to the weights and the inputs. Rounds visit every contestant in
turn, so that a slow spell of the machine touches all of them alike; printed are the median, the spread (the range
between the first and third quartile as a share of the median), the fastest round, and how many times as long as the
fast path both the medians and the fastest rounds are. "peak" is the share of the rate of one large matrix product
that the model's own products reach. Memory is what the compiled program needs a device besides inputs and outputs.

Where JAX has several devices, such as the two that JAX_NUM_CPU_DEVICES=2 makes of a processor, each JAX contestant is
there twice: on one device, and with its batch split over all of them and the gradients of the weights summed.
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
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from qlstm_jax.cells import ql_lstm

LARGE = 2048  # rows and columns of the large product


def compiled(outputs, params, xs, weights, devices: int):
    """(step, bytes of temporary memory) of a JAX model, on one device or with the batch split over `devices`.

    Args:
        outputs: (params, xs) -> ys, whose weighted sum is differentiated by both.
        params: a pytree.
        xs: (B, T, D).
        weights: (B, T, H).
        devices: how many; B is a multiple of it.
    """
    mesh = jax.make_mesh((devices,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    rows, copies = PartitionSpec("batch"), PartitionSpec()
    params = jax.device_put(params, NamedSharding(mesh, copies))
    xs, weights = jax.device_put((xs, weights), NamedSharding(mesh, rows))

    def gradient(params, xs, weights):
        by_params, by_xs = jax.grad(lambda p, x: jnp.sum(weights * outputs(p, x)), argnums=(0, 1))(params, xs)
        return jax.lax.psum(by_params, "batch"), by_xs

    specs = {"in_specs": (copies, rows, rows), "out_specs": (copies, rows)}
    step = jax.jit(jax.shard_map(gradient, mesh=mesh, check_vma=False, **specs)).lower(params, xs, weights).compile()
    memory = step.memory_analysis().temp_size_in_bytes
    return lambda: jax.block_until_ready(step(params, xs, weights)), memory


def ours(args, xs, weights, devices=1, *, plain=False, remat=False):
    """`compiled` of QL-LSTM."""
    options = {"num_heads": args.heads, "block_size": args.block, "remat": remat}
    params = ql_lstm.init(jax.random.key(0), args.inputs, args.hidden, **options)
    return compiled(lambda p, x: ql_lstm.unroll(p, x, plain=plain)[1], params, xs, weights, devices)


def flax_lstm(args, xs, weights, devices=1):
    """`compiled` of `nnx.RNN(nnx.OptimizedLSTMCell)`."""
    graph, state = nnx.split(nnx.RNN(nnx.OptimizedLSTMCell(args.inputs, args.hidden, rngs=nnx.Rngs(0))))
    params, rest = nnx.filter_state(state, nnx.Param, ...)

    def outputs(params, xs):
        zeros = jnp.zeros((len(xs), args.hidden))
        return nnx.merge(graph, params, rest)(xs, initial_carry=(zeros, zeros))

    return compiled(outputs, params, xs, weights, devices)


def torch_lstm(args, xs, weights):
    """As `compiled`, of `torch.nn.LSTM`, whose memory is not known."""
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
    """As `compiled`, of one large product."""
    a = jnp.ones((LARGE, LARGE))
    step = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(step(a, a)), None


def operations(args) -> int:
    """Floating-point operations of QL-LSTM's matrix products, forward and (twice as many) backward."""
    tokens = args.batch * args.length
    blocks = args.batch * (args.length // args.block)
    head = args.hidden // args.heads
    return 3 * 2 * args.hidden * (tokens * (args.inputs + head) + blocks * (head + 2 * args.hidden))


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
    parser.add_argument("--heads", type=int, default=1, help="heads of QL-LSTM")
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
    devices = len(jax.devices())
    if devices > 1 and args.batch % devices == 0:
        contestants[f"QL-LSTM, {devices} devices"] = ours(args, xs, weights, devices)
        contestants[f"Flax, {devices} devices"] = flax_lstm(args, xs, weights, devices)
    elif devices > 1:
        print(f"a batch of {args.batch} cannot be split over {devices} devices: one is used")
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
