"""The xLSTM stack: reading whole sequences against one token at a time, padding, carries, options, initial values.

The numbers of the official code are in `tests.interop.test_xlstm`.
"""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.cells import common, slstm
from qlstm_jax.models.xlstm import (
    XLSTM,
    MLSTMBlock,
    SLSTMBlock,
    XLSTMConfig,
    XLSTMLanguageModel,
    XLSTMStack,
    slstm_positions,
)
from qlstm_jax.models.xlstm_layers import CausalConv, HeadNorm
from qlstm_jax.nnx.dropout import applied

B, T, H, N, V = 4, 7, 8, 2, 5
LENGTHS = np.array([7, 0, 4, 1], np.int32)
FULL = np.full(B, T, np.int32)
VALID = np.arange(T) < LENGTHS[:, None]
CONFIG = {"embedding_size": H, "num_blocks": 2, "slstm_at": "1", "num_heads": N, "inner_multiple": 8, "chunk_size": 3}
CONFIG |= {"feedforward_multiple": 8}


def built(kind, *args, seed=1, **options):
    """A module with random parameters: of the initial values many are 0 and would hide mistakes."""
    module = nnx.eval_shape(lambda: kind(*args, **options, rngs=nnx.Rngs(params=0)))
    rng = np.random.default_rng(seed)
    draw = partial(jax.tree.map, lambda a: jnp.asarray(0.4 * rng.standard_normal(a.shape), a.dtype))
    nnx.update(module, draw(nnx.state(module, nnx.Param)))
    module.eval()
    return module


def make(**options):
    return built(XLSTMStack, XLSTMConfig(**CONFIG | options))


@cache
def stack():
    return make()


def inputs(seed=0, steps=T):
    return jax.random.normal(jax.random.key(seed), (B, steps, H))


@jax.jit
def run(module, xs, lengths, carry, weights):
    """((ys, carry), gradients by parameters, xs and carry) of the sum of ys * weights."""
    graph, params = nnx.split(module)

    def total(params, xs, carry):
        carry, ys = nnx.merge(graph, params)(xs, seq_lengths=lengths, carry=carry, return_carry=True)
        return jnp.sum(ys * weights), (ys, carry)

    gradients, outputs = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(params, xs, carry)
    return outputs, gradients


@jax.jit
def fold(module, xs, lengths, carry):
    """(outputs, carry) of `step` over the valid part of each row."""
    return common.scan(module.step, carry, xs, valid=common.valid_mask(lengths, xs.shape[1]))[::-1]


@cache
def somewhere():
    """A carry from the middle of a stream."""
    return run(stack(), inputs(3), FULL, stack().initialize_carry(B), jnp.zeros((B, T, H)))[0][1]


def close(actual, expected, tolerance=2e-5):
    chex.assert_trees_all_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("start", ["zero", "somewhere"])
def test_call_equals_folded_step(start):
    carry = somewhere() if start == "somewhere" else stack().initialize_carry(B)
    outputs, _ = run(stack(), inputs(), LENGTHS, carry, jnp.ones((B, T, H)))
    close(outputs, fold(stack(), inputs(), LENGTHS, carry))
    assert not np.any(outputs[0][~VALID]) and np.all(np.any(outputs[0][VALID], axis=-1))
    for new, old in zip(jax.tree.leaves(outputs[1]), jax.tree.leaves(carry), strict=True):
        np.testing.assert_array_equal(new[1], old[1])  # the row of length 0


def test_a_sequence_in_two_parts():
    cut = np.array([3, 0, 7, 5], np.int32)
    zero, weights = stack().initialize_carry(B), jnp.ones((B, T, H))
    (whole, last), _ = run(stack(), inputs(), FULL, zero, weights)
    (first, carry), _ = run(stack(), inputs(), cut, zero, weights)
    rest = jnp.take_along_axis(inputs(), jnp.minimum(jnp.arange(T)[None] + cut[:, None], T - 1)[:, :, None], axis=1)
    (second, carry), _ = run(stack(), rest, FULL - cut, carry, weights)
    close(carry, last)
    for row, length in enumerate(cut):
        close(np.concatenate([first[row, :length], second[row, : T - length]]), whole[row])


