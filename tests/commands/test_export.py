"""`qlstm-export`: what of a run is in the folder that it writes. What the programs compute is in `test_exporting`."""

import json

import jax
import numpy as np
import pytest
import tokenizers
from jax import export as programs

import qlstm_jax
from qlstm_jax.commands.programs import export
from qlstm_jax.problems import LMProblem, SeriesProblem
from qlstm_jax.training.loop import train
from tests.commands.calls import call, mistake
from tests.training.conftest import tiny, write_reviews


def exported(workdir, out, *arguments):
    done = call(export, f"--workdir={workdir}", f"--out={out}", *arguments)
    assert done.code == 0, done.err
    return done.out, json.loads((out / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviews")
    path = str(write_reviews(folder / "reviews.tsv"))
    train(tiny("text", train__steps=2, text__path=path, model__pooling="mean"), folder / "run")
    return folder / "run"


def test_a_classifier_of_texts_with_its_labels_and_tokenizer(reviews, tmp_path):
    shown, manifest = exported(reviews, tmp_path / "out", "--platforms=cpu,tpu")
    lines = shown.splitlines()
    assert lines[0] == "sequence: inputs int32[batch, time], seq_lengths int32[batch] -> float32[batch, 2]"
    assert lines[1] == "step: inputs int32[batch], reset bool[batch] -> float32[batch, 2]"
    assert lines[2].endswith(f"parameters for cpu, tpu in {tmp_path / 'out'}")
    assert (manifest["labels"], manifest["max_length"]) == (["bad", "good"], 8)
    assert manifest["run"] == {"problem": "text", "name": "text", "cell": "rnn", "step": 2}
    run, text = qlstm_jax.load_run(reviews), "The film was LOVELY, unheard of"
    assert manifest["tokenizer"] == {"kind": "word", "file": "tokenizer.json"}
    reader = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    ids = reader.encode(text, add_special_tokens=False).ids
    assert ids == run.problem.tokenizer.encode(text).tolist() and manifest["vocab_size"] > max(ids)
    program = programs.deserialize(bytearray((tmp_path / "out" / "sequence.jaxexport").read_bytes()))
    logits = jax.jit(program.call)(np.array([ids], np.int32), np.array([len(ids)], np.int32))
    np.testing.assert_allclose(logits, run.predict([ids]), rtol=1e-5, atol=1e-6)
    loaded = qlstm_jax.load(tmp_path / "out" / "weights.safetensors")
    np.testing.assert_array_equal(loaded.head.kernel[...], run.model.head.kernel[...])


def test_a_tree_needs_a_length(tmp_path):
    train(tiny(model__cell="pr_lstm", train__steps=1), tmp_path / "run")
    line, code = mistake(export, f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}")
    assert code == 1 and "a tree's levels depend on it" in line and "--length=N" in line
    _, manifest = exported(tmp_path / "run", tmp_path / "out", "--length=9", "--platforms=cpu")
    assert manifest["programs"]["sequence"]["arguments"]["inputs"]["shape"] == ["batch", 9, 3]
    assert (manifest["run"]["problem"], manifest["run"]["name"]) == ("formal", "parity_check")


def test_mistakes_are_named_before_anything_is_read(reviews, tmp_path):
    nowhere = f"--workdir={tmp_path / 'none'}"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    line, code = mistake(export, nowhere, f"--out={tmp_path / 'full'}")
    assert (line, code) == (f"{tmp_path / 'full'} is there already; expected a new or an empty folder", 1)
    line, code = mistake(export, nowhere, f"--out={tmp_path / 'out'}", "--platforms=cpu,gpu")
    assert (line, code) == ("platforms is 'gpu'; expected one of 'cpu', 'cuda', 'tpu'", 1)
    line, code = mistake(export, nowhere, f"--out={tmp_path / 'out'}")
    assert code == 1 and "does not exist; expected the folder of a run" in line
    line, code = mistake(export, nowhere)
    assert code == 2 and "--out" in line
    assert not (tmp_path / "out").exists()


def test_a_language_model_of_bytes(tmp_path):
    (tmp_path / "text.txt").write_text("abc " * 400)
    config = tiny("lm", lm__path=str(tmp_path / "text.txt"), lm__length=8)
    found = LMProblem(config, tmp_path / "run").interface()
    assert found == ({"tokenizer": {"kind": "byte", "offset": 0}}, {})


def test_a_series_with_its_columns_and_scale(tmp_path):
    rows = "\n".join(f"{n},{n % 7},{(n * n) % 11}" for n in range(200))
    (tmp_path / "file.csv").write_text(f"time,a,b\n{rows}\n")
    options = {"path": str(tmp_path / "file.csv"), "context": 8, "horizon": 2, "targets": "b", "columns": "a,b"}
    config = tiny("series", **{f"series__{name}": value for name, value in options.items()})
    problem = SeriesProblem(config, tmp_path / "run")
    about = problem.interface().about
    form = {"context": 8, "horizon": 2, "loss": "gaussian", "from_last": False}
    for name in ("mean", "deviation"):
        np.testing.assert_array_equal(json.loads(json.dumps(about.pop(name))), getattr(problem.data, name))
    assert about == {"columns": ["a", "b"], "targets": ["b"]} | form
