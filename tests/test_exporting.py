"""Exported programs, run in a process that has neither this library nor Flax, against the models."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export as programs

import qlstm_jax
from qlstm_jax import exporting, models
from qlstm_jax.nnx import GRU, LSTM, MLSTM, PRLSTM, QLSTM

D, H, V, B, T = 3, 4, 11, 3, 6
XLSTM = {"embedding_size": H, "num_blocks": 2, "num_heads": 2, "vocab_size": V, "slstm_at": "1"}
# What a user's program does: this process has the folder and JAX.
CALLS = """
import json, pathlib, sys
sys.modules.update(dict.fromkeys(["qlstm_jax", "flax", "jaxtyping", "safetensors"]))
import jax, numpy as np
from jax import export
home = pathlib.Path(sys.argv[1])
given = np.load(home / "given.npz")
found = {}
for folder in filter(pathlib.Path.is_dir, sorted(home.iterdir())):
    manifest = json.loads((folder / "manifest.json").read_text())
    call = {}
    for name, described in manifest["programs"].items():
        exported = export.deserialize(bytearray((folder / described["file"]).read_bytes()))
        call[name] = jax.jit(exported.call)
    dtype = manifest["programs"]["sequence"]["arguments"]["inputs"]["dtype"]
    xs = given[dtype]
    found[f"{folder.name} sequence"] = call["sequence"](xs, given["lengths"])
    if "step" in call:
        shapes = manifest["programs"]["step"]["arguments"]["carry"]
        carry = [np.zeros([len(xs), *a["shape"][1:]], a["dtype"]) for a in shapes]
        outputs = []
        for t in range(xs.shape[1]):
            carry, output = call["step"](carry, xs[:, t], given["resets"][:, t])
            outputs.append(output)
        found[f"{folder.name} step"] = np.stack(outputs, axis=1)
np.savez(home / "found.npz", **found)
"""


def rngs():
    return nnx.Rngs(0)


def classifier(layer, **options):
    return models.Classifier(V, 2, layer, embedding_size=D, rngs=rngs(), **options)


MODELS = {
    "classifier": lambda: classifier(GRU(D, H, num_layers=2, rngs=rngs()), pooling="mean_max", dropout=0.5),
    "last": lambda: classifier(QLSTM(D, H, block_size=2, dtype="bfloat16", rngs=rngs())),
    "both ways": lambda: classifier(LSTM(D, H, bidirectional=True, rngs=rngs()), pooling="max"),
    "attention": lambda: classifier(models.Transformer(D, H, num_heads=2, rngs=rngs())),
    "tokens": lambda: models.TokenModel(V, V, models.XLSTM(D, H, rngs=rngs()), embedding_size=D, rngs=rngs()),
    "numbers": lambda: models.Predictor(MLSTM(D, H, num_heads=2, chunk_size=2, rngs=rngs()), 2, rngs=rngs()),
    "tree": lambda: models.Transducer(PRLSTM(D, H, rngs=rngs()), 2, rngs=rngs()),
    "xlstm": lambda: models.XLSTMLanguageModel(models.XLSTMConfig(**XLSTM), rngs=rngs()),
}


def given():
    rng = np.random.default_rng(0)
    resets = rng.random((B, T)) < 0.3
    return {
        "float32": rng.normal(size=(B, T, D)).astype(np.float32),
        "int32": rng.integers(0, V, (B, T)).astype(np.int32),
        "lengths": np.array([T, 0, 4], np.int32),
        "resets": resets | (np.arange(T) == 0),
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(folder, manifests, what another process computed)."""
    home = tmp_path_factory.mktemp("exported")
    np.savez(home / "given.npz", **given())
    lengths = {"tree": T}
    manifests = {name: qlstm_jax.export(make(), home / name, length=lengths.get(name)) for name, make in MODELS.items()}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-c", CALLS, str(home)]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with np.load(home / "found.npz") as found:
        return home, manifests, dict(found)


@pytest.mark.parametrize("name", MODELS)
def test_another_process_computes_what_the_model_does(name, exported):
    _, manifests, found = exported
    model, arrays = MODELS[name](), given()
    model.eval()
    xs = arrays[manifests[name]["programs"]["sequence"]["arguments"]["inputs"]["dtype"]]
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if name == "last" else {"rtol": 1e-5, "atol": 2e-5}
    whole = nnx.jit(lambda model: model(xs, seq_lengths=arrays["lengths"]))(model)
    valid = np.arange(T)[None] < arrays["lengths"][:, None] if whole.ndim == 3 else np.full(B, True)
    np.testing.assert_allclose(found[f"{name} sequence"][valid], np.asarray(whole)[valid], **tolerance)
    assert ("step" in manifests[name]["programs"]) == model.has_carry == (f"{name} step" in found)
    if model.has_carry:
        step = nnx.jit(lambda model, carry, x, reset: model.step(carry, x, reset=reset))
        carry = model.initialize_carry(B)
        for t in range(T):
            carry, outputs = step(model, carry, xs[:, t], arrays["resets"][:, t])
            np.testing.assert_allclose(found[f"{name} step"][:, t], outputs, **tolerance)