def test_padding_has_no_influence():
    weights = jax.random.normal(jax.random.key(2), (B, T, H))
    spoilt = jnp.where(VALID[:, :, None], inputs(), jnp.nan)
    one, other = (run(stack(), xs, LENGTHS, somewhere(), weights) for xs in (inputs(), spoilt))
    chex.assert_trees_all_equal(one, other)
    _, (by_params, by_xs, _) = other
    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(other))
    assert all(np.any(a) for a in jax.tree.leaves(by_params))
    assert not np.any(np.asarray(by_xs)[~VALID]) and np.all(np.any(np.asarray(by_xs)[VALID], axis=-1))


@pytest.mark.parametrize("t", [0, 3, T - 1])
def test_what_a_position_sees(t):
    weights = jax.random.normal(jax.random.key(t), (B, T, H)) * (np.arange(T) == t)[None, :, None]
    _, (_, by_xs, by_carry) = run(stack(), inputs(), FULL, somewhere(), weights)
    np.testing.assert_array_equal(np.any(by_xs, axis=-1), np.tile(np.arange(T) <= t, (B, 1)))
    for block in by_carry:  # the oldest input of a convolution is out of its sight soon, but not out of the memory
        assert np.all(np.any(block.conv, axis=(0, 2)))


def test_options_change_no_result():
    """Chunks of another size and no lengths, in the frame of a sequence layer: the same numbers by other programs."""
    layer = built(XLSTM, H, H, num_layers=2, num_heads=N)
    layer.stack = make(chunk_size=64)
    layer.embed.kernel[...], layer.embed.bias[...] = jnp.eye(H), jnp.zeros(H)
    read = jax.jit(lambda xs: (layer(xs, return_carry=True), layer.last(xs)))
    (carry, ys), last = read(inputs())
    close((ys, carry), run(stack(), inputs(), FULL, stack().initialize_carry(B), jnp.ones((B, T, H)))[0])
    np.testing.assert_array_equal(last, ys[:, -1])


def test_bfloat16():
    module = make(dtype=jnp.bfloat16)
    assert {a.dtype for a in jax.tree.leaves(nnx.state(module))} == {jnp.dtype("float32")}
    carry, ys = jax.jit(lambda xs: module(xs, seq_lengths=LENGTHS, return_carry=True))(inputs().astype(jnp.bfloat16))
    expected = run(stack(), inputs(), LENGTHS, stack().initialize_carry(B), jnp.ones((B, T, H)))[0][0]
    gap = np.abs(ys.astype(jnp.float32) - expected)
    assert ys.dtype == jnp.bfloat16 and 1e-4 < gap.max() < 0.3 and gap.mean() < 0.02
    assert {a.dtype for a in (*carry[0].memory, *carry[1].cell[1:])} == {jnp.dtype("float32")}
    assert carry[0].conv.dtype == carry[1].cell.y.dtype == jnp.bfloat16
    chex.assert_trees_all_equal_shapes_and_dtypes(carry, module.initialize_carry(B))


@pytest.mark.parametrize("kind", [MLSTMBlock, SLSTMBlock])
def test_residual_sum_is_float32(kind):
    """In bfloat16 it would have steps of 8 here."""
    block = built(kind, XLSTMConfig(**CONFIG, dtype="bfloat16"))
    for part in (getattr(block, name, None) for name in ("down", "feedforward_out", "head_norm")):
        if part is not None:
            nnx.update(part, jax.tree.map(lambda a: jnp.full_like(a, -1 if a.ndim == 1 else 0), nnx.state(part)))
    xs = inputs() + 1024
    np.testing.assert_array_equal(jax.jit(block)(xs), xs)


def test_dropout():
    module = make(num_blocks=1, slstm_at="all", dropout=0.5)
    module.train()
    read = jax.jit(lambda key: (module(inputs(), rngs=key), module(inputs(), deterministic=True)))
    (first, plain), (second, _), (again, _) = (read(jax.random.key(n)) for n in (0, 1, 0))
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(first, again)
    by_step, _ = fold(module, inputs(), FULL, module.initialize_carry(B))
    close(by_step, plain)  # a step has none, in training too
    assert not jax.tree.leaves(nnx.state(module, nnx.Not(nnx.Param)))


