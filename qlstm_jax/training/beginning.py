"""A run before its first step: its keys, its state, and what the state will be like before any of it is computed."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import optax
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from qlstm_jax.problems.base import Problem
from qlstm_jax.training.meshes import everywhere, places
from qlstm_jax.training.step import TrainState, initial_state

Keys: TypeAlias = Key[Array, " 3"]  # from `run_keys`
Make: TypeAlias = Callable[[Keys], TrainState]


def run_keys(seed: int) -> Keys:
    """Returns the keys of a run: initial parameters, training steps, evaluation."""
    return jax.random.split(jax.random.key(seed), 3)


def first_state(
    problem: Problem, config: ConfigDict, optimizer: optax.GradientTransformation, keys: Keys
) -> TrainState:
    """Returns the state of a new run before its first step."""
    init_key, train_key, _ = keys
    model = problem.model(nnx.Rngs(params=init_key))
    carry = problem.initial_carry(model, config.train.batch_size)
    return initial_state(model, optimizer, train_key, carry, averaged=config.train.average_decay > 0)


def static_model(problem: Problem) -> nnx.Module:
    """Returns the problem's model without its arrays."""
    model: nnx.Module = nnx.eval_shape(lambda: problem.model(nnx.Rngs(params=0)))
    return model


def expected(make: Make, keys: Keys, mesh: Mesh | None) -> TrainState:
    """Returns the state that `make` would compute as shapes, with where each array belongs; the key alone is real."""
    shapes = jax.eval_shape(make, keys)
    if mesh is None:
        here = SingleDeviceSharding(jax.local_devices()[0])
        where = jax.tree.map(lambda _: here, shapes)
    else:
        where = places(shapes, mesh)
    shapes = jax.tree.map(lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), shapes, where)
    like: TrainState = shapes._replace(key=keys[1] if mesh is None else everywhere(keys[1], mesh))
    return like


def initial(make: Make, keys: Keys, mesh: Mesh | None) -> TrainState:
    """Returns the state that `make` computes, as one program; on a mesh no device has more than its part."""
    where = None if mesh is None else places(jax.eval_shape(make, keys), mesh)
    state: TrainState = jax.jit(make, out_shardings=where)(keys)
    return state
