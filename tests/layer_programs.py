"""Runs every layer compiled in the ways it is used, and saves the results: `python -m tests.layer_programs OUT.npz`.

`test_layer_programs` compares what several compilers make of the same program.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qlstm_jax.models.layers import LAYER_CLASSES

B, T, D, H = 64, 21, 8, 128  # with which a compiler has been caught at it; with T = 9 it was not
# minGRU is the scan that minLSTM is.
OPTIONS = {name: {} for name in LAYER_CLASSES if name != "min_gru"} | {
    "ql_lstm": {"block_size": 4},
    "mlstm of several chunks": {"chunk_size": 4},
    "xlstm": {"num_layers": 2, "slstm_at": "1:1"},
    "transformer": {"causal": True},
}
# The others take their last outputs from all, as LSTM does.
WITH_LAST = ("lstm", "pr_lstm")
# Gradients of our own; what JAX derives of the others takes most of the time to compile.
WITH_GRADIENT = ("gru", "ql_lstm", "slstm", "mlstm", "mlstm of several chunks")


def normalised(x):
    """LayerNorm without a scale: sums and products that a compiler may join to those of the layer."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)


def programs(name):
    """(name, function, arguments) of what is compiled of a layer, its weights being drawn without a compiler."""
    make = LAYER_CLASSES[name.split()[0]]
    graph, shapes = nnx.split(nnx.eval_shape(lambda: make(D, H, rngs=nnx.Rngs(0), **OPTIONS[name])))
    rng = np.random.default_rng(0)

    def draw(a):
        scale = a.shape[-2] ** -0.5 if len(a.shape) > 1 else 1.0
        return jnp.asarray(scale * rng.normal(size=a.shape), a.dtype)

    params = jax.tree.map(draw, shapes)
    xs, weight = (jnp.asarray(rng.normal(size=(B, T, size)), jnp.float32) for size in (D, H))
    lengths = jnp.asarray(rng.integers(0, T + 1, size=B), jnp.int32)

    def outputs(params, xs, lengths=None):
        return normalised(nnx.merge(graph, params)(normalised(xs), seq_lengths=lengths))

    def last(params, xs, lengths):
        return normalised(nnx.merge(graph, params).last(normalised(xs), seq_lengths=lengths))

    def loss(params, xs, lengths):
        return jnp.mean(outputs(params, xs, lengths) * weight)

    if name != "mlstm of several chunks":
        yield "outputs", outputs, (params, xs)
    if name in WITH_LAST:
        yield "last", last, (params, xs, lengths)
    if name in WITH_GRADIENT:
        yield "gradient", jax.grad(loss, argnums=(0, 1)), (params, xs, lengths)


def results() -> dict[str, np.ndarray]:
    """All arrays of all programs, by name."""
    found = {}
    for name in OPTIONS:
        for kind, function, arguments in programs(name):
            for place, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(function)(*arguments)):
                found[f"{name}, {kind} {jax.tree_util.keystr(place)}"] = np.asarray(leaf)
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **results())
