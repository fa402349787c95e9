"""Official xLSTM configs, option by option: against the numbers of the official code, or refused by name."""

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import interop, models
from tests.interop.peers_xlstm import XLSTM, XLSTM_7B, alone, both

# 7B's official code draws a weight 1 + 0.5 N(0, 1) for its norms; all others are 0.5 N(0, 1).
CASES = [("xlstm_options", case) for case in XLSTM] + [("xlstm_7b_options", case) for case in XLSTM_7B]


@cache
def golden(goldens, name):
    return dict(np.load(goldens / f"{name}.npz"))


def part(arrays, start):
    return {name[len(start) :]: a for name, a in arrays.items() if name.startswith(start)}


@pytest.mark.parametrize(("name", "case"), CASES)
def test_numbers_of_the_official_code(goldens, name, case):
    arrays = golden(goldens, name)
    state = part(arrays, f"{case}/sd/")
    if name == "xlstm_options":
        model = interop.xlstm_from_torch(state, interop.xlstm_config_from_torch(XLSTM[case]), bias_layout="vanilla")
        back = interop.xlstm_to_torch(model)
    else:
        model = interop.xlstm_7b_from_torch(state, interop.xlstm_7b_config_from_torch(XLSTM_7B[case]))
        back = interop.xlstm_7b_to_torch(model, weight_mode=XLSTM_7B[case].get("weight_mode", "single"))
    assert set(back) == set(state)
    for key, array in state.items():
        np.testing.assert_array_equal(back[key], array)
    logits = jax.jit(lambda xs: model(xs))(arrays["x"])
    np.testing.assert_allclose(logits, arrays[f"{case}/y"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "case"), [("xlstm_options", "no_convolution"), ("xlstm_7b_options", "sizes")])
def test_a_stream_gives_the_same(goldens, name, case):
    arrays = golden(goldens, name)
    state = part(arrays, f"{case}/sd/")
    if name == "xlstm_options":
        model = interop.xlstm_from_torch(state, interop.xlstm_config_from_torch(XLSTM[case]), bias_layout="vanilla")
    else:
        model = interop.xlstm_7b_from_torch(state, interop.xlstm_7b_config_from_torch(XLSTM_7B[case]))
    steps = jax.jit(lambda xs: jax.lax.scan(model.step, model.initialize_carry(2), xs.T)[1])
    np.testing.assert_allclose(steps(arrays["x"]).swapaxes(0, 1), arrays[f"{case}/y"], rtol=1e-4, atol=1e-4)


def test_embedding_dropout_acts_in_training_alone():
    config = models.XLSTMConfig(embedding_size=8, num_blocks=1, num_heads=2, vocab_size=3, embedding_dropout=0.5)
    model = models.XLSTMLanguageModel(config, rngs=nnx.Rngs(params=0))
    ids = np.zeros((1, 2), np.int32)
    run = nnx.jit(lambda model, key: model(ids, rngs=key))
    first, second = run(model, jax.random.key(0)), run(model, jax.random.key(1))
    assert not np.array_equal(first, second)
    model.eval()
    np.testing.assert_array_equal(run(model, jax.random.key(0)), run(model, jax.random.key(1)))


def test_layouts_and_modes_convert_into_each_other(goldens):
    state = part(golden(goldens, "xlstm_options"), "heads_and_convolutions/sd/")
    config = interop.xlstm_config_from_torch(XLSTM["heads_and_convolutions"])
    model = interop.xlstm_from_torch(state, config, bias_layout="vanilla")
    cuda = interop.xlstm_to_torch(model, bias_layout="cuda")
    again = interop.xlstm_to_torch(interop.xlstm_from_torch(cuda, config, bias_layout="cuda"))
    jax.tree.map(np.testing.assert_array_equal, again, state)
    state = part(golden(goldens, "xlstm_7b_options"), "biases/sd/")
    config = interop.xlstm_7b_config_from_torch(XLSTM_7B["biases"])
    fused = interop.xlstm_7b_to_torch(interop.xlstm_7b_from_torch(state, config), weight_mode="fused")
    assert "backbone.blocks.0.mlstm_layer.qkv_opreact.bias" in fused
    again = interop.xlstm_7b_to_torch(interop.xlstm_7b_from_torch(fused, config))
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_a_tied_head_may_be_left_out_and_must_be_the_embedding(goldens):
    case = "tied_without_last_norm"
    state = part(golden(goldens, "xlstm_options"), f"{case}/sd/")
    config = interop.xlstm_config_from_torch(XLSTM[case])
    head = state.pop("lm_head.weight")
    model = interop.xlstm_from_torch(state, config, bias_layout="vanilla")
    assert model.head is None
    np.testing.assert_array_equal(interop.xlstm_to_torch(model)["lm_head.weight"], head)
    with pytest.raises(ValueError, match=r"lm_head\.weight is not token_embedding\.weight"):
        interop.xlstm_from_torch(state | {"lm_head.weight": head + 1}, config, bias_layout="vanilla")