@pytest.mark.parametrize(
    ("kind", "silent"), [(MLSTMBlock, ""), (SLSTMBlock, "feedforward_out"), (SLSTMBlock, "head_norm")]
)
def test_dropout_acts_on_all_that_is_added(kind, silent):
    """One part of a block adds nothing; what the other adds is either 0 or doubled."""
    block = built(kind, XLSTMConfig(**CONFIG, dropout=0.5))
    if silent:
        part = getattr(block, silent)
        nnx.update(part, jax.tree.map(lambda a: jnp.full_like(a, 0 if a.ndim == 2 else -1), nnx.state(part)))
    block.train()
    ys, plain = jax.jit(lambda xs: (block(xs, rngs=jax.random.key(0)), block(xs, deterministic=True)))(inputs())
    ratio = (ys - inputs()) / (plain - inputs())
    assert 0.3 < np.mean(np.abs(ratio) < 1e-2) < 0.7
    np.testing.assert_allclose(ratio, 2 * np.round(ratio / 2), atol=0.01)
    assert ratio.max() < 2.1


def test_a_key_gives_every_part_a_mask_of_its_own():
    stack, key, seen = make(num_blocks=3, slstm_at="1,2", dropout=0.5), jax.random.key(0), []
    stack.train()
    for block in stack.blocks:
        block._read = partial(watched, block, seen)
    stack(inputs(), rngs=key)
    assert len(seen) == 5 and all(set(np.unique(mask)) == {0.0, 2.0} for mask in seen)
    assert all(np.any(a != b) for i, a in enumerate(seen) for b in seen[:i])


def watched(block, seen, x, carry, lengths, dropout):
    """A block that adds nothing, and keeps the masks of its parts."""
    seen += [np.asarray(dropout(jnp.ones_like(x))) for _ in range(2 if isinstance(block, SLSTMBlock) else 1)]
    return carry, x


def test_dropout_has_a_stream_of_its_own_where_it_is_given_one():
    config = XLSTMConfig(**CONFIG | {"num_blocks": 1, "slstm_at": "all"}, dropout=0.5)
    block = jax.jit(lambda: SLSTMBlock(config, rngs=nnx.Rngs(0)))()
    block.train()
    one, other = (np.asarray(applied(block.dropout, None, None)(jnp.ones((B, T, H)))) for _ in range(2))
    assert np.any(one != other)
    block.eval()
    np.testing.assert_array_equal(applied(block.dropout, None, None)(jnp.ones((B, T, H))), np.ones((B, T, H)))


def test_causal_convolution():
    """Against numpy's; and the inputs that are kept."""
    conv, x = (
        CausalConv(3, 4, param_dtype=jnp.float32, rngs=nnx.Rngs(0)),
        np.random.default_rng(0).normal(size=(2, 6, 3)),
    )
    before = np.random.default_rng(1).normal(size=(2, 3, 3))
    y, last = jax.jit(conv)(np.float32(x), np.float32(before), np.array([6, 2]))
    seen = np.concatenate([before, x], axis=1)
    for b in range(2):
        for c in range(3):
            expected = np.convolve(seen[b, :, c], np.asarray(conv.kernel)[::-1, c], "valid") + np.asarray(conv.bias)[c]
            np.testing.assert_allclose(y[b, :, c], expected, atol=1e-5)
    np.testing.assert_allclose(last, [seen[0, 6:9], seen[1, 2:5]], rtol=1e-6)


def test_norm_of_a_large_mean():
    """Computed as mean of squares less square of the mean, the variance would drown."""
    norm, x = HeadNorm(6, 2), np.random.default_rng(0).normal(size=(5, 6)) + 3000
    parts = np.float64(np.float32(x)).reshape(5, 2, 3)
    expected = (parts - parts.mean(-1, keepdims=True)) / np.sqrt(parts.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(x, jnp.float32)), expected.reshape(5, 6), atol=2e-3)


# The language model and the sequence layer.


def test_language_model_streams_tokens():
    model = built(
        XLSTMLanguageModel, XLSTMConfig(vocab_size=V, **CONFIG | {"num_blocks": 1, "slstm_at": "all"}, dtype="bfloat16")
    )
    tokens = jnp.where(VALID, jax.random.randint(jax.random.key(0), (B, T), 0, V), 1_000_000)
    read = jax.jit(lambda tokens: model(tokens, seq_lengths=LENGTHS, return_carry=True))
    carry, logits = read(tokens)
    assert logits.shape == (B, T, V) and logits.dtype == jnp.float32 and not np.any(logits[~VALID])
    folded, last = fold(model, jnp.where(VALID, tokens, 0), LENGTHS, model.initialize_carry(B))
    assert np.abs(folded - logits)[VALID].max() < 0.1
    chex.assert_trees_all_equal_shapes_and_dtypes(carry, last)
    for bad in (tokens[0], tokens[:, :, None], tokens.astype(jnp.float32)):
        with pytest.raises(ValueError, match=r"expected integers of shape \(batch, time\)"):
            model(bad)
    with pytest.raises(ValueError, match=r"expected integers of shape \(batch,\)"):
        model.step(carry, tokens)
    with pytest.raises(ValueError, match="vocab_size is None"):
        XLSTMLanguageModel(XLSTMConfig(**CONFIG), rngs=nnx.Rngs(0))


