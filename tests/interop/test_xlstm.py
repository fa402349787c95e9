"""Official xLSTM weights, against the numbers of that code."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import interop
from qlstm_jax.cells import slstm
from qlstm_jax.models.xlstm import MLSTMBlock, SLSTMBlock, XLSTMConfig, XLSTMStack

# The sizes of the official numbers, so that one program serves all tests.
V, H, N, T = 31, 24, 3, 32
CONFIG = XLSTMConfig(vocab_size=V, embedding_size=H, num_blocks=2, slstm_at="1", num_heads=N, inner_multiple=16)
INNER, WIDE = 48, 64
START = "xlstm_block_stack."


def official(scale=0.3, layout="vanilla"):
    """Random weights by official name."""
    maps, size = (INNER // 4, 4, 4), H // N
    mlstm = {"proj_up.weight": (2 * INNER, H), "proj_down.weight": (H, INNER), "learnable_skip": (INNER,)}
    mlstm |= {"conv1d.conv.weight": (INNER, 1, 4), "conv1d.conv.bias": (INNER,), "mlstm_cell.outnorm.weight": (INNER,)}
    mlstm |= {f"{name}_proj.weight": maps for name in "qkv"}
    mlstm |= {f"mlstm_cell.{gate}gate.weight": (N, 3 * INNER) for gate in "if"}
    mlstm |= {f"mlstm_cell.{gate}gate.bias": (N,) for gate in "if"}
    layer = {f"{gate}gate.weight": (N, size, size) for gate in "ifzo"}
    layer |= {"conv1d.conv.weight": (H, 1, 4), "conv1d.conv.bias": (H,), "group_norm.weight": (H,)}
    kernel = (N, 4 * size, size) if layout == "vanilla" else (N, size, 4 * size)
    layer |= {"slstm_cell._recurrent_kernel_": kernel, "slstm_cell._bias_": (4 * H,)}
    shapes = {"token_embedding.weight": (V, H), "lm_head.weight": (V, H), f"{START}post_blocks_norm.weight": (H,)}
    shapes |= {f"{START}blocks.{n}.xlstm_norm.weight": (H,) for n in (0, 1)}
    shapes |= {f"{START}blocks.0.xlstm.{name}": shape for name, shape in mlstm.items()}
    shapes |= {f"{START}blocks.1.xlstm.{name}": shape for name, shape in layer.items()}
    feedforward = {"ffn_norm.weight": (H,), "ffn.proj_up.weight": (2 * WIDE, H), "ffn.proj_down.weight": (H, WIDE)}
    shapes |= {f"{START}blocks.1.{name}": shape for name, shape in feedforward.items()}
    rng = np.random.default_rng(0)
    return {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def part(p, start):
    return {name[len(start) :]: a for name, a in p.items() if name.startswith(start)}


@jax.jit
def run(module, xs, cotangents):
    """((ys, carry), gradients of sum(ys * cotangents) by the parameters and by xs where these are no integers)."""
    graph, params = nnx.split(module)

    def total(params, xs):
        carry, ys = nnx.merge(graph, params)(xs, return_carry=True)
        return jnp.sum(ys * cotangents), (ys, carry)

    by = 0 if jnp.issubdtype(xs.dtype, jnp.integer) else (0, 1)
    gradients, outputs = jax.grad(total, argnums=by, has_aux=True)(params, xs)
    return outputs, gradients


@jax.jit
def stepped(module, xs):
    """`step` folded over (B, T, ...)."""
    carry, ys = jax.lax.scan(module.step, module.initialize_carry(xs.shape[0]), jnp.swapaxes(xs, 0, 1))
    return jnp.swapaxes(ys, 0, 1), carry


def leaves(module_or_state):
    return dict(
        nnx.to_flat_state(nnx.state(module_or_state) if isinstance(module_or_state, nnx.Module) else module_or_state)
    )


def assert_close(actual, expected, tolerance=2e-5):
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


@cache
def model():
    return interop.xlstm_from_torch(official(), CONFIG, bias_layout="vanilla")


def cuda_layout(weights):
    """The same weights as the other backend saves them."""
    start, size = f"{START}blocks.1.xlstm.slstm_cell.", H // N
    kernel, bias = (weights[start + name] for name in ("_recurrent_kernel_", "_bias_"))
    bias = np.stack([gate.reshape(N, size) for gate in np.split(bias, 4)], axis=1).reshape(-1)
    return weights | {start + "_recurrent_kernel_": kernel.transpose(0, 2, 1), start + "_bias_": bias}


def test_both_layouts_give_one_model():
    other = leaves(interop.xlstm_from_torch(cuda_layout(official()), CONFIG, bias_layout="cuda"))
    for name, array in leaves(model()).items():
        np.testing.assert_array_equal(array[...], other[name][...])


def test_the_cell_in_both_layouts():
    start = f"{START}blocks.1.xlstm.slstm_cell."
    one, other = (
        interop.slstm_from_torch(part(w, start), num_heads=N, bias_layout=layout)
        for w, layout in ((official(), "vanilla"), (cuda_layout(official()), "cuda"))
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    for layout, weights in (("vanilla", official()), ("cuda", cuda_layout(official()))):
        back = interop.slstm_to_torch(one, bias_layout=layout)
        jax.tree.map(np.testing.assert_array_equal, back, part(weights, start))
    with pytest.raises(ValueError, match="is not the identity; expected params of slstm_from_torch"):
        interop.slstm_to_torch(slstm.init(jax.random.key(0), 4, 4), bias_layout="cuda")
    block = model().stack.blocks[1]
    np.testing.assert_array_equal(one.recurrent_kernel, block.recurrent_kernel[...])
    np.testing.assert_array_equal(one.bias, block.bias[...])
    assert (
        interop.slstm_from_torch(part(official(), start), num_heads=N, bias_layout="vanilla", dtype="bfloat16").dtype
        == "bfloat16"
    )


def test_a_stack_without_a_language_model():
    config = XLSTMConfig(**{**vars(CONFIG), "vocab_size": None})
    stack = interop.xlstm_from_torch(part(official(), START), config, bias_layout="vanilla")
    assert isinstance(stack, XLSTMStack)
    for name, array in leaves(model().stack).items():
        np.testing.assert_array_equal(array[...], leaves(stack)[name][...])


def test_param_dtype():
    config = XLSTMConfig(**{**vars(CONFIG), "param_dtype": "bfloat16"})
    small = interop.xlstm_from_torch(official(), config, bias_layout="vanilla")
    assert {a[...].dtype for a in leaves(small).values()} == {jnp.dtype("bfloat16")}


def test_errors_list_every_name():
    weights = official()
    del weights["lm_head.weight"], weights[f"{START}blocks.1.xlstm.igate.weight"]
    weights |= {"extra": np.zeros(2), f"{START}blocks.0.xlstm.learnable_skip": np.zeros(INNER + 1)}
    with pytest.raises(ValueError, match="These are not the weights of the xLSTM of this config") as error:
        interop.xlstm_from_torch(weights, CONFIG, bias_layout="vanilla")
    message = str(error.value)
    assert f"missing: lm_head.weight, {START}blocks.1.xlstm.igate.weight;" in message
    assert "unexpected: extra;" in message
    assert f"of another shape: {START}blocks.0.xlstm.learnable_skip is (49), expected (48)" in message
    assert message.count(START) == 2


def test_errors_of_layouts():
    for layout, kernel in (
        ("cuda", r"\(3, 32, 8\), expected \(3, 8, 32\)"),
        ("vanilla", r"\(3, 8, 32\), expected \(3, 32, 8\)"),
    ):
        weights = official(layout="vanilla" if layout == "cuda" else "cuda")
        with pytest.raises(ValueError, match=f"shape: .*_recurrent_kernel_ is {kernel}$"):
            interop.xlstm_from_torch(weights, CONFIG, bias_layout=layout)
        with pytest.raises(ValueError, match=f"layout '{layout}'.*shape: _recurrent_kernel_ is {kernel}$"):
            cell = part(weights, f"{START}blocks.1.xlstm.slstm_cell.")
            interop.slstm_from_torch(cell, num_heads=N, bias_layout=layout)
    with pytest.raises(ValueError, match="bias_layout is None; expected one of 'vanilla', 'cuda'"):
        interop.xlstm_from_torch(official(), CONFIG)
    with pytest.raises(ValueError, match="missing: _bias_, _recurrent_kernel_"):
        interop.slstm_from_torch({}, num_heads=N, bias_layout="cuda")


def test_one_block():
    for index, kind in enumerate((MLSTMBlock, SLSTMBlock)):
        weights = part(official(), f"{START}blocks.{index}.")
        block = interop.xlstm_block_from_torch(weights, CONFIG, index=index, bias_layout="vanilla")
        assert isinstance(block, kind)
        for name, array in leaves(model().stack.blocks[index]).items():
            np.testing.assert_array_equal(array[...], leaves(block)[name][...])
        with pytest.raises(
            ValueError, match=f"an xLSTM's {'sm'[1 - index]}LSTM block.*missing: .*conv1d.* unexpected: extra"
        ):
            interop.xlstm_block_from_torch({"extra": np.zeros(1)}, CONFIG, index=index, bias_layout="vanilla")
    with pytest.raises(ValueError, match=r"index is 2; expected 0\.\.1"):
        interop.xlstm_block_from_torch({}, CONFIG, index=2)


# What follows are the numbers of the official code.


def assert_states(carry, golden, start):
    """The official states keep the convolution's newest input too long: one more than a carry needs."""
    np.testing.assert_allclose(carry.conv, golden[f"{start}conv_state/0"][:, 1:], rtol=2e-5, atol=2e-5)
    if hasattr(carry, "memory"):
        for number, state in enumerate(carry.memory):
            assert_close(state, golden[f"{start}mlstm_state/{number}"].reshape(state.shape))
    else:
        assert_close(np.stack(carry.cell), golden[f"{start}slstm_state"])


