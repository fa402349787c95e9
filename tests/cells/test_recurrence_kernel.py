"""The recurrence's GPU kernel, interpreted on the CPU, against the scan; and that it lowers for a GPU.

The interpreter runs each warpgroup as a thread and finds races between them. It runs hundreds of times as slowly as
the device, so sizes are small: heads have one warpgroup, and one test has two.
"""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import common, gru, lstm, ql_lstm, slstm
from qlstm_jax.cells.common.recurrence.kernel import support

pytestmark = pytest.mark.skipif(
    jax.__version_info__ < (0, 11), reason=f"the kernel is written for JAX 0.11, this is {jax.__version__}"
)
B, D, K = 3, 4, 64
LSTM, GRU = lstm.cell._gates, gru._gates


def rectified(weights, a, state):
    """Gates with heads that use what no cell of the package does: two weights, a clipped sum, a row without a split."""
    scale, (bias,) = weights
    i, j = jnp.split(jnp.clip(a, -1.0, 1.5), 2, axis=-1)
    count, best = state
    best = jnp.maximum(best, i * scale)
    return jnp.where(j > 0, best, jax.nn.relu(j + bias) - 0.5 * count), (0.5 * count + j**2, best)


# name: (gates, columns of a row, arrays of state, columns apart, heads, weights)
FORMS = {
    "lstm": (LSTM, 4, 1, 0, 0, False),
    "gru": (GRU, 3, 1, 1, 0, False),
    "rectified": (rectified, 2, 2, 0, 2, True),
    "slstm": (functools.partial(slstm.recurrence._gates, "sigmoid"), 4, 3, 0, 2, False),
}


def operands(form, dtype, steps, project=True):
    """The positional and the static keywords of `recurrence`, with nothing at zero."""
    gates, columns, states, separate, heads, weighted = FORMS[form]
    rng, hidden = np.random.default_rng(0), max(heads, 1) * K

    def draw(*shape, dtype="float32"):
        return jnp.asarray(0.7 * rng.normal(size=shape), dtype)

    state = tuple(jnp.abs(draw(B, hidden)) + 0.1 for _ in range(states))
    arrays = {
        "xs": draw(B, steps, D, dtype=dtype) if project else draw(B, steps, columns * hidden),
        "carry": (draw(B, hidden, dtype=dtype), state[0] if states == 1 else state),
        "recurrent_kernel": draw(heads, K, columns * K) / 8 if heads else draw(K, columns * K) / 8,
        "bias": draw(columns * hidden) if project else draw(B, columns * hidden),
    }
    if project:
        arrays["input_kernel"] = draw(D, columns * hidden)
    if separate:
        arrays["recurrent_bias"] = draw(hidden)
    if weighted:
        arrays["weights"] = draw(heads, 1, K), (draw(heads, 1, K),)
    return gates, arrays, {"separate": separate * hidden}


def program(gates, static, way):
    """Value and gradient of a recurrence."""

    def weighed(arrays):
        rest = {k: v for k, v in arrays.items() if k not in ("xs", "carry")}
        results = common.recurrence(gates, arrays["xs"], arrays["carry"], **rest, **static, way=way)
        rng = np.random.default_rng(7)
        parts = [jnp.sum(rng.normal(size=a.shape).astype("float32") * a) for a in jax.tree.leaves(results)]
        return sum(parts), results

    return jax.jit(jax.value_and_grad(weighed, has_aux=True))


