"""The associative recall problem: what counts, and a run through the trainer and the evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qlstm_jax.problems import MQARProblem
from tests.training.conftest import tiny

SMALL = {"mqar__length": 9, "mqar__num_pairs": 2, "mqar__num_keys": 4, "mqar__num_values": 3}


def test_only_questions_count(tmp_path):
    problem = MQARProblem(tiny("mqar", **SMALL), tmp_path)
    batch = problem.sample(jax.random.key(0), 6, 0)

    def knows(ids, rngs=None):
        """The right value at questions, a wrong one elsewhere; the first row is wrong in both of its questions."""
        right = jnp.where(batch.mask > 0, batch.targets, (batch.targets + 1) % 3)
        right = right.at[0].set((batch.targets[0] + 1) % 3)
        return 20.0 * jax.nn.one_hot(right, 3)

    sums = problem.loss(knows, batch, None)
    assert (sums["weight"], sums["count"], sums["correct"], sums["tokens"]) == (12, 12, 10, 54)
    np.testing.assert_allclose(sums["loss"], 2 * 20, rtol=1e-4)


def test_accuracy_of_a_model_that_guesses_one_value(tmp_path):
    problem = MQARProblem(tiny("mqar", **SMALL), tmp_path)
    model = problem.model(nnx.Rngs(0))
    model.head.kernel[...] = 0 * model.head.kernel[...]
    model.head.bias[...] = jnp.array([0.0, 1.0, 0.0])
    assert abs(problem.accuracy(model, jax.random.key(0), 9, 600) - 1 / 3) < 0.06
