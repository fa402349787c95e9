"""Tries the recurrence's GPU kernel on the device, against the scan that XLA compiles: do they agree, and how fast.

    python benchmarks/kernel_smoke.py [--seconds 35] [--only "layer QLSTM"]
    JAX_PLATFORMS=cpu python benchmarks/kernel_smoke.py --lower --seconds 600        without a GPU

One line for each case, forward and backward, layers first: milliseconds a call by the kernel, the median of 20, and by
the scan; how many times as long the scan takes; and the largest error of outputs and of gradients against it, relative
to the largest value. A case that fails prints the end of its traceback, and the next one is tried. Needs an NVIDIA GPU
of the Hopper generation. PyTorch's LSTM is timed where it is installed.
"""

import argparse
import statistics
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from flax import nnx as flax_nnx

from qlstm_jax import nnx
from qlstm_jax.cells import gru, lstm
from qlstm_jax.cells.common import recurrence_time_major
from qlstm_jax.cells.ql_lstm import block as ql_lstm
from qlstm_jax.cells.slstm import recurrence as slstm


class Variant(NamedTuple):
    """A cell at one size."""

    name: str
    cell: str
    heads: int
    size: int  # K
    batch: int
    steps: int
    masks: bool = False
    dtype: str = "bfloat16"


LAYERS = [
    # name, class, options, B, T, with lengths
    ("layer QLSTM 3 heads", "QLSTM", {"num_heads": 3}, 16, 1024, False),
    ("layer SLSTM 12 heads", "SLSTM", {"num_heads": 12}, 16, 1024, False),
    ("layer QLSTM 6 heads", "QLSTM", {"num_heads": 6}, 16, 1024, False),
    ("layer QLSTM no memory", "QLSTM", {"num_heads": 3, "skip": False}, 16, 1024, False),
    ("layer QLSTM lengths", "QLSTM", {"num_heads": 3}, 13, 250, True),
]
VARIANTS = [
    Variant("slstm64", "slstm", 4, 64, 16, 256, masks=True),
    Variant("gru128", "gru", 1, 128, 8, 256, masks=True),
    Variant("lstm64 float16", "lstm", 4, 64, 8, 256, dtype="float16"),
    Variant("ql256 odd", "ql", 3, 256, 11, 77, masks=True),
    Variant("ql64 B 32", "ql", 4, 64, 32, 256),
    Variant("ql256", "ql", 3, 256, 16, 1024),
    Variant("lstm128", "lstm", 6, 128, 16, 1024),
]


def problem(v: Variant) -> tuple[Callable[..., Any], dict[str, Any]]:
    """(loss, arrays): the loss of a variant, a function of the arrays, and what it gets."""
    hidden = v.heads * v.size
    keys = iter(jax.random.split(jax.random.key(0), 20))

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape)

    state: Any = 0.3 * normal(v.batch, hidden)
    maps, options = {"ql": 1, "lstm": 4, "gru": 3, "slstm": 4}[v.cell], dict[str, Any]()
    gates: Any = {"ql": partial(ql_lstm.gates, "full"), "lstm": lstm.cell._gates, "gru": gru._gates}.get(v.cell)
    arrays: dict[str, Any] = {}
    if v.cell == "ql":
        shape = (v.heads, 1, v.size) if v.heads > 1 else (hidden,)
        scales = tuple(1 + 0.1 * normal(hidden).reshape(shape) for _ in range(4))
        arrays["weights"] = scales, tuple(0.1 * normal(hidden).reshape(shape) for _ in range(4))
    if v.cell == "gru":
        options["separate"] = hidden
        arrays["recurrent_bias"] = 0.1 * normal(hidden)
    if v.cell == "slstm":
        gates, state = partial(slstm._gates, "sigmoid"), (state, 1 + jnp.abs(state), 0 * state)
    width = (v.heads, v.size, maps * v.size) if v.heads > 1 else (hidden, maps * hidden)
    arrays |= {
        "recurrent_kernel": normal(*width) / v.size**0.5,
        "input_kernel": normal(hidden, maps * hidden) / hidden**0.5,
        "bias": 0.1 * normal(maps * hidden),
        "xs": normal(v.steps, v.batch, hidden).astype(v.dtype),
        "carry": (0.3 * normal(v.batch, hidden).astype(v.dtype), state),
    }
    if v.masks:
        lengths = v.steps - jnp.arange(v.batch) * v.steps // (2 * v.batch)
        options["valid"] = jnp.arange(v.steps)[:, None] < lengths
        options["resets"] = jax.random.bernoulli(next(keys), 0.02, (v.steps, v.batch))
    arrays["target"] = normal(v.steps, v.batch, hidden).astype(v.dtype)

    def loss(arrays: dict[str, Any], **way: Any) -> Any:
        rest = {k: a for k, a in arrays.items() if k not in ("xs", "carry", "target")}
        (h, _), ys = recurrence_time_major(gates, arrays["xs"], arrays["carry"], **rest, **options, **way)
        return jnp.sum((ys * arrays["target"]).astype(jnp.float32)) / v.steps + jnp.sum(h.astype(jnp.float32)), ys

    return loss, arrays


