import inspect

import jax.numpy as jnp
import pytest
from flax import nnx

from qlstm_jax.models.layers import LAYER_CLASSES, build_layer, layer_options
from qlstm_jax.problems.config import nearest
from qlstm_jax.training import config as configs
from tests.training.conftest import tiny


def outputs(layer):
    """Shape and dtype of those for two rows of three tokens, computing none."""
    return nnx.eval_shape(lambda layer: layer(jnp.zeros((2, 3, 3))), layer)


def test_cell_options_are_those_of_cells_and_layers():
    options = layer_options()
    assert set(options) == set(LAYER_CLASSES) - {"rnn", "min_gru"}  # these have none
    assert options["lstm"] == options["gru"] == {"chrono": 0, "implementation": "auto"}
    slstm = {"num_heads": 1, "forget_gate": "sigmoid", "block_position": 0.0, "implementation": "auto"}
    assert options["slstm"] == slstm
    assert options["mlstm"] == {"num_heads": 4, "chunk_size": 64}  # key_size is None: not for configs
    for name, own in options.items():
        layer = LAYER_CLASSES[name]
        parameters = dict(inspect.signature(layer.__init__).parameters)
        if name not in ("transformer", "xlstm"):
            parameters |= inspect.signature(layer.functions.init).parameters
        assert all(parameters[key].default == value for key, value in own.items())
        assert configs.default().model[name].to_dict() == own


@pytest.mark.parametrize("cell", [name for name in LAYER_CLASSES if name not in ("transformer", "xlstm")])
def test_build_layer_passes_every_option_on(cell):
    changes = {"model__num_layers": 2, "model__bidirectional": True}
    changes |= {"model__ql_lstm__sharing": "none", "model__ql_lstm__num_heads": 2}
    chrono_cells = ("lstm", "gru", "ql_lstm")
    chrono = {f"model__{name}__chrono": 9 for name in chrono_cells}
    config = tiny(model__cell=cell, model__pr_lstm__refinements=2, **changes, **chrono)
    make = lambda: build_layer(config.model, 3, rngs=nnx.Rngs(0))  # noqa: E731
    layer = nnx.jit(make)() if cell in chrono_cells else nnx.eval_shape(make)
    assert type(layer) is LAYER_CLASSES[cell]
    assert (layer.in_features, layer.hidden_features, layer.output_size) == (3, 8, 16)
    assert len(layer.cells) == len(layer.backward_cells) == 2
    first = layer.cells[0]
    if cell == "ql_lstm":
        assert (first.params.block_size, first.params.sharing, first.params.num_heads) == (4, "none", 2)
        assert len(set(first.params.gate_bias[1].tolist())) == 8
    if cell in ("lstm", "gru"):
        assert len(set(first.params.bias[8:16].tolist())) == 8
    if cell == "pr_lstm":
        assert first.refine_kernel.shape[0] == 2
    assert outputs(layer).shape == (2, 3, 16)


def test_dropout_of_one_layer_is_not_the_layers_own(recwarn):
    """It acts before the readout then, and the layer must not warn that it does nothing."""
    layer = build_layer(tiny(model__dropout=0.5).model, 3, rngs=nnx.Rngs(0))
    assert layer.dropout is None
    assert not [w for w in recwarn if "dropout" in str(w.message)]


def test_build_xlstm_passes_every_option_on():
    options = {"slstm_at": "1", "num_heads": 2, "chunk_size": 4}
    config = tiny(model__cell="xlstm", model__num_layers=2, **{f"model__xlstm__{k}": v for k, v in options.items()})
    layer = nnx.eval_shape(lambda: build_layer(config.model, 3, rngs=nnx.Rngs(0)))
    assert type(layer) is LAYER_CLASSES["xlstm"]
    assert (layer.in_features, layer.hidden_features, layer.output_size) == (3, 8, 8)
    assert outputs(layer).shape == (2, 3, 8)


def test_build_transformer_passes_every_option_on():
    options = {"num_heads": 2, "feedforward": 3, "positions": "alibi", "causal": True}
    changes = {f"model__transformer__{name}": value for name, value in options.items()}
    config = tiny(model__cell="transformer", model__num_layers=2, model__dtype="bfloat16", **changes)
    layer = nnx.eval_shape(lambda: build_layer(config.model, 3, rngs=nnx.Rngs(0)))
    assert type(layer) is LAYER_CLASSES["transformer"]
    assert (layer.in_features, layer.hidden_features, layer.output_size, len(layer.blocks)) == (3, 8, 8, 2)
    attention = layer.blocks[1].attention
    assert (attention.num_heads, attention.positions, attention.causal) == (2, "alibi", True)
    assert layer.blocks[1].feedforward_in.kernel.shape == (8, 24)
    assert outputs(layer).dtype == "bfloat16"


def test_dropout_of_a_transformer_acts_within_its_one_layer():
    config = tiny(model__cell="transformer", model__dropout=0.5)
    assert build_layer(config.model, 3, rngs=nnx.Rngs(0)).dropout.rate == 0.5


def test_nearest():
    assert nearest("lstn", ["gru", "lstm"]) == "did you mean 'lstm'? expected one of gru, lstm"
    assert nearest("zzz", ["gru", "lstm"]) == "expected one of gru, lstm"
    assert nearest(3, [2, 30]).startswith("did you mean '30'?")
