import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.data.formal import TASKS
from qlstm_jax.problems import FormalProblem, RecallProblem, metrics
from qlstm_jax.training import config as configs
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import evaluate, restore
from qlstm_jax.training.loop import train
from tests.training.conftest import tiny


def assert_picture(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 4000


@pytest.fixture(scope="module")
def formal_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("formal")
    train(tiny(train__steps=2), workdir)
    return workdir


def test_formal_report(formal_run):
    report = evaluate(formal_run)
    assert report == json.loads((formal_run / "eval" / "report.json").read_text())
    by_length = report["accuracy_by_length"]
    assert list(by_length) == ["1", "2", "3", "4", "7", "8", "9"]
    assert report["score"] == pytest.approx(np.mean([by_length[str(n)] for n in (7, 8, 9)]))
    assert report["in_range_accuracy"] == pytest.approx(np.mean([by_length[str(n)] for n in (1, 2, 3, 4)]))
    assert report["solved"] == (report["score"] >= 0.9)
    expected = {"task": "parity_check", "cell": "rnn", "seed": 0, "step": 2, "sequences_per_length": 8}
    expected |= {"score_lengths": [7, 9, 1], "train_lengths": [1, 4]}
    assert {key: report[key] for key in expected} == expected
    recurrent = 3 * 8 + 8 * 8 + 8  # three channels of the tape, eight units, one bias
    assert report["recurrent_parameters"] == recurrent
    assert report["parameters"] == recurrent + 8 * 2 + 2
    assert_picture(formal_run / "eval" / "accuracy_by_length.png")
    assert_picture(formal_run / "eval" / "learning_curves.png")
    # A killed run leaves half a line, which must not stand in the way of its evaluation.
    with (formal_run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "spl')
    assert evaluate(formal_run) == report  # the same key, the same figures
    other = evaluate(formal_run, min_length=5, max_length=6, sequences=4)
    assert (other["score_lengths"], other["sequences_per_length"]) == ([5, 6, 1], 4)
    assert list(other["accuracy_by_length"]) == ["1", "2", "3", "4", "5", "6"]


def test_overrides_out_of_range(formal_run):
    with pytest.raises(ConfigError, match=r"eval lengths are 7\.\.3"):
        evaluate(formal_run, max_length=3)
    with pytest.raises(ConfigError, match=r"eval.sequences is 0"):
        evaluate(formal_run, sequences=0)


def test_a_formal_run_has_no_predictions(formal_run):
    _, problem, model, _ = restore(formal_run)
    with pytest.raises(ConfigError, match="problem='text'"):
        problem.predict(model, ["a line"])


def test_nothing_to_restore(tmp_path, formal_run):
    with pytest.raises(ConfigError, match=r"nowhere/config\.json does not exist; expected the folder of a run"):
        restore(tmp_path / "nowhere")
    configs.save(tiny(), tmp_path / "config.json")
    with pytest.raises(ConfigError, match=r"has no 'last' checkpoint"):
        restore(tmp_path)
    with pytest.raises(ConfigError, match=r"has no 'best' checkpoint"):
        restore(formal_run, checkpoint="best")


def answering(monkeypatch, answer):
    """Makes the problem's logits the one-hot of `answer(batch)` (B, M)."""

    def logits(self, model, batch, rngs=None):
        return jax.nn.one_hot(answer(batch), self.task.output_size)

    monkeypatch.setattr(FormalProblem, "logits", logits)


@pytest.mark.parametrize("task", ["parity_check", "reverse_string", "binary_addition", "missing_duplicate_string"])
def test_accuracy_of_perfect_and_constant_answers(task, tmp_path, monkeypatch):
    lengths, key = [1, 2, 5, 70], jax.random.key(3)
    problem = FormalProblem(tiny(task), tmp_path)
    model = problem.model(nnx.Rngs(params=key))
    answering(monkeypatch, lambda batch: batch.targets)
    np.testing.assert_array_equal(problem.accuracy_by_length(model, key, lengths, 3), 1.0)
    answering(monkeypatch, lambda batch: jnp.where(batch.mask > 0, (batch.targets + 1) % 2, 0))
    np.testing.assert_array_equal(FormalProblem(tiny(task), tmp_path).accuracy_by_length(model, key, lengths, 3), 0.0)


def test_accuracy_of_a_constant_answer_is_the_share_of_that_symbol(tmp_path, monkeypatch):
    """Length by length, with lengths of one program in one batch: each must be counted under its own."""
    lengths, key, sequences = [1, 3, 8], jax.random.key(3), 50
    problem = FormalProblem(tiny("reverse_string"), tmp_path)
    drawn = {}

    def zeros(batch):
        drawn["batch"] = batch
        return jnp.zeros_like(batch.targets)

    answering(monkeypatch, zeros)
    model = problem.model(nnx.Rngs(params=key))
    with jax.disable_jit():
        found = problem.accuracy_by_length(model, key, lengths, sequences)
    batch = jax.device_get(drawn["batch"])
    for place, length in enumerate(lengths):
        rows = batch.targets[place * sequences : (place + 1) * sequences, :length]
        assert batch.lengths[place * sequences] == length
        assert found[place] == pytest.approx((rows == 0).mean())
    assert abs(found[2] - 0.5) < 0.15  # chance, of 400 symbols


def test_parts_of_a_length_are_joined(tmp_path, monkeypatch):
    """Batches are cut by size; the last is filled up with rows that must not count."""
    monkeypatch.setattr("qlstm_jax.problems.formal.POSITIONS", 40)
    answering(monkeypatch, lambda batch: jnp.where(batch.lengths[:, None] > 1, batch.targets, 1 - batch.targets))
    problem = FormalProblem(tiny("parity_check"), tmp_path)
    model = problem.model(nnx.Rngs(params=jax.random.key(0)))
    found = problem.accuracy_by_length(model, jax.random.key(1), [1, 2, 3, 4], 5)
    np.testing.assert_array_equal(found, [0.0, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_of_the_training_range(task, tmp_path):
    problem = FormalProblem(tiny(task, formal__min_length=2, formal__max_length=5), tmp_path)
    batch = jax.jit(problem.sample, static_argnums=1)(jax.random.key(0), 64, 0)
    allowed = {int(problem.task.input_length(n)) for n in range(2, 6)}
    assert set(np.asarray(batch.lengths).tolist()) == allowed
    problem = FormalProblem(tiny(task, formal__mixed_lengths=False), tmp_path)
    uniform = jax.jit(problem.sample, static_argnums=1)(jax.random.key(0), 16, 0)
    assert len(set(np.asarray(uniform.lengths).tolist())) == 1


def test_a_curriculum_grows_to_the_whole_range(tmp_path):
    config = tiny("even_pairs", formal__min_length=2, formal__max_length=10, formal__curriculum=0.5, train__steps=32)
    sample = jax.jit(FormalProblem(config, tmp_path).sample, static_argnums=1)
    longest = [int(sample(jax.random.key(0), 200, step).lengths.max()) for step in (0, 4, 8, 16, 31)]
    assert longest == [2, 4, 6, 10, 10]


def test_an_associativity_penalty_joins_the_loss(tmp_path):
    problems = [
        FormalProblem(tiny(model__cell="pr_lstm", formal__associativity=weight), tmp_path) for weight in (0.0, 2.0)
    ]
    model = problems[0].model(nnx.Rngs(params=jax.random.key(0)))

    @nnx.jit
    def run(model):
        batch = problems[0].sample(jax.random.key(1), 16, 0)
        losses = [p.loss(model, batch, nnx.Rngs(dropout=3))["loss"] / 16 for p in problems]
        xs, total = problems[0].task.frame(batch)
        return *losses, model.layer.associativity(xs, seq_lengths=total, rngs=nnx.Rngs(dropout=3))

    plain, both, penalty = run(model)
    assert penalty > 1e-4
    np.testing.assert_allclose(both - plain, 2 * penalty, rtol=1e-3)


def test_recall_accuracy_of_a_model_that_remembers(tmp_path):
    class First(nnx.Module):
        def __call__(self, ids, *, seq_lengths, rngs=None):
            return jax.nn.one_hot(ids[:, 0], 3)

    problem = RecallProblem(tiny("recall"), tmp_path)
    assert problem.accuracy(First(), jax.random.key(0), 9, 20) == 1.0


def test_classification_by_hand():
    """Rows are the true labels: a 3 of 4 right, b 1 of 2, c 0 of 1, and d neither true nor predicted."""
    confusion = np.array([[3, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    report = metrics.classification(confusion, ("a", "b", "c", "d"))
    assert report["accuracy"] == pytest.approx(4 / 7)
    assert report["examples"] == 7
    a = {"precision": 3 / 5, "recall": 3 / 4, "f1": 2 * 3 / (5 + 4), "support": 4}
    b = {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    none = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    for name, expected in {"a": a, "b": b, "c": none | {"support": 1}, "d": none | {"support": 0}}.items():
        assert report["classes"][name] == pytest.approx(expected)
    assert report["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 4)
    assert report["confusion_matrix"] == confusion.tolist()
