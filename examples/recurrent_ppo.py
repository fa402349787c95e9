"""Proximal policy optimisation (arXiv 1707.06347) with a recurrent agent and episode resets.

    python examples/recurrent_ppo.py --cell GRU --corridor 8

The agent acts by the cell's `step`, one token at a time with its carry, and learns by the layer's call over the same
tokens at once. Episodes end in the middle of a rollout: `resets` says where, so that no episode reads another's state,
and the log-probabilities of both ways are equal. The task needs memory: a signal at the start of a corridor says which
way to turn at its end. Without memory half of the turns are right, a return of 0.
"""

import argparse
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from qlstm_jax import nnx as layers

DISCOUNT, TRACE = 0.99, 0.95  # γ and λ of generalised advantage estimation (arXiv 1506.02438)
CLIP, ENTROPY, VALUE = 0.2, 0.01, 0.5
FEATURES, ACTIONS = 3, 2  # observed: the signal at the start, ±1, later 0; at the start; at the end. Turns: left, right


class Maze(NamedTuple):
    """Corridors, one for each of B agents."""

    signal: jax.Array  # (B,) 0 or 1, the turn that is right
    place: jax.Array  # (B,) int32, steps from the start


def enter(key: jax.Array, batch: int) -> Maze:
    """New corridors."""
    return Maze(jax.random.bernoulli(key, shape=(batch,)).astype(jnp.int32), jnp.zeros((batch,), jnp.int32))


def observe(maze: Maze, corridor: int) -> jax.Array:
    """(B, FEATURES)."""
    start, end = maze.place == 0, maze.place == corridor - 1
    return jnp.stack([jnp.where(start, 2.0 * maze.signal - 1, 0.0), start, end], axis=-1)


def move(key: jax.Array, maze: Maze, action: jax.Array, corridor: int) -> tuple[Maze, jax.Array, jax.Array]:
    """(maze, reward, whether the episode ended): ±1 for the turn at the end, then another corridor begins."""
    done = maze.place == corridor - 1
    reward = jnp.where(done, jnp.where(action == maze.signal, 1.0, -1.0), 0.0)
    fresh, onward = enter(key, done.shape[0]), maze._replace(place=maze.place + 1)
    return jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, onward), reward, done


class Agent(nnx.Module):
    """A recurrent layer with two heads: logits of the actions and the value of the state."""

    def __init__(self, cell: str, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.layer = getattr(layers, cell)(FEATURES, hidden, rngs=rngs)
        self.policy = nnx.Linear(hidden, ACTIONS, kernel_init=nnx.initializers.normal(0.01), rngs=rngs)
        self.value = nnx.Linear(hidden, 1, rngs=rngs)

    def heads(self, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(log-probabilities of the actions, value)."""
        return jax.nn.log_softmax(self.policy(h)), self.value(h)[..., 0]

    def act(self, carry: Any, observed: jax.Array, reset: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        """One token a row: (carry, log-probabilities (B, A), value (B,)); where `reset`, an episode begins."""
        (params,), functions = self.layer.layer_params()[0], self.layer.functions
        carry, h = functions.step(params, carry, observed, reset=reset)
        return carry, *self.heads(h)

    def read(self, carry: Any, observed: jax.Array, resets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Whole rollouts (B, T, D): log-probabilities (B, T, A) and values (B, T), equal to those of `act`."""
        return self.heads(self.layer(observed, initial_carry=carry, resets=resets))


class Rollout(NamedTuple):
    """T steps of B agents, (B, T, ...)."""

    observed: jax.Array
    resets: jax.Array  # whether an episode begins with this step
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array


class Acting(NamedTuple):
    """What passes from one rollout to the next."""

    maze: Maze
    carry: Any
    reset: jax.Array  # (B,) whether the next step begins an episode


def start_acting(agent: Agent, key: jax.Array, batch: int) -> Acting:
    """Agents at the start of their corridors."""
    return Acting(enter(key, batch), agent.layer.initialize_carry(batch), jnp.ones((batch,), bool))


def roll_out(agent: Agent, acting: Acting, key: jax.Array, steps: int, corridor: int) -> tuple[Acting, Rollout, Any]:
    """(where it ends, the rollout, the value (B,) of the state after it)."""

    def one(acting: Acting, key: jax.Array) -> tuple[Acting, Rollout]:
        act_key, move_key = jax.random.split(key)
        observed = observe(acting.maze, corridor)
        carry, log_probs, value = agent.act(acting.carry, observed, acting.reset)
        action = jax.random.categorical(act_key, log_probs)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]
        maze, reward, done = move(move_key, acting.maze, action, corridor)
        return Acting(maze, carry, done), Rollout(observed, acting.reset, action, log_prob, value, reward, done)

    end, rollout = jax.lax.scan(one, acting, jax.random.split(key, steps))
    _, _, value = agent.act(end.carry, observe(end.maze, corridor), end.reset)
    return end, jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), rollout), value