@dataclasses.dataclass
class Large:
    """As the official dataclass, with a value that is its default."""

    embedding_dim: int = 8
    num_heads: int = 2
    num_blocks: int = 2
    vocab_size: int = 5
    norm_eps: float = 1e-3


def test_what_a_state_dict_does_not_record_is_in_the_config():
    config = interop.xlstm_config_from_torch(both({"num_heads": 4}, {"num_heads": 1}, {"act_fn": "selu"}, dropout=0.1))
    assert (config.num_heads, config.heads(0), config.heads(1)) == (4, 4, 1)
    assert (config.activation, config.slstm_function, config.dropout) == ("selu", "slstm", 0.1)
    assert config.embedding_dropout == 0
    assert interop.xlstm_config_from_torch(both(dropout=0.1, add_embedding_dropout=True)).embedding_dropout == 0.1
    large = interop.xlstm_7b_config_from_torch(Large(), dtype="bfloat16", param_dtype="bfloat16")
    assert (large.norm_eps, large.logit_cap, large.dtype, large.param_dtype) == (1e-3, 30.0, "bfloat16", "bfloat16")
    # Without a language model, a stack.
    assert interop.xlstm_config_from_torch({"num_blocks": 1, "mlstm_block": {}}).vocab_size is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (both(slstm={"function": "lstm"}), "slstm_function is 'lstm'; expected one of 'slstm'"),
        (both(slstm={"forward_clipval": 1.0}), "slstm_block.slstm.forward_clipval is 1.0; expected None"),
        (both(slstm={"gradient_recurrent_cut": True}), "slstm.gradient_recurrent_cut is True; expected False"),
        (both(feedforward={"ff_type": "ffn"}), "slstm_block.feedforward.ff_type is 'ffn'; expected 'ffn_gated'"),
        (both(feedforward={"act_fn": "tanh"}), "activation is 'tanh'; expected one of 'gelu', 'relu'"),
        (both({"channel_mixing": True}), "mlstm_block.mlstm.channel_mixing is True; expected an official config"),
        (both(norm="rms"), "norm is 'rms'; expected an official config, which has no such option"),
        (both({"round_proj_up_dim_up": False, "proj_factor": 0.9}), "mlstm.round_proj_up_dim_up is False, and 0.9"),
        (alone() | {"slstm_block": None}, "slstm_block is None and slstm_at 'all'; expected the config of the sLSTM"),
    ],
)
def test_what_ours_cannot_compute_is_refused_by_name(config, message):
    with pytest.raises(ValueError) as error:
        interop.xlstm_config_from_torch(config)
    assert message in str(error.value)


def test_what_ours_cannot_compute_of_7b_is_refused_by_name():
    with pytest.raises(ValueError, match=r"eps is 0\.001; expected 1e-06, as ours has nothing else"):
        interop.xlstm_7b_config_from_torch(XLSTM_7B["caps"] | {"eps": 1e-3})
    with pytest.raises(ValueError, match="num_kv_heads is 2; expected an official config"):
        interop.xlstm_7b_config_from_torch(XLSTM_7B["caps"] | {"num_kv_heads": 2})
    with pytest.raises(ValueError, match="embedding_dim is left out"):
        interop.xlstm_7b_config_from_torch({"num_heads": 2, "num_blocks": 1})


def test_configs_that_cannot_be():
    sizes = {"embedding_size": 8, "num_blocks": 1, "num_heads": 2, "slstm_at": "all"}
    for options, message in (
        ({"slstm_conv_size": -1}, "slstm_conv_size"),
        ({"slstm_heads": 3}, "embedding_size is 8; expected a multiple of slstm_heads, which is 3"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0; expected a number above 0"),
        ({"embedding_dropout": 1.0}, "embedding_dropout is 1.0; expected a rate"),
    ):
        with pytest.raises(ValueError, match=message):
            models.XLSTMConfig(**sizes, **options)


def stack(config):
    return nnx.eval_shape(lambda: models.XLSTMStack(config, rngs=nnx.Rngs(params=0)))


def test_models_of_another_kind_are_named():
    sizes = {"embedding_size": 8, "num_blocks": 1, "num_heads": 2}
    one, other = stack(models.XLSTMConfig(**sizes)), stack(models.MLSTM7BConfig(**sizes))
    with pytest.raises(ValueError, match="config is a MLSTM7BConfig; expected a XLSTMConfig; see also xlstm_7b_to"):
        interop.xlstm_to_torch(other)
    with pytest.raises(ValueError, match="config is a XLSTMConfig; expected a MLSTM7BConfig; see also xlstm_to_torch"):
        interop.xlstm_7b_to_torch(one)
    with pytest.raises(ValueError, match="weight_mode is 'joint'; expected one of 'single', 'fused'"):
        interop.xlstm_7b_to_torch(other, weight_mode="joint")