def test_sequence_layer():
    layer = built(XLSTM, 3, H, slstm_at="all", num_heads=N)
    assert (layer.in_features, layer.hidden_features, layer.output_size) == (3, H, H)
    xs = jnp.where(VALID[:, :, None], inputs()[:, :, :3], jnp.nan)

    @jax.jit
    def read(xs, lengths, carry):
        carry, ys = layer(xs, seq_lengths=lengths, initial_carry=carry, return_carry=True)
        return ys, carry, layer.last(xs, seq_lengths=lengths)

    ys, carry, last = read(xs, LENGTHS, layer.initialize_carry(B))
    for row, length in enumerate(LENGTHS):
        assert np.all(np.isfinite(ys[row])) and not np.any(ys[row, length:])
        np.testing.assert_array_equal(last[row], ys[row, length - 1] if length else np.zeros(H))
    embedded = layer.embed(inputs()[:, :, :3])
    close((ys, carry), fold(layer.stack, embedded, LENGTHS, layer.initialize_carry(B)))
    more, _, _ = read(xs, LENGTHS, carry)
    close(more, fold(layer.stack, embedded, LENGTHS, carry)[0])


@pytest.mark.parametrize("lengths", [None, np.zeros(B, np.int32)], ids=["none", "zeros"])
def test_no_positions(lengths):
    layer = built(XLSTM, H, H, num_layers=2, slstm_at="0", num_heads=N)
    read = jax.jit(lambda xs: (layer(xs, seq_lengths=lengths, return_carry=True), layer.last(xs, seq_lengths=lengths)))
    (carry, ys), last = read(inputs(steps=0))
    assert ys.shape == (B, 0, H) and last.shape == (B, H) and not np.any(last)
    chex.assert_trees_all_equal(carry, layer.initialize_carry(B))


# Initial values and options.


def test_initial_values():
    size, blocks, inner, wide = 48, 2, 120, 64
    options = {"num_heads": 3, "conv_size": 5, "inner_factor": 2.5, "inner_multiple": 24}
    config = XLSTMConfig(vocab_size=90, embedding_size=size, num_blocks=blocks, slstm_at="1", **options)
    model = jax.jit(lambda: XLSTMLanguageModel(config, rngs=nnx.Rngs(0)))()
    mlstm, first = model.stack.blocks
    small, wang = (2 / (5 * size)) ** 0.5, 2 / blocks / size**0.5
    kernels = {
        small: [model.embed.embedding, model.head.kernel, mlstm.up.kernel, mlstm.query_key.kernel, mlstm.value.kernel],
        wang: [mlstm.down.kernel, first.feedforward_out.kernel],
    }
    kernels[small] += [first.input_forget.kernel, first.cell_output.kernel, first.feedforward_in.kernel]
    for scale, arrays in kernels.items():
        for array in arrays:
            assert abs(np.std(np.asarray(array)) / scale - 1) < 4 / array.size**0.5
    assert mlstm.up.kernel.shape == (size, 2 * inner) and first.feedforward_in.kernel.shape == (size, 2 * wide)
    assert 0.9 * 5**-0.5 < np.abs(mlstm.conv.kernel[...]).max() <= 5**-0.5
    zeros = [mlstm.gate_kernel, first.recurrent_kernel, mlstm.norm.scale, mlstm.head_norm.scale, model.stack.norm.scale]
    assert not any(np.any(a[...]) for a in zeros) and np.all(mlstm.skip[...] == 1)
    np.testing.assert_allclose(mlstm.gate_bias[3:], [3, 4.5, 6])
    assert np.all(np.abs(mlstm.gate_bias[:3]) < 0.5) and np.any(mlstm.gate_bias[:3])


