import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx


def load(name):
    path = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ppo():
    return load("recurrent_ppo")


@pytest.mark.parametrize("cell", ["GRU", "QLSTM", "MLSTM"])
def test_an_agent_learns_from_the_states_in_which_it_acted(cell, ppo):
    """Two rollouts, episodes of 3 steps in rollouts of 7: the second begins in the middle of an episode."""
    agent = ppo.Agent(cell, 8, rngs=nnx.Rngs(0))
    acting = ppo.start_acting(agent, jax.random.key(0), 4)
    roll_out = nnx.jit(lambda agent, acting, key: ppo.roll_out(agent, acting, key, 7, 3))
    for key in jax.random.split(jax.random.key(1)):
        start = acting
        acting, rollout, _ = roll_out(agent, start, key)
    assert not rollout.resets[:, 0].any() and (rollout.resets.sum(axis=1) == 2).all()
    log_probs, value = nnx.jit(type(agent).read)(agent, start.carry, rollout.observed, rollout.resets)
    chosen = np.take_along_axis(np.asarray(log_probs), np.asarray(rollout.action)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, rollout.log_prob, atol=1e-5)
    np.testing.assert_allclose(value, rollout.value, atol=1e-5)


def test_advantages_by_hand(ppo):
    rollout = ppo.Rollout(
        observed=None,
        resets=None,
        action=None,
        log_prob=None,
        value=np.array([[0.5, 0.25, 1.0]]),
        reward=np.array([[0.0, 1.0, 0.0]]),
        done=np.array([[0.0, 1.0, 0.0]]),
    )
    last = 0.99 * 2.0 - 1.0
    middle = 1.0 - 0.25
    first = 0.99 * 0.25 - 0.5 + 0.99 * 0.95 * middle
    np.testing.assert_allclose(ppo.advantages(rollout, np.array([2.0])), [[first, middle, last]], rtol=1e-6)


def test_an_agent_learns_to_remember(ppo):
    returns = ppo.train("GRU", corridor=3, steps=12, updates=30)
    assert np.mean(returns[-5:]) > 0.9
