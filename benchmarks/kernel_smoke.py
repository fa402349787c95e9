"""Tries the recurrence's GPU kernel on the device, against the scan that XLA compiles: do they agree, and how fast.

    python benchmarks/kernel_smoke.py [--seconds 55] [--only ql256] [--json kernel.jsonl]
    JAX_PLATFORMS=cpu python benchmarks/kernel_smoke.py --lower --seconds 600        without a GPU

One line for each variant, the most important first: the largest error against the scan, relative to the largest value,
of outputs and of gradients; milliseconds a call, the median of 20; and how many times as long the scan takes. A variant
that fails prints the end of its traceback, and the next one is tried. Needs an NVIDIA GPU from Hopper on.
"""

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp

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
    backward: bool = False
    masks: bool = False
    dtype: str = "bfloat16"
    way: str = "kernel"


VARIANTS = [
    Variant("ql256", "ql", 3, 256, 16, 1024),
    Variant("ql256+back", "ql", 3, 256, 16, 1024, backward=True),
    Variant("ql256 fast", "ql", 3, 256, 16, 1024, way="kernel:fast"),
    Variant("ql256+back fast", "ql", 3, 256, 16, 1024, backward=True, way="kernel:fast"),
    Variant("ql256 fast registers", "ql", 3, 256, 16, 1024, way="kernel:fast:registers"),
    Variant("ql256 fast prefetch", "ql", 3, 256, 16, 1024, way="kernel:fast:prefetch"),
    Variant("ql256 approximate", "ql", 3, 256, 16, 1024, way="kernel:approximate"),
    Variant("ql256+back approximate", "ql", 3, 256, 16, 1024, backward=True, way="kernel:approximate"),
    Variant("lstm128", "lstm", 6, 128, 16, 1024),
    Variant("lstm128+back", "lstm", 6, 128, 16, 1024, backward=True),
    Variant("ql256 masks", "ql", 3, 256, 16, 256, backward=True, masks=True),
    Variant("ql128", "ql", 6, 128, 16, 1024, backward=True),
    Variant("ql256 T 64", "ql", 3, 256, 16, 64, backward=True),
    Variant("ql64 B 32", "ql", 4, 64, 32, 1024, backward=True),
    Variant("slstm64", "slstm", 4, 64, 16, 256, backward=True, masks=True),
    Variant("gru128", "gru", 1, 128, 8, 256, backward=True, masks=True),
    Variant("lstm64 float16", "lstm", 4, 64, 8, 256, backward=True, dtype="float16"),
    Variant("ql256 odd", "ql", 3, 256, 11, 77, backward=True, masks=True),
]


def problem(v: Variant) -> tuple[Callable[..., Any], dict[str, Any]]:
    """(loss, arrays): the loss of a variant, a function of the arrays, and what it gets."""
    hidden = v.heads * v.size
    keys = iter(jax.random.split(jax.random.key(0), 20))

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape)

    state: Any = 0.3 * normal(v.batch, hidden)
    maps, options = {"ql": 1, "lstm": 4, "gru": 3, "slstm": 4}[v.cell], dict[str, Any]()
    gates: Any = {"ql": partial(ql_lstm.cell._gates, "full"), "lstm": lstm._gates, "gru": gru._gates}.get(v.cell)
    arrays: dict[str, Any] = {}
    if v.cell == "ql":
        shape = (v.heads, 1, v.size) if v.heads > 1 else (hidden,)
        scales = tuple(1 + 0.1 * normal(hidden).reshape(shape) for _ in range(4))
        arrays["weights"] = scales, tuple(0.1 * normal(hidden).reshape(shape) for _ in range(4))
        if v.heads > 1:
            gates = gates_of_heads
    if v.cell == "gru":
        options["separate"] = hidden
        arrays["recurrent_bias"] = 0.1 * normal(hidden)
    if v.cell == "slstm":
        gates, state = partial(slstm.cell._gates, "sigmoid"), (state, 1 + jnp.abs(state), 0 * state)
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


def gates_of_heads(weights: Any, u: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """QL-LSTM's gates with one map, from u and c (N, B, K) and weights (N, 1, K)."""
    i, f, g, o = (scale * u + bias for scale, bias in zip(*weights, strict=True))
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


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


def compare(v: Variant, scans: dict[Any, Any]) -> dict[str, Any]:
    """Runs a variant; results and times of the scan are kept in `scans`, as variants share them."""
    loss, arrays = problem(v)

    def jitted(**way: Any) -> Callable[[], Any]:
        if v.backward:
            run = jax.jit(jax.value_and_grad(partial(loss, **way), has_aux=True))
        else:
            run = jax.jit(partial(loss, **way))
        return lambda: run(arrays)

    start = time.perf_counter()
    kernel = jitted(way=v.way)
    got = jax.block_until_ready(kernel())
    compiled = time.perf_counter() - start
    line = v._asdict() | {"compile_s": round(compiled, 2), "kernel_ms": round(milliseconds(kernel, 20), 3)}
    same = repr(v._replace(name="", way=""))
    if same not in scans:
        scan = jitted()
        want = jax.block_until_ready(scan())
        scans[same] = want, milliseconds(scan, 3)
    want, scan_ms = scans[same]
    line["scan_ms"] = round(scan_ms, 3)
    line["ratio"] = round(scan_ms / line["kernel_ms"], 2)
    (_, ys), *gradients = got if v.backward else (got,)
    (_, want_ys), *want_gradients = want if v.backward else (want,)
    line["error"], line["gradient_error"] = error(ys, want_ys), error(gradients, want_gradients) if gradients else None
    return line


def lowered(v: Variant) -> int:
    """Bytes of a variant's program for a GPU."""
    loss, arrays = problem(v)
    run = jax.value_and_grad(partial(loss, way=v.way), has_aux=True) if v.backward else partial(loss, way=v.way)
    return len(jax.export.export(jax.jit(run), platforms=["cuda"])(arrays).mlir_module_serialized)


def main() -> None:
    """Prints a line for each variant, until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=55, help="no variant is begun later")
    parser.add_argument("--only", help="variants whose name begins so")
    parser.add_argument("--lower", action="store_true", help="only lower the kernels for a GPU, on any machine")
    parser.add_argument("--json", type=Path, help="appends the lines to a file")
    args = parser.parse_args()
    start, scans = time.perf_counter(), dict[Any, Any]()
    print(jax.devices()[0].device_kind, "jax", jax.__version__, flush=True)
    for v in VARIANTS:
        if time.perf_counter() - start > args.seconds:
            print(f"{v.name}: no time left")
            continue
        if args.only and not v.name.startswith(args.only):
            continue
        try:
            if args.lower:
                print(f"{v.name:24s} lowers to {lowered(v):,} bytes", flush=True)
                continue
            line = compare(v, scans)
        except Exception:
            tail = "".join(traceback.format_exc()).splitlines()[-15:]
            print(f"{v.name}: FAILED", *(text[:300] for text in tail), sep="\n    ", flush=True)
            continue
        print(
            f"{v.name:24s} N {v.heads} K {v.size} B {v.batch} T {v.steps}  kernel {line['kernel_ms']:8.3f} ms  scan "
            f"{line['scan_ms']:8.3f} ms  x{line['ratio']:.2f}  error {line['error']:.1e} gradients "
            f"{line['gradient_error'] or 0:.1e}  compiled in {line['compile_s']} s",
            flush=True,
        )
        if args.json:
            with args.json.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