def test_initial_forget_bias_goes_by_the_place_in_the_stack():
    config = XLSTMConfig(embedding_size=H, num_blocks=3, slstm_at="all", num_heads=N)
    biases = jax.jit(lambda: [block.bias[...] for block in XLSTMStack(config, rngs=nnx.Rngs(0)).blocks])()
    for bias, place in zip(biases, (0.0, 0.5, 1.0), strict=True):
        i, f, z, o = np.split(bias, 4)
        np.testing.assert_allclose(f, np.tile(slstm.powerlaw_forget_bias(H // N, place), N), rtol=1e-6)
        assert not any(np.any(b) for b in (i, z, o))


def test_param_dtype():
    module = nnx.eval_shape(lambda: XLSTMStack(XLSTMConfig(**CONFIG, param_dtype=jnp.bfloat16), rngs=nnx.Rngs(0)))
    assert {a.dtype for a in jax.tree.leaves(nnx.state(module))} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(lambda module: module(inputs()), module).dtype == jnp.float32


def test_config_is_a_key():
    """It is a static part of a module, so that equal ones must not compile twice."""
    one, other = (XLSTMConfig(**CONFIG | {"slstm_at": at}) for at in ("1", [1]))
    assert one == other and hash(one) == hash(other) and one.slstm_at == (1,)
    assert (XLSTMConfig(embedding_size=24, num_blocks=1).inner_size, one.inner_size) == (64, 16)
    assert XLSTMConfig(embedding_size=128, num_blocks=1).feedforward_size == 192


@pytest.mark.parametrize(
    ("given", "blocks", "expected"),
    [
        ("", 2, ()),
        ((), 2, ()),
        ("all", 3, (0, 1, 2)),
        ("0,2", 3, (0, 2)),
        ((2, 0), 3, (0, 2)),
        ("7:1", 16, (7, 15)),
        ("1:2", 6, (1, 2, 4, 5)),
        ("1:0", 3, ()),
        ("0:1", 2, (0, 1)),
    ],
)
def test_positions(given, blocks, expected):
    assert slstm_positions(given, blocks) == expected


@pytest.mark.parametrize("given", ["3", "-1", "0,0", (1, 1), (3,), "some", "1:1", "0:0", "1:1:1", "a:1", "0,"])
def test_positions_out_of_range(given):
    with pytest.raises(ValueError, match=r"slstm_at is .*; expected positions in 0\.\.2"):
        slstm_positions(given, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_size": 0}, "embedding_size is 0"),
        ({"chunk_size": 1.5}, r"chunk_size is 1\.5"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"dropout": 1.0}, r"dropout is 1\.0; expected a rate"),
        ({"inner_factor": 0}, "inner_factor is 0; expected a number above 0"),
        ({"num_heads": 3, "slstm_at": "all"}, "embedding_size is 8; expected a multiple of num_heads, which is 3"),
        ({"num_heads": 3, "slstm_at": ""}, "inner size of the mLSTM blocks is 16; expected a multiple of num_heads"),
        ({"projection_block": 3}, "mLSTM blocks is 16; expected a multiple of projection_block, which is 3"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        XLSTMConfig(**CONFIG | options)


def test_refuses_what_does_not_fit():
    xs, carry = inputs(), stack().initialize_carry(B)
    with pytest.raises(ValueError, match="bidirectional is True; expected False"):
        XLSTM(3, H, bidirectional=True, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expected \(batch, time, 8\)"):
        stack()(xs[:, :, :2])
    with pytest.raises(ValueError, match=r"expected 0\.\.7"):
        stack()(xs, seq_lengths=LENGTHS + 1)
    with pytest.raises(ValueError, match=r"x has shape \(4, 7, 8\); expected \(batch, 8\), one token"):
        stack().step(carry, xs)
    for bad in (carry[:1], list(carry), carry[0]):
        with pytest.raises(ValueError, match="expected a tuple of 2, one carry for each block"):
            stack()(xs, carry=bad)
    with pytest.raises(ValueError, match=r"the carry is SLSTMCarry\(.* expected MLSTMCarry\(conv=float32\[4, 3, 16\]"):
        stack().step(carry[::-1], xs[:, 0])
    with pytest.raises(ValueError, match=r"the carry is MLSTMCarry\(conv=float32\[3, 3, 16\]"):
        stack()(xs, carry=stack().initialize_carry(3))
