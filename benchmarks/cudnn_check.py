"""Checks on an NVIDIA GPU that the LSTM by cuDNN equals the scan, and times both.

    python benchmarks/cudnn_check.py [--part times|checks] [--seconds 40]

Times first: for each size the milliseconds of forward and backward together, by the scan and by cuDNN, medians of nine
interleaved calls with the range of their quartiles, in the default precision and with no other program on the GPU.
Then for each size and precision the largest |cudnn − scan| over the largest |scan|, of outputs and last carry, and of
all gradients (params, inputs, first carry). Then a line for each thing that only a GPU can tell: transformations,
the program, refusals. What raises is printed and passed over. No line is begun after --seconds. The exit code is 1
if anything was wrong.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import rnn

from qlstm_jax.cells import lstm
from qlstm_jax.cells.lstm import cudnn

# B, T, D, H and whether rows have lengths, 0 among them.
SIZES = [(1, 1, 1, 1, False), (3, 17, 5, 33, True), (32, 128, 64, 128, True), (32, 256, 128, 512, False)]
TIMED = [
    (32, 256, 512, 512, False),
    (32, 128, 128, 128, False),
    (16, 1024, 768, 768, False),
    (128, 64, 1024, 1024, False),
    (32, 128, 128, 128, True),
]
BOUND = {"highest": 1e-4, "default": 2e-2}  # TensorFloat-32 keeps ten bits of a factor


def with_implementation(params: lstm.Params, implementation: str) -> lstm.Params:
    """The same weights, run in another way."""
    return dataclasses.replace(params, implementation=implementation)


def operands(batch: int, steps: int, inputs: int, hidden: int, ragged: bool) -> tuple[Any, ...]:
    """Random (params, xs, carry), lengths and the weights of outputs and carry in a sum."""
    keys = iter(jax.random.split(jax.random.key(batch * steps + hidden), 8))
    params = lstm.init(next(keys), inputs, hidden, chrono=max(steps, 3))
    xs = jax.random.normal(next(keys), (batch, steps, inputs))
    carry = lstm.Carry(*(0.5 * jax.random.normal(next(keys), (batch, hidden)) for _ in range(2)))
    weights = (
        lstm.Carry(*(jax.random.normal(next(keys), (batch, hidden)) for _ in range(2))),
        jax.random.normal(next(keys), (batch, steps, hidden)),
    )
    lengths = None
    if ragged:
        lengths = jax.random.randint(next(keys), (batch,), 0, steps + 1).at[0].set(0).at[1].set(steps)
    return (params, xs, carry), lengths, weights


def program(lengths: Any, weights: Any) -> jax.stages.Wrapped:
    """(outputs, gradients) of (params, xs, carry), jitted."""

    def loss(params: lstm.Params, xs: Any, carry: lstm.Carry) -> tuple[Any, Any]:
        outputs = lstm.unroll(params, xs, carry=carry, seq_lengths=lengths)
        return sum(jnp.vdot(a, w) for a, w in zip(*map(jax.tree.leaves, (outputs, weights)), strict=True)), outputs

    def run(params: lstm.Params, xs: Any, carry: lstm.Carry) -> tuple[Any, Any]:
        gradients, outputs = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, xs, carry)
        return outputs, gradients

    return jax.jit(run)


def error(found: Any, wanted: Any) -> float:
    """The largest difference of any array over the largest number of what it should be."""
    errors = []
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        errors.append(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30) if b.size else 0.0)
    return float(np.max(errors)) if np.isfinite(errors).all() else float("inf")


def compare(size: tuple[int, int, int, int, bool], precision: str) -> str:
    """A line of differences for a size."""
    (params, xs, carry), lengths, weights = operands(*size)
    with jax.default_matmul_precision(None if precision == "default" else precision):
        run = program(lengths, weights)
        found, wanted = (run(with_implementation(params, way), xs, carry) for way in ("cudnn", "scan"))
    errors = [error(a, b) for a, b in zip(found, wanted, strict=True)]
    verdict = "ok" if max(errors) <= BOUND[precision] else "WRONG"
    return f"{verdict}: value {errors[0]:.1e}, gradient {errors[1]:.1e}"


def clock(size: tuple[int, int, int, int, bool]) -> str:
    """A line of times for a size."""
    (params, xs, carry), lengths, weights = operands(*size)
    run, times = program(lengths, weights), {"scan": [], "cudnn": []}
    for call in range(10):
        for way, taken in times.items():
            start = time.perf_counter()
            jax.block_until_ready(run(with_implementation(params, way), xs, carry))
            if call:  # the first compiles
                taken.append(1000 * (time.perf_counter() - start))
    texts = []
    for way, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        texts.append(f"{way} {middle:.2f} ms ({low:.2f}..{high:.2f})")
    ratio = statistics.median(times["scan"]) / statistics.median(times["cudnn"])
    return f"ok: {', '.join(texts)}, cudnn x{ratio:.2f}"


def small() -> tuple[Any, ...]:
    """Operands of the checks that are no comparison of sizes."""
    return operands(4, 9, 3, 16, True)


def equal(transform: Callable[[Callable[..., Any]], Callable[..., Any]]) -> str:
    """A line on cuDNN under a transformation of the loss, against the scan under the same."""
    (params, xs, carry), lengths, weights = small()

    def loss(params: lstm.Params, xs: Any) -> Any:
        outputs = lstm.unroll(params, xs, carry=carry, seq_lengths=lengths)
        return sum(jnp.vdot(a, jnp.sin(w)) for a, w in zip(*map(jax.tree.leaves, (outputs, weights)), strict=True))

    with jax.default_matmul_precision("highest"):
        run = jax.jit(transform(loss))
        found = error(run(with_implementation(params, "cudnn"), xs), run(with_implementation(params, "scan"), xs))
    return f"{'ok' if found <= BOUND['highest'] else 'WRONG'}: {found:.1e}"


def mapped(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Gradients of two sets of params at once."""
    return lambda params, xs: jax.vmap(jax.grad(loss, argnums=(0, 1)), (0, None))(
        jax.tree.map(lambda a: jnp.stack([a, 0.5 * a]), params), xs
    )