def interpreted(run, *arguments):
    """`run` with kernels in the interpreter, which looks for races."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=True)):
        return jax.block_until_ready(run(*arguments))


def assert_close(found, expected, value_bound, gradient_bound):
    """Each array to within a bound, relative to its largest element."""
    ((_, found), found_gradients), ((_, expected), expected_gradients) = found, expected
    for bound, a, b in ((value_bound, found, expected), (gradient_bound, found_gradients, expected_gradients)):
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
            x, y = np.asarray(x, "float32"), np.asarray(y, "float32")
            assert x.shape == y.shape and np.all(np.isfinite(x)), path
            assert np.max(np.abs(x - y), initial=0) <= bound * np.max(np.abs(y), initial=1e-6), path


@pytest.mark.parametrize(
    ("form", "dtype", "project", "masked"),
    [
        ("lstm", "bfloat16", True, True),
        ("gru", "bfloat16", True, True),
        ("rectified", "bfloat16", True, True),
        ("slstm", "float16", False, False),
    ],
)
def test_equals_the_scan(form, dtype, project, masked):
    steps = 3
    gates, arrays, static = operands(form, dtype, steps, project)
    if masked:
        static["valid"] = jnp.arange(steps)[None] < jnp.array([3, 1, 0])[:, None]
        static["resets"] = jnp.array([[0, 0, 1], [1, 1, 0], [0, 0, 0]], bool)
    found = interpreted(program(gates, static, "kernel"), arrays)
    # A last bit of h in 16 bit may be rounded the other way; da is rounded to bfloat16 as a factor.
    assert_close(found, program(gates, static, "plain")(arrays), 2**-8, 2**-6)


def test_no_gradient_passes_a_reset():
    gates, arrays, static = operands("lstm", "bfloat16", 2)
    static["resets"] = jnp.array([[0, 1]] * B, bool)

    def last(arrays):
        rest = {k: v for k, v in arrays.items() if k not in ("xs", "carry")}
        (h, _), _ = common.recurrence(gates, arrays["xs"], arrays["carry"], **rest, **static, way="kernel")
        return jnp.sum(h.astype("float32"))

    gradients = interpreted(jax.jit(jax.grad(last)), arrays)
    assert not np.any(np.asarray(gradients["carry"][0], "float32")) and not np.any(gradients["carry"][1])
    first, second = np.asarray(gradients["xs"], "float32").swapaxes(0, 1)
    assert not np.any(first) and np.any(second)


def test_under_vmap_equals_the_scan():
    gates, arrays, static = operands("lstm", "bfloat16", 1)
    arrays = jax.tree.map(lambda a: jnp.stack([a, 0.5 * a]), arrays)
    found = interpreted(jax.vmap(program(gates, static, "kernel")), arrays)
    assert_close(found, jax.vmap(program(gates, static, "plain"))(arrays), 2**-8, 2**-6)


TWO_WARPGROUPS = """
import jax, jax.numpy as jnp
from tests.cells import test_recurrence_kernel as test
test.K = 128
gates, arrays, static = test.operands("lstm", "bfloat16", 2)
found = test.interpreted(test.program(gates, static, "kernel"), arrays)
test.assert_close(found, test.program(gates, static, "plain")(arrays), 2**-8, 2**-6)
"""


def test_warpgroups_share_a_head():
    """In a process of its own: threads of the interpreter wait for each other, and want more than two cores have."""
    environment = os.environ | {"NPROC": "8", "JAX_PLATFORMS": "cpu"}
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", TWO_WARPGROUPS]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("form", ["lstm", "gru", "slstm"])
def test_lowers_for_a_gpu(form):
    gates, arrays, static = operands(form, "bfloat16", 2)
    text = jax.export.export(program(gates, static, "kernel"), platforms=["cuda"])(arrays).mlir_module()
    assert text.count("mosaic_gpu") >= 2  # forward and backward


@pytest.fixture
def _device(monkeypatch):
    monkeypatch.setattr(support, "_no_device", lambda: None)


@pytest.mark.usefixtures("_device")
@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        ({"num_heads": 2, "block_size": 2}, None),
        ({"block_size": 2, "sharing": "none"}, (0, 3, 5)),
        ({"skip": False}, (0, 3, 5)),
    ],
)
def test_ql_lstm_equals_the_scan(options, lengths):
    """Over whole blocks and a rest."""
    hidden = options.get("num_heads", 1) * K
    params = ql_lstm.init(jax.random.key(0), D, hidden, dtype="bfloat16", implementation="kernel", **options)
    compare_cells(ql_lstm, params, 5, None if lengths is None else jnp.array(lengths))


@pytest.mark.usefixtures("_device")
def test_slstm_equals_the_scan():
    params = slstm.init(jax.random.key(0), D, K, dtype="bfloat16", implementation="kernel")
    kernel = jax.random.normal(jax.random.key(1), params.recurrent_kernel.shape) / 8
    compare_cells(slstm, dataclasses.replace(params, recurrent_kernel=kernel), 2, None)


def compare_cells(cell, params, steps, lengths):
    xs = jax.random.normal(jax.random.key(2), (B, steps, D))

    def weighed(params, xs):
        carry, ys = cell.unroll(params, xs, seq_lengths=lengths)
        parts = [jnp.sum(jnp.sin(a.astype("float32"))) for a in jax.tree.leaves(carry)]
        return jnp.sum(ys.astype("float32") ** 3) + sum(parts), (carry, ys)

    run = jax.jit(jax.value_and_grad(weighed, argnums=(0, 1), has_aux=True))
    expected = run(dataclasses.replace(params, implementation="scan"), xs)
    found = interpreted(run, params, xs)
    assert_close(found, expected, 2**-8, 2**-6)


@pytest.mark.parametrize(
    ("shape", "dtype", "separate", "reason"),
    [
        ((64, 256), "float32", 0, "dtype is 'float32'"),
        ((96, 96), "bfloat16", 0, "a head has 96 units"),
        ((768, 768), "bfloat16", 0, "a head has 768 units"),
        ((256, 1024), "bfloat16", 0, "4 maps of a head of 256 units take 557,056 bytes"),
        ((64, 192), "bfloat16", 32, "separate is 32"),
        ((3, 256, 256), "bfloat16", 0, None),
        ((64, 192), "float16", 64, None),
    ],
)
def test_says_why_it_cannot_run(shape, dtype, separate, reason):
    found = support.unsupported(jax.ShapeDtypeStruct(shape, "float32"), dtype, separate)
    assert (found is None) if reason is None else found.startswith(reason)


def test_refuses_what_it_cannot_run():
    gates, arrays, static = operands("lstm", "float32", 2)
    with pytest.raises(NotImplementedError, match="dtype is 'float32'"):
        program(gates, static, "kernel")(arrays)
    gates, arrays, static = operands("lstm", "bfloat16", 2)
    with pytest.raises(NotImplementedError, match="the operation cumsum"):
        program(lambda w, a, c: gates(w, jnp.cumsum(a, axis=-1), c), static, "kernel")(arrays)


def test_a_cell_refuses_without_a_device():
    params = slstm.init(jax.random.key(0), D, K, dtype="bfloat16", implementation="kernel")
    with pytest.raises(ValueError, match="cannot run this call: JAX sees no NVIDIA GPU"):
        slstm.unroll(params, jnp.zeros((B, 2, D)))
    with pytest.raises(ValueError, match="plain is True"):
        slstm.unroll(params, jnp.zeros((B, 2, D)), plain=True)
