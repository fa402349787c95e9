"""Checks every cell and layer on the device of this machine against float64 on its CPU.

    python benchmarks/gpu/correctness.py --out results/gpu/lines.jsonl [--share 0/4]

For each case, outputs, the last carry and the gradients with respect to parameters and inputs are computed on the CPU
in float64 and on the device in float32 (products in full precision) and in bfloat16, with lengths and
resets. A line has ‖device − reference‖ / ‖reference‖ over all arrays of a group, and its bound: 2e-5 in
float32, in bfloat16 twice the error that the CPU has in bfloat16, plus 0.01. The formal languages' samplers must draw
the same strings on both. --share i/n takes each n-th case, for n processes at once. The exit code is 1 if anything is
out of bounds.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402
from lines import Lines  # noqa: E402

from qlstm_jax import nnx as layers  # noqa: E402
from qlstm_jax.cells import CELLS, Cell  # noqa: E402
from qlstm_jax.data.formal import TASKS  # noqa: E402

BATCH, STEPS, INPUTS, HIDDEN = 5, 70, 24, 64
BOUND = 2e-5  # of float32
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "PRLSTM": [{"cell": merge} for merge in ("lstm", "rnn", "ldru", "grc")],
    "QLSTM": [{}, {"sharing": "gates"}, {"sharing": "none", "skip": False}, {"num_heads": 2}],
    "SLSTM": [{}, {"num_heads": 2}],
}

Errors = dict[str, tuple[float, float]]  # of each group of results: (error, bound)


def relative_error(found: Any, wanted: Any) -> float:
    """‖found − wanted‖ / ‖wanted‖ over all arrays of two pytrees; infinite if integers differ or a number is none."""
    off = norm = 0.0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype == jax.dtypes.float0:
            continue
        if np.issubdtype(b.dtype, np.integer) or b.dtype == bool:
            off += 0.0 if np.array_equal(a, b) else np.inf
            continue
        off += float(np.sum(np.square(a.astype(np.float64) - b)))
        norm += float(np.sum(np.square(b)))
    error = np.sqrt(off / norm) if norm else np.sqrt(off)
    return float(error) if np.isfinite(error) else np.inf


def masks() -> dict[str, Any]:
    """Lengths and resets of a call."""
    resets = np.random.default_rng(1).random((BATCH, STEPS)) < 0.08
    return {"seq_lengths": np.array([STEPS, 0, 1, 33, 64], np.int32), "resets": resets}


def same_in(tree: Any, shape_of: Any) -> Any:
    """The leaves of `tree` in the dtypes of `shape_of`, whose static options they get."""
    cast = [jnp.asarray(a, b.dtype) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(shape_of), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(shape_of), cast)


def cell_results(cell: Cell, params: Any, xs: Any, given: dict[str, Any]) -> Any:
    """{"value", "carry", "gradient"} of a cell's unroll."""

    def loss(params: Any, xs: Any) -> Any:
        carry, ys = cell.unroll(params, xs, **given)
        weights = jnp.cos(jnp.arange(ys.size, dtype=jnp.float32).reshape(ys.shape)).astype(jnp.float64)
        return jnp.sum(ys.astype(jnp.float64) * weights), (ys, carry)

    (_, (ys, carry)), gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)(params, xs)
    return {"value": ys, "carry": carry, "gradient": gradient}


def layer_results(graph: Any, state: Any, xs: Any, given: dict[str, Any]) -> Any:
    """{"value", "gradient"} of a layer."""

    def loss(state: Any, xs: Any) -> Any:
        ys = nnx.merge(graph, state)(xs, **given)
        weights = jnp.cos(jnp.arange(ys.size, dtype=jnp.float32).reshape(ys.shape)).astype(jnp.float64)
        return jnp.sum(ys.astype(jnp.float64) * weights), ys

    (_, ys), gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)(state, xs)
    return {"value": ys, "gradient": gradient}


def on(device: jax.Device, run: Callable[..., Any], *operands: Any) -> Any:
    """The results of a jitted function on a device, as numpy arrays."""
    placed = jax.device_put(operands, device)
    with jax.default_device(device):
        return jax.device_get(jax.jit(run)(*placed))