@pytest.mark.parametrize("kind", ["mlstm", "slstm"])
def test_official_block(goldens, kind):
    golden = dict(np.load(goldens / f"xlstm_{kind}_block.npz"))
    index = ("mlstm", "slstm").index(kind)
    block, expected = (
        interop.xlstm_block_from_torch(part(golden, start), CONFIG, index=index, bias_layout="vanilla")
        for start in ("sd/", "grad/")
    )
    (ys, carry), (by_params, by_xs) = run(block, golden["x"], golden["cot"])
    assert_close(ys, golden["y"])
    assert_close(ys[:, :20], golden["y_short20"])
    assert_states(carry, golden, "state/")
    for name, array in leaves(expected).items():
        assert_close(leaves(by_params)[name][...], array[...])
    assert_close(by_xs, golden["grad_x"])


def test_official_language_model(goldens):
    golden = dict(np.load(goldens / "xlstm_lm.npz"))
    lm, expected = (
        interop.xlstm_from_torch(part(golden, start), CONFIG, bias_layout="vanilla") for start in ("sd/", "grad/")
    )
    tokens, targets = golden["tokens"].astype(np.int32), np.eye(V)[golden["targets"]]
    log_p = golden["logits"] - np.log(np.sum(np.exp(np.float64(golden["logits"])), axis=-1, keepdims=True))
    (logits, carry), grads = run(lm, tokens, np.float32((np.exp(log_p) - targets) / tokens.size))
    assert_close(logits, golden["logits"])
    loss = -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * targets, axis=-1))
    np.testing.assert_allclose(loss, golden["loss"], rtol=2e-6)
    for number, state in enumerate(carry):
        assert_states(state, golden, f"state/block_{number}/")
    for name, array in leaves(expected).items():
        assert_close(leaves(grads)[name][...], array[...])
    folded, carry = stepped(lm, tokens)
    assert_close(folded, golden["logits_step"])
    for number, state in enumerate(carry):
        assert_states(state, golden, f"state/block_{number}/")


@pytest.mark.parametrize("layout", ["vanilla", "cuda"])
def test_official_slstm_cell(goldens, layout):
    golden = dict(np.load(goldens / "slstm_cell.npz"))
    params = interop.slstm_from_torch(part(golden, f"sd_{layout}/"), num_heads=3, bias_layout=layout)
    xs = golden["x_BSGNH"].reshape(2, 17, 48)
    carry, ys = slstm.unroll(params, xs, carry=slstm.Carry(*map(jnp.asarray, golden["state0_ycnm_4BH"])))
    np.testing.assert_allclose(ys, golden["y_BNSH"].swapaxes(1, 2).reshape(2, 17, 12), rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(np.stack(carry), golden["final_ycnm_4BH"], rtol=2e-6, atol=2e-6)
