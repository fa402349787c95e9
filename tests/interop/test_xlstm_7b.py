"""Official xLSTM 7B weights in both weight modes against the logits of that code, made by make_xlstm_7b.py."""

import pathlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import interop
from qlstm_jax.models import MLSTM7BConfig, XLSTMConfig, XLSTMStack

H = 24
CONFIG = MLSTM7BConfig(vocab_size=11, embedding_size=H, num_blocks=2, num_heads=2, feedforward_multiple=16)
STACK = MLSTM7BConfig(**vars(CONFIG) | {"vocab_size": None})
BLOCK = "backbone.blocks.1."
JOINT = {
    "mlstm_layer.qkv_opreact.weight": [f"mlstm_layer.{name}.weight" for name in ("q", "k", "v", "ogate_preact")],
    "mlstm_layer.ifgate_preact.weight": ["mlstm_layer.igate_preact.weight", "mlstm_layer.fgate_preact.weight"],
    "mlstm_layer.ifgate_preact.bias": ["mlstm_layer.igate_preact.bias", "mlstm_layer.fgate_preact.bias"],
    "ffn.proj_up_gate_z.weight": ["ffn.proj_up_gate.weight", "ffn.proj_up.weight"],
}


@cache
def golden():
    return dict(np.load(pathlib.Path(__file__).with_name("xlstm_7b.npz")))


def weights(mode="single"):
    start = f"{mode}/sd/"
    return {name[len(start) :]: a for name, a in golden().items() if name.startswith(start)}


def without(arrays, start):
    return {name[len(start) :]: a for name, a in arrays.items() if name.startswith(start)}


def assert_same(one, other):
    one, other = (dict(nnx.to_flat_state(nnx.state(module))) for module in (one, other))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array[...], other[name][...])


@jax.jit
def run(model, tokens):
    """The logits by a call and by folded steps."""
    _, logits = jax.lax.scan(model.step, model.initialize_carry(tokens.shape[0]), tokens.T)
    return model(tokens), jnp.swapaxes(logits, 0, 1)


@pytest.mark.parametrize("mode", ["single", "fused"])
def test_official_logits(mode):
    model, expected = interop.xlstm_7b_from_torch(weights(mode), CONFIG), golden()[f"{mode}/logits"]
    assert np.abs(expected).max() > {"single": 5, "fused": 29.9}[mode]
    for logits in run(model, golden()[f"{mode}/tokens"]):
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_both_modes_give_one_model():
    apart = weights()
    joint = dict(apart)
    for start in ("backbone.blocks.0.", BLOCK):
        for name, parts in JOINT.items():
            joint[start + name] = np.concatenate([joint.pop(start + part) for part in parts])
    assert joint.keys() == weights("fused").keys()
    assert_same(interop.xlstm_7b_from_torch(joint, CONFIG), interop.xlstm_7b_from_torch(apart, CONFIG))


def test_the_name_of_the_embedding_in_transformers():
    renamed = weights()
    renamed["backbone.embeddings.weight"] = renamed.pop("embedding.weight")
    assert_same(interop.xlstm_7b_from_torch(renamed, CONFIG), interop.xlstm_7b_from_torch(weights(), CONFIG))


def test_a_stack_without_a_language_model():
    stack = interop.xlstm_7b_from_torch(without(weights(), "backbone."), STACK)
    assert isinstance(stack, XLSTMStack)
    assert_same(stack, interop.xlstm_7b_from_torch(weights(), CONFIG).stack)


def test_param_dtype():
    """A small scale of a norm keeps its digits: it is not stored as a difference from 1."""
    given = weights()
    given["backbone.out_norm.weight"] = np.full(H, 0.01, np.float32)
    model = interop.xlstm_7b_from_torch(given, MLSTM7BConfig(**vars(CONFIG) | {"param_dtype": "bfloat16"}))
    assert {a.dtype for a in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(np.float32(model.stack.norm.scale[...]), 0.01, rtol=1 / 256)


@pytest.mark.parametrize(("mode", "part"), [("single", "q"), ("fused", "qkv_opreact")])
def test_errors_list_every_name(mode, part):
    given = weights(mode)
    del given["lm_head.weight"], given[f"{BLOCK}ffn.proj_down.weight"]
    given |= {f"{BLOCK}mlstm_layer.out_proj.bias": np.zeros(H)}
    given[f"{BLOCK}mlstm_layer.{part}.weight"] = np.zeros((5, H))
    rows = {"q": 12, "qkv_opreact": 72}[part]
    with pytest.raises(ValueError, match=f"the xLSTM 7B of this config in the weight mode '{mode}'") as error:
        interop.xlstm_7b_from_torch(given, CONFIG)
    message = str(error.value)
    assert f"missing: {BLOCK}ffn.proj_down.weight, lm_head.weight; unexpected: {BLOCK}mlstm_layer.out_proj." in message
    assert message.endswith(f"of another shape: {BLOCK}mlstm_layer.{part}.weight is (5, 24), expected ({rows}, 24)")


def test_errors_of_mixed_modes():
    given = weights("fused") | {f"{BLOCK}mlstm_layer.q.weight": np.zeros((12, H))}
    del given[f"{BLOCK}ffn.proj_up_gate_z.weight"]
    with pytest.raises(
        ValueError, match=r"missing: .*\.1\.ffn\.proj_up_gate_z\.weight; unexpected: .*layer\.q\.weight"
    ):
        interop.xlstm_7b_from_torch(given, CONFIG)


def test_errors_of_another_kind_of_config():
    other = XLSTMConfig(embedding_size=24, num_blocks=2)
    with pytest.raises(
        ValueError, match="config is a XLSTMConfig; expected a MLSTM7BConfig; see also xlstm_from_torch"
    ):
        interop.xlstm_7b_from_torch({}, other)
    for read in (interop.xlstm_from_torch, interop.xlstm_block_from_torch):
        with pytest.raises(ValueError, match="config is a MLSTM7BConfig; expected a XLSTMConfig; see also xlstm_7b"):
            read({}, CONFIG)