def advantages(rollout: Rollout, last_value: jax.Array) -> jax.Array:
    """A_t = δ_t + γ λ (1 − done_t) A_{t+1}, δ_t = r_t + γ (1 − done_t) V_{t+1} − V_t; (B, T)."""
    following = jnp.concatenate([rollout.value[:, 1:], last_value[:, None]], axis=1)
    alive = 1.0 - rollout.done
    delta = rollout.reward + DISCOUNT * alive * following - rollout.value

    def back(advantage: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        advantage = at[0] + DISCOUNT * TRACE * at[1] * advantage
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(last_value), (delta.T, alive.T), reverse=True)[1].T


def loss(agent: Agent, carry: Any, rollout: Rollout, advantage: jax.Array) -> jax.Array:
    """The clipped objective, the squared error of the value, and the entropy."""
    log_probs, value = agent.read(carry, rollout.observed, rollout.resets)
    log_prob = jnp.take_along_axis(log_probs, rollout.action[..., None], axis=-1)[..., 0]
    ratio = jnp.exp(log_prob - rollout.log_prob)
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
    gain = jnp.minimum(ratio * scaled, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * scaled)
    error = (value - (rollout.value + advantage)) ** 2
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return jnp.mean(VALUE * error - gain - ENTROPY * entropy)


def train(
    cell: str,
    *,
    hidden: int = 32,
    corridor: int = 8,
    batch: int = 64,
    steps: int = 32,
    updates: int = 60,
    seed: int = 0,
) -> list[float]:
    """The mean return of the episodes of each rollout."""
    agent = Agent(cell, hidden, rngs=nnx.Rngs(seed))
    optimizer = nnx.Optimizer(agent, optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-3)), wrt=nnx.Param)
    start_key, key = jax.random.split(jax.random.key(seed))
    acting = start_acting(agent, start_key, batch)

    @nnx.jit
    def update(agent: Agent, optimizer: nnx.Optimizer, acting: Acting, key: jax.Array) -> tuple[Acting, jax.Array]:
        end, rollout, last_value = roll_out(agent, acting, key, steps, corridor)
        advantage = advantages(rollout, last_value)
        for _ in range(4):  # epochs over the rollout
            optimizer.update(agent, nnx.grad(loss)(agent, acting.carry, rollout, advantage))
        return end, jnp.sum(rollout.reward) / jnp.maximum(jnp.sum(rollout.done), 1)

    returns = []
    for number in range(updates):
        acting, mean = update(agent, optimizer, acting, jax.random.fold_in(key, number))
        returns.append(float(mean))
    return returns


def main() -> None:
    """Prints the mean return of every tenth rollout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="GRU", help="a layer of qlstm_jax.nnx that has a carry")
    parser.add_argument("--corridor", type=int, default=8)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    returns = train(args.cell, corridor=args.corridor, updates=args.updates, seed=args.seed)
    for number in range(0, len(returns), 10):
        print(f"rollout {number:4d}  mean return {returns[number]:+.2f}")
    print(f"last rollout   mean return {returns[-1]:+.2f}")


if __name__ == "__main__":
    main()
