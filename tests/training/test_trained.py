"""A trained run in three lines of Python."""

import numpy as np
import pytest

import qlstm_jax
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.loop import train
from tests.training.conftest import tiny, write_reviews


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviews")
    path = str(write_reviews(folder / "reviews.tsv"))
    train(tiny("text", train__steps=2, text__path=path, model__pooling="mean_max"), folder / "run")
    return folder / "run"


def test_it_predicts_texts_and_arrays_and_reads_a_stream(workdir):
    run = qlstm_jax.load_run(workdir)
    assert (run.step, run.config.problem, run.workdir) == (2, "text", workdir)
    texts = ["the film was lovely", "awful"]
    first, second = run.predict(texts)
    assert run.predict(texts[0])["label"] == first["label"]
    assert set(first["probabilities"]) == {"bad", "good"}
    ids = run.problem.tokenizer.encode(texts[0])
    logits = run.predict(ids[None], seq_lengths=[len(ids)])
    assert type(logits) is np.ndarray and logits.shape == (1, 2)
    np.testing.assert_array_equal(run.predict(ids[None]), logits)
    chances = np.exp(logits[0]) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(chances, list(first["probabilities"].values()), atol=2e-6)
    stream = run.stream()
    outputs = [stream.step(token) for token in ids]
    np.testing.assert_allclose(outputs[-1], logits, rtol=1e-5, atol=1e-6)
    # A second text in the same stream; two texts in another.
    (token,) = run.problem.tokenizer.encode(texts[1])
    again = stream.step(token, reset=[True])
    alone = run.predict([[token]])
    np.testing.assert_allclose(again, alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.stream(2).step([ids[0], token])[1:], alone, rtol=1e-5, atol=1e-6)
    assert second["label"] == run.problem.label_names[int(np.argmax(alone))]


def test_what_it_cannot_do_is_named(workdir, tmp_path):
    with pytest.raises(ConfigError, match="seq_lengths is given with texts"):
        qlstm_jax.load_run(workdir).predict("a film", seq_lengths=[1])
    with pytest.raises(ConfigError, match=r"config\.json does not exist; expected the folder of a run"):
        qlstm_jax.load_run(tmp_path)