def second(loss: Callable[..., Any]) -> Callable[..., Any]:
    """A Hessian-vector product."""
    return lambda params, xs: jax.jvp(lambda xs: jax.grad(loss, argnums=(0, 1))(params, xs), (xs,), (jnp.cos(xs),))[1]


def shard_mapped(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient on a mesh of one device, with the default checks."""
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec()
    return jax.shard_map(jax.grad(loss, argnums=(0, 1)), mesh=mesh, in_specs=(spec, spec), out_specs=spec)


def lowered() -> str:
    """Whether cuDNN's call is in the program by name, and by name alone."""
    (params, xs, carry), lengths, weights = small()
    run = program(lengths, weights)
    texts = (run.lower(with_implementation(params, way), xs, carry).as_text() for way in ("cudnn", "auto"))
    by_name, auto = ("cudnn_rnn" in text for text in texts)
    return f"{'ok' if by_name and not auto else 'WRONG'}: cuDNN in the program by name {by_name}, by auto {auto}"


def refused() -> str:
    """The message where cuDNN is asked for what it has not."""
    (params, xs, _), _, _ = small()
    try:
        lstm.unroll(with_implementation(params, "cudnn"), xs, resets=jnp.zeros(xs.shape[:2], bool))
    except ValueError as refusal:
        return f"ok: {refusal}"
    return "WRONG: not refused"


def rows_of_none() -> str:
    """What cuDNN itself makes of a row without tokens: for information, as the library gives it none."""
    (params, xs, carry), lengths, _ = small()
    options = {"input_size": 3, "hidden_size": 16, "num_layers": 1, "dropout": False, "bidirectional": False}
    flat = cudnn.flat_weights(params)
    ys, h, c = jax.jit(lambda xs: rnn.lstm(xs, carry.h[None], carry.c[None], flat, lengths, **options))(xs)
    kept = [bool(jnp.array_equal(a[0, 0], b[0])) for a, b in ((h, carry.h), (c, carry.c))]
    return f"ok: allowed; outputs 0 {not bool(jnp.any(ys[0]))}, h kept {kept[0]}, c kept {kept[1]}"


def lines(part: str | None) -> list[tuple[str, Callable[[], str]]]:
    """All checks of a part, or of both, by name."""

    def named(size: tuple[int, int, int, int, bool]) -> str:
        return "B {} T {} D {} H {} lengths {}".format(*size)

    times = [(f"{named(size)}, times", partial(clock, size)) for size in TIMED]
    checks = [(f"{named(size)}, highest", partial(compare, size, "highest")) for size in SIZES]
    checks.append((f"{named(SIZES[-1])}, default", partial(compare, SIZES[-1], "default")))
    checks += [("lowered", lowered), ("resets", refused)]
    checks.append(("a row of 0 tokens, by cuDNN", rows_of_none))
    transformations = {"vmap of grad": mapped, "Hessian-vector": second, "shard_map": shard_mapped}
    transformations["checkpoint"] = lambda loss: jax.grad(jax.checkpoint(loss), argnums=(0, 1))
    checks += [(f"cudnn, {name}", partial(equal, transform)) for name, transform in transformations.items()]
    return {"times": times, "checks": checks}.get(part, times + checks)


def main() -> int:
    """Prints the lines; 1 if one of them is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["times", "checks"])
    parser.add_argument("--seconds", type=float, default=40)
    args = parser.parse_args()
    end, wrong = time.monotonic() + args.seconds, 0
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}", flush=True)
    for name, check in lines(args.part):
        if time.monotonic() > end:
            print(f"{name}: left out, no time", flush=True)
            continue
        start = time.monotonic()
        try:
            line = check()
        except Exception as error:
            line = f"WRONG: {type(error).__name__}: {' '.join(str(error).split())[:600]}"
        wrong += line.startswith("WRONG")
        print(f"{name}: {line} ({time.monotonic() - start:.1f} s)", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