def compare_cell(name: str, options: dict[str, Any], dtype: str) -> Errors:
    """The errors of a cell in each group of results."""
    cell, given, cpu = CELLS[name], masks(), jax.devices("cpu")[0]
    with jax.default_device(cpu):
        draw = partial(cell.init, jax.random.key(0), INPUTS, HIDDEN, **options)
        params = draw(dtype=dtype, param_dtype="float32")
        wide = same_in(params, draw(dtype="float64", param_dtype="float64"))
        xs = jax.random.normal(jax.random.key(2), (BATCH, STEPS, INPUTS), jnp.float64).astype(dtype)
    run = partial(cell_results, cell, given=given)
    wanted = on(cpu, run, wide, xs.astype(jnp.float64))
    return errors_of(run, params, xs, wanted, dtype)


def errors_of(run: Callable[..., Any], params: Any, xs: Any, wanted: Any, dtype: str) -> Errors:
    """{group: (error, bound)} of the device's results."""
    found = on(jax.devices()[0], run, params, xs)
    bounds = dict.fromkeys(wanted, BOUND)
    if dtype != "float32":
        cpu = on(jax.devices("cpu")[0], run, params, xs)
        bounds = {group: 2 * relative_error(cpu[group], wanted[group]) + 0.01 for group in wanted}
    return {group: (relative_error(found[group], wanted[group]), bounds[group]) for group in found}


def compare_layer(name: str, options: dict[str, Any], dtype: str) -> Errors:
    """The errors of two layers, in both directions."""
    given, cpu = masks(), jax.devices("cpu")[0]
    make = partial(getattr(layers, name), INPUTS, HIDDEN, num_layers=2, bidirectional=True, **options)
    with jax.default_device(cpu):
        graph, state = nnx.split(make(rngs=nnx.Rngs(0), dtype=dtype, param_dtype="float32"))
        wide_graph, wide_state = nnx.split(make(rngs=nnx.Rngs(0), dtype="float64", param_dtype="float64"))
        wide = same_in(state, wide_state)
        xs = jax.random.normal(jax.random.key(2), (BATCH, STEPS, INPUTS), jnp.float64).astype(dtype)
    wanted = on(cpu, partial(layer_results, wide_graph, given=given), wide, xs.astype(jnp.float64))
    return errors_of(partial(layer_results, graph, given=given), state, xs, wanted, dtype)


def compare_sampler(task: str) -> Errors:
    """Whether both devices draw the same strings and answers."""

    def draw(key: Any) -> Any:
        return TASKS[task].sample(key, 64, 29)

    devices = jax.devices("cpu")[0], jax.devices()[0]
    wanted, found = (on(device, draw, jax.random.key(3)) for device in devices)
    return {"strings": (relative_error(found, wanted), 0.0)}


def cases() -> Iterator[tuple[str, Callable[[], Errors]]]:
    """(key, check) of every case."""
    for kind, dtype in (("layer", "float32"), ("cell", "bfloat16"), ("cell", "float32"), ("layer", "bfloat16")):
        compare = compare_cell if kind == "cell" else compare_layer
        for name in CELLS:
            for options in OPTIONS.get(name, [{}]):
                described = ",".join([name, *(f"{k}={v}" for k, v in options.items()), dtype])
                yield f"{kind} {described}", partial(compare, name, options, dtype)
    for task in TASKS:
        yield f"sampler {task}", partial(compare_sampler, task)


def main() -> int:
    """Runs the cases of a share; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the file of lines")
    parser.add_argument("--share", default="0/1", metavar="I/N", help="each N-th case, from the I-th on")
    parser.add_argument("--only", default="", help="cases whose key holds this text")
    args = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "highest")
    first, every = map(int, args.share.split("/"))
    lines, bad = Lines(args.out), 0
    for key, check in list(cases())[first::every]:
        if args.only not in key or lines.has(key):
            continue
        try:
            errors = check()
        except Exception as error:  # a case that cannot run is a result too: the others go on
            traceback.print_exc()
            lines.add("correctness", key, ok=False, error=f"{type(error).__name__}: {str(error)[:300]}")
            bad += 1
            continue
        ok = all(error <= bound for error, bound in errors.values())
        bad += not ok
        shown = {group: [float(f"{x:.1e}") for x in pair] for group, pair in errors.items()}
        lines.add("correctness", key, ok=ok, **shown)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