def milliseconds(run: Callable[[], Any], repeats: int) -> float:
    """The median of single calls, after one that warms up."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def error(got: Any, want: Any) -> float:
    """The largest of all arrays, each relative to its largest value."""

    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        return jnp.max(jnp.abs(a - b)) / (jnp.max(jnp.abs(b)) + 1e-30)

    return max(float(e) for e in jax.tree.leaves(jax.tree.map(one, got, want)))


def gradient(v: Variant) -> tuple[Callable[[str], Any], dict[str, Any]]:
    """(run, arrays): value and gradients of a variant by a way."""
    loss, arrays = problem(v)
    return lambda way: jax.value_and_grad(partial(loss, way=way), has_aux=True), arrays


def layer(case: Any) -> tuple[Callable[[str], Any], Any]:
    """(run, inputs) of a Flax layer of 768 units, as `gradient` for a variant."""
    _, name, options, batch, steps, masks = case
    xs = jax.random.normal(jax.random.key(0), (batch, steps, 768)).astype(jnp.bfloat16)
    calls: dict[str, Any] = {}
    if masks:
        calls["seq_lengths"] = steps - jnp.arange(batch) * steps // (2 * batch)

    def run(way: str) -> Any:
        implementation = "kernel" if way == "kernel" else "scan"
        model = getattr(nnx, name)(
            768, 768, dtype="bfloat16", implementation=implementation, rngs=flax_nnx.Rngs(0), **options
        )
        graph, state = flax_nnx.split(model)

        def loss(state: Any, xs: jax.Array) -> Any:
            ys = flax_nnx.merge(graph, state)(xs, **calls)
            return jnp.mean(ys.astype(jnp.float32) ** 2), ys

        grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)
        return lambda xs: grad(state, xs)

    return run, xs


def torch_lstm(batch: int, steps: int) -> float | None:
    """Milliseconds of cuDNN's LSTM of 768 units in bfloat16, forward and backward, through PyTorch; None without it."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    module = torch.nn.LSTM(768, 768, batch_first=True).cuda().bfloat16()
    xs = torch.randn(batch, steps, 768, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    def run() -> None:
        module.zero_grad()
        xs.grad = None
        (module(xs)[0].float() ** 2).mean().backward()
        torch.cuda.synchronize()

    return milliseconds(run, 20)


def compare(run: Callable[[str], Any], arrays: Any) -> str:
    """Runs both ways; what is to be said of them."""
    start = time.perf_counter()
    kernel, scan = jax.jit(run("kernel")), jax.jit(run("fast"))
    got = jax.block_until_ready(kernel(arrays))
    compiled = time.perf_counter() - start
    kernel_ms = milliseconds(lambda: kernel(arrays), 20)
    want = jax.block_until_ready(scan(arrays))
    scan_ms = milliseconds(lambda: scan(arrays), 3)
    ((_, ys), gradients), ((_, want_ys), want_gradients) = got, want
    return (
        f"kernel {kernel_ms:8.3f} ms  scan {scan_ms:8.3f} ms  x{scan_ms / kernel_ms:.2f}  "
        f"error {error(ys, want_ys):.1e} gradients {error(gradients, want_gradients):.1e}  compiled in {compiled:.1f} s"
    )


def lowered(run: Callable[[str], Any], arrays: Any) -> str:
    """What is to be said of a program that a GPU was not asked to run."""
    program = jax.export.export(jax.jit(run("kernel")), platforms=["cuda"])(arrays)
    return f"lowers to {len(program.mlir_module_serialized):,} bytes"


def main() -> None:
    """Prints a line for each case, until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=35, help="no case is begun later")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--lower", action="store_true", help="only lower the kernels for a GPU, on any machine")
    args = parser.parse_args()
    start, say = time.perf_counter(), lowered if args.lower else compare
    print(jax.devices()[0].device_kind, "jax", jax.__version__, flush=True)
    cases: list[tuple[str, str, Callable[[], Any]]] = []
    for case in () if args.lower else LAYERS:
        cases.append((case[0], f"H 768 B {case[3]} T {case[4]}", partial(layer, case)))
    for v in VARIANTS:
        cases.append((v.name, f"N {v.heads} K {v.size} B {v.batch} T {v.steps}", partial(gradient, v)))
    for name, size, make in cases:
        if not name.startswith(args.only):
            continue
        if time.perf_counter() - start > args.seconds:
            print(f"{name}: no time left")
            continue
        try:
            print(f"{name:22s} {size:22s}", say(*make()), flush=True)
        except Exception:
            tail = traceback.format_exc().splitlines()[-15:]
            print(f"{name}: FAILED", *(text[:300] for text in tail), sep="\n    ", flush=True)
        if name == LAYERS[0][0] and not args.lower:
            print(f"{'PyTorch LSTM':22s} {size:22s} {torch_lstm(*LAYERS[0][3:5])} ms", flush=True)


if __name__ == "__main__":
    main()
