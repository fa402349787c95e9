"""Modules of the library in a file and back."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import save_file

import qlstm_jax
from qlstm_jax import linen, models
from qlstm_jax.cells import CELLS
from qlstm_jax.describe import cell_class_name
from qlstm_jax.models.xlstm import MLSTM7BBlock, MLSTMBlock, SLSTMBlock
from qlstm_jax.nnx import GRU, LSTM, PRLSTM, QLSTM, LSTMCell

D, H = 3, 4
# Options that change the arrays or the program.
OPTIONS = {
    "QLSTM": {"skip": False, "block_size": 2, "sharing": "none", "num_heads": 2},
    "PRLSTM": {"refinements": 2, "cell": "rnn", "max_offset": 3},
    "SLSTM": {"num_heads": 2},
    "MLSTM": {"num_heads": 2, "key_size": 1, "chunk_size": 8},
    "LSTM": {"chrono": 9, "implementation": "scan", "param_dtype": jnp.bfloat16},
}
SMALL = {"embedding_size": H, "num_blocks": 2, "num_heads": 2}
XLSTM = models.XLSTMConfig(**SMALL, vocab_size=5, slstm_at="1", inner_multiple=4, feedforward_multiple=2, dropout=0.1)
XLSTM_7B = models.MLSTM7BConfig(**SMALL, feedforward_multiple=2, dtype="bfloat16")


def rngs():
    return nnx.Rngs(params=0)


def layer_of(name):
    options = OPTIONS.get(name, {})
    return getattr(qlstm_jax.nnx, name)(D, H, num_layers=2, bidirectional=True, dropout=0.2, rngs=rngs(), **options)


def cell_of(name):
    options = {k: v for k, v in OPTIONS.get(name, {}).items() if k != "max_offset"}
    return getattr(qlstm_jax.nnx, cell_class_name(name))(D, H, rngs=rngs(), **options)


MODULES = {name: (lambda name=name: layer_of(name)) for name in CELLS}
MODULES |= {f"{name} cell": (lambda name=name: cell_of(name)) for name in CELLS}
MODULES |= {
    "Classifier": lambda: models.Classifier(
        5, 2, GRU(D, H, rngs=rngs()), embedding_size=D, pooling="mean_max", variational=True, rngs=rngs()
    ),
    "Predictor": lambda: models.Predictor(QLSTM(D, H, rngs=rngs()), 2, dropout=0.3, rngs=rngs()),
    "TokenModel": lambda: models.TokenModel(5, 5, models.XLSTM(D, H, rngs=rngs()), embedding_size=D, rngs=rngs()),
    "Transducer": lambda: models.Transducer(PRLSTM(D, H, rngs=rngs()), 2, readout="none", rngs=rngs()),
    "Transformer": lambda: models.Transformer(D, 8, num_heads=2, positions="alibi", causal=True, rngs=rngs()),
    "XLSTM": lambda: models.XLSTM(D, H, slstm_at="0", dtype="float16", rngs=rngs()),
    "XLSTMLanguageModel": lambda: models.XLSTMLanguageModel(XLSTM, rngs=rngs()),
    "XLSTMStack of 7B": lambda: models.XLSTMStack(XLSTM_7B, rngs=rngs()),
    "MLSTMBlock": lambda: MLSTMBlock(XLSTM, index=0, rngs=rngs()),
    "SLSTMBlock": lambda: SLSTMBlock(XLSTM, index=1, rngs=rngs()),
    "MLSTM7BBlock": lambda: MLSTM7BBlock(XLSTM_7B, rngs=rngs()),
}


def drawn(module):
    """The module with numbers in place of shapes: nothing is compiled, and no array is as an initialiser made it."""
    rng = np.random.default_rng(0)
    state = nnx.state(module)
    nnx.update(module, jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), state))
    return module


def options_of(module):
    """All that a module holds but arrays and initialisers, by place."""
    found = {}
    for place, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Module):
            held = {k: v for k, v in vars(node).items() if isinstance(v, (bool, int, float, str, tuple))}
            dtypes = {k: v and jnp.dtype(v).name for k, v in vars(node).items() if k in ("dtype", "param_dtype")}
            found[place] = (type(node), held | dtypes)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_what_is_loaded_is_what_was_saved(name, tmp_path):
    module = drawn(nnx.eval_shape(MODULES[name]))
    qlstm_jax.save(module, tmp_path / "a.safetensors")
    loaded = qlstm_jax.load(tmp_path / "a.safetensors")
    assert options_of(loaded) == options_of(module)
    before, after = (nnx.to_flat_state(nnx.state(m)) for m in (module, loaded))
    for (place, a), (other, b) in zip(before, after, strict=True):
        assert (place, a[...].dtype) == (other, b[...].dtype)
        np.testing.assert_array_equal(a[...], b[...])


def test_the_file_is_one_that_others_read(tmp_path):
    cell = LSTMCell(D, H, rngs=rngs())
    qlstm_jax.save(cell, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("input_kernel"), cell.input_kernel[...])
        description = json.loads(file.metadata()["qlstm_jax"])
    assert description["class"] == "qlstm_jax.nnx.LSTMCell"
    assert description["arguments"] | {"in_features": D, "chrono": 0, "dtype": None} == description["arguments"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_dropout_stream_is_no_part_of_the_file(tmp_path):
    layer = GRU(D, H, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0))
    qlstm_jax.save(layer, tmp_path / "a")
    loaded = qlstm_jax.load(tmp_path / "a")
    layer.eval(), loaded.eval()
    xs = jnp.ones((1, 2, D))
    np.testing.assert_array_equal(loaded(xs), layer(xs))


def test_linen(tmp_path):
    layer = linen.QLSTM(H, num_layers=2, block_size=2, dtype=jnp.bfloat16)
    variables = jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, 2, D)))
    qlstm_jax.save(layer, tmp_path / "a", variables)
    module, loaded = qlstm_jax.load(tmp_path / "a")
    assert (type(module), module.features, module.block_size, module.dtype) == (linen.QLSTM, H, 2, "bfloat16")
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


class Own(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.zeros(2))


def test_what_cannot_be_saved_is_named(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(ValueError, match=r"the module is a tests\.test_saving\.Own; expected a layer, cell or model"):
        qlstm_jax.save(Own(), path)
    layer = GRU(D, H, rngs=rngs())
    with pytest.raises(ValueError, match="variables is given, and the module is an NNX module"):
        qlstm_jax.save(layer, path, {})
    with pytest.raises(ValueError, match="variables is None, and the module is a Linen module"):
        qlstm_jax.save(linen.GRU(H), path)
    layer.cells[0].bias = nnx.Param(jnp.zeros(7))
    with pytest.raises(ValueError, match=r"a GRU of the arguments it was made with.*cells\.0\.bias is \(7\), expected"):
        qlstm_jax.save(layer, path)
    assert not path.exists()


def written(path, arrays=(), **description):
    save_file({name: np.zeros(1, np.float32) for name in arrays}, path, metadata={"qlstm_jax": json.dumps(description)})


def test_what_cannot_be_loaded_is_named(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError, match=f"{path} is no file; expected one that qlstm_jax.save wrote"):
        qlstm_jax.load(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match=f"{path} is no safetensors file"):
        qlstm_jax.load(path)
    save_file({"a": np.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"has no options of a module; expected a file that qlstm_jax\.save wrote"):
        qlstm_jax.load(path)
    written(path, format=2)
    with pytest.raises(ValueError, match="has format 2; expected 1"):
        qlstm_jax.load(path)
    sizes = {"in_features": D, "hidden_features": H}
    for name in ("os.system", "qlstm_jax.nnx.jnp", "qlstm_jax.models.xlstm.nnx", "qlstm_jax.nnx.ELSTM"):
        written(path, format=1, **{"class": name, "arguments": sizes})
        with pytest.raises(ValueError, match=f"{path} holds a {name}, which this version of qlstm_jax does not have"):
            qlstm_jax.load(path)
    written(path, format=1, **{"class": "qlstm_jax.nnx.LSTM", "arguments": sizes | {"newer": 1}})
    with pytest.raises(ValueError, match=r"does not fit this version of qlstm_jax: .*newer"):
        qlstm_jax.load(path)
    written(path, ["extra"], format=1, **{"class": "qlstm_jax.nnx.LSTMCell", "arguments": sizes})
    with pytest.raises(ValueError, match=r"missing: bias, input_kernel, recurrent_kernel; unexpected: extra"):
        qlstm_jax.load(path)


def test_float64_keeps_its_digits_or_is_refused(tmp_path):
    with jax.enable_x64(True):
        cell = LSTMCell(D, H, param_dtype="float64", rngs=rngs())
        qlstm_jax.save(cell, tmp_path / "a")
        np.testing.assert_array_equal(qlstm_jax.load(tmp_path / "a").input_kernel[...], cell.input_kernel[...])
    with pytest.raises(ValueError, match="is float64; expected jax_enable_x64 on"):
        qlstm_jax.load(tmp_path / "a")


def test_without_safetensors_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'which is not installed; run: pip install "qlstm_jax\[train\]"'):
        qlstm_jax.save(LSTM(D, H, rngs=rngs()), tmp_path / "a")
