"""A problem, a model and data of the user's own, from Python, without a line in the package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.data.text import Examples, LoadReport
from qlstm_jax.nnx import GRU
from qlstm_jax.problems import Problem, TextProblem
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import evaluate, restore
from qlstm_jax.training.loop import train
from tests.training.conftest import tiny


class Echo(Problem):
    """Says the first bit of a sequence again."""

    def model(self, rngs):
        """A GRU and a readout."""
        return Reader(rngs)

    def sample(self, key, batch_size, step):
        """Bits (B, 5, 1)."""
        return jax.random.bernoulli(key, 0.5, (batch_size, 5, 1)).astype(jnp.float32)

    def loss(self, model, batch, rngs):
        """Squared error of the answer."""
        errors, count = model(batch) - batch[:, 0], jnp.float32(len(batch))
        right = jnp.sum(jnp.abs(errors) < 0.5).astype(jnp.float32)
        return {"loss": jnp.sum(errors**2), "weight": count, "correct": right, "count": count, "tokens": 5 * count}

    def validate(self, model, key):
        """Accuracy on 64 sequences."""
        sums = self.loss(model, self.sample(key, 64, 0), None)
        return {"accuracy": float(sums["correct"] / sums["count"])}

    def report(self, model, key, folder, options):
        """The same."""
        return self.validate(model, key)


class Reader(nnx.Module):
    def __init__(self, rngs, size=8):
        self.layer = GRU(1, size, rngs=rngs)
        self.head = nnx.Linear(size, 1, rngs=rngs)

    def __call__(self, xs):
        return self.head(self.layer.last(xs))


def test_an_own_problem_and_an_own_model(tmp_path):
    config = tiny("parity_check", train__steps=6)
    figures = train(config, tmp_path / "run", problem=Echo())
    assert 0 <= figures["accuracy"] <= 1
    report = evaluate(tmp_path / "run", problem=Echo())
    assert report["step"] == 6 and report["accuracy"] == figures["accuracy"]
    assert report["recurrent_parameters"] == 3 * 8 * 9 + 4 * 8

    own = {"problem": lambda config, workdir: Echo(), "model": lambda rngs: Reader(rngs, size=3)}
    train(config, tmp_path / "small", **own)
    _, _, model, step = restore(tmp_path / "small", **own)
    assert step == 6 and model.layer.hidden_features == 3
    with pytest.raises(ConfigError, match="problem is 'recal'"):
        train(tiny("parity_check", problem="recal"), tmp_path / "other")


def test_own_texts(tmp_path):
    rng = np.random.default_rng(0)

    def texts(count):
        labels = rng.integers(0, 2, count).astype(np.int32)
        words = tuple(f"{('dull', 'fine')[label]} film number {n}" for n, label in enumerate(labels))
        return Examples(words, labels, ("bad", "good"), LoadReport("mine", count, count))

    parts = {"train": texts(40), "validation": texts(8), "test": texts(8)}
    config = tiny("text", text__path="unread")
    figures = train(config, tmp_path, problem=lambda c, folder: TextProblem(c, folder, parts=parts))
    assert 0 <= figures["accuracy"] <= 1
    report = evaluate(tmp_path, problem=lambda c, folder: TextProblem(c, folder, parts=parts))
    assert (report["part"], report["examples"]) == ("test", 8)