def test_the_manifest_says_what_goes_in_and_out(exported):
    home, manifests, _ = exported
    manifest = json.loads((home / "classifier" / "manifest.json").read_text())
    assert manifest == manifests["classifier"]
    model = MODELS["classifier"]()
    assert manifest["parameters"] == sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert (manifest["format"], manifest["model"]) == (1, "qlstm_jax.models.classifier.Classifier")
    assert manifest["vocab_size"] == V and "vocab_size" not in manifests["numbers"]
    assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
    assert set(manifest["versions"]) == {"qlstm_jax", "jax", "calling_convention"}
    sequence, step = manifest["programs"]["sequence"], manifest["programs"]["step"]
    assert sequence["arguments"] == {
        "inputs": {"shape": ["batch", "time"], "dtype": "int32"},
        "seq_lengths": {"shape": ["batch"], "dtype": "int32"},
    }
    assert sequence["results"] == {"outputs": {"shape": ["batch", 2], "dtype": "float32"}}
    shapes = [[a.shape[0], *a.shape[1:]] for a in jax.tree.leaves(model.initialize_carry(1))]
    assert [a["shape"] for a in step["arguments"]["carry"]] == [["batch", *shape[1:]] for shape in shapes]
    assert step["results"]["carry"] == step["arguments"]["carry"]
    assert step["arguments"]["reset"] == {"shape": ["batch"], "dtype": "bool"}
    tree = manifests["tree"]["programs"]["sequence"]["arguments"]["inputs"]
    assert tree == {"shape": ["batch", T, D], "dtype": "float32"}


def test_the_weights_are_those_of_the_model(exported):
    home, _, _ = exported
    loaded = qlstm_jax.load(home / "xlstm" / "weights.safetensors")
    for a, b in zip(*(jax.tree.leaves(nnx.state(m, nnx.Param)) for m in (loaded, MODELS["xlstm"]())), strict=True):
        np.testing.assert_array_equal(a, b)


def test_platforms_and_files_that_are_asked_for(tmp_path):
    model = models.Predictor(LSTM(D, H, rngs=rngs()), 1, rngs=rngs())
    files = {"tokenizer.json": "{}"}
    manifest = qlstm_jax.export(model, tmp_path / "new", platforms=["tpu"], about={"labels": ["é"]}, files=files)
    assert (manifest["platforms"], manifest["labels"]) == (["tpu"], ["é"])
    assert (tmp_path / "new" / "tokenizer.json").read_text() == "{}"
    program = programs.deserialize(bytearray((tmp_path / "new" / "step.jaxexport").read_bytes()))
    assert program.platforms == ("tpu",)


def test_by_default_a_platform_that_lacks_an_operation_is_left_out():
    """Eigenvalues of general matrices: a TPU has none, and those of CUDA are a call of no lasting form."""
    shape = (jax.ShapeDtypeStruct((2, 2), jnp.float32),)
    calls = {"plain": (jnp.sin, shape), "eigenvalues": (jnp.linalg.eigvals, shape)}
    found = exporting._exported(calls, None)
    assert [program.platforms for program in found.values()] == [("cpu",), ("cpu",)]
    with pytest.raises(NotImplementedError):
        exporting._exported(calls, ["tpu"])


def test_a_model_stays_in_training_mode(tmp_path):
    model = classifier(GRU(D, H, rngs=rngs()), dropout=0.5)
    qlstm_jax.export(model, tmp_path, platforms=["cpu"])
    assert not model.dropout.deterministic


def test_what_it_cannot_do_is_named(tmp_path, monkeypatch):
    model = MODELS["tree"]()
    with pytest.raises(ValueError, match=r"expected a number: a tree's levels depend on it.*\(--length=N\)"):
        qlstm_jax.export(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="length is 0; expected a positive integer"):
        qlstm_jax.export(model, tmp_path / "new", length=0)
    with pytest.raises(ValueError, match="platforms is 'gpu'; expected one of 'cpu', 'cuda', 'tpu'"):
        qlstm_jax.export(model, tmp_path / "new", platforms=["gpu"])
    with pytest.raises(ValueError, match=r"platforms is \[\]; expected one or more"):
        qlstm_jax.export(model, tmp_path / "new", platforms=[])
    with pytest.raises(TypeError, match=r"model is a qlstm_jax\.nnx\.GRU; expected a Classifier, TokenModel"):
        qlstm_jax.export(GRU(D, H, rngs=rngs()), tmp_path / "new")
    (tmp_path / "kept").write_text("")
    with pytest.raises(ValueError, match="is there already; expected a new or an empty folder"):
        qlstm_jax.export(model, tmp_path, length=T)
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match=r'needs flatbuffers.*pip install "qlstm_jax\[train\]"'):
        qlstm_jax.export(model, tmp_path / "new", length=T)
