"""The devices of a run, and the training step mapped over them."""

from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array
from ml_collections import ConfigDict

from qlstm_jax.problems.base import Batch, Problem
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.step import AXIS, Step, TrainState, configured_step


def choose_devices(num_devices: int, batch_size: int, accumulate: int = 1) -> list[jax.Device]:
    """The first `num_devices` local devices, or all for 0.

    Raises:
        ConfigError: if there are fewer, a negative number, or if they do not divide the batch, or its pieces.
    """
    local: list[jax.Device] = jax.local_devices()
    if not 0 <= num_devices <= len(local):
        raise ConfigError(f"train.num_devices is {num_devices}; expected 0 (all) to {len(local)} local devices")
    devices = local[: num_devices or len(local)]
    check_batch(batch_size, len(devices), accumulate)
    return devices


def check_batch(batch_size: int, number: int, accumulate: int) -> None:
    """Raises ConfigError unless `number` devices divide each of the pieces that a batch is computed in."""
    if batch_size % (number * accumulate):
        pieces = f" times train.accumulate, {accumulate}" if accumulate > 1 else ""
        raise ConfigError(
            f"train.batch_size is {batch_size}; expected a multiple of {number * accumulate}, the number of devices"
            f"{pieces} (or fewer devices: --config.train.num_devices=1, on a mesh --config.parallel.mesh=data:1)"
        )


def map_step(step: Step, mapping: str, devices: list[jax.Device]) -> Step:
    """The mapped and compiled form of `step(state, batch) -> (state, metrics)`, a per-device program.

    Args:
        step: uses the axis `AXIS`.
        mapping: "shard_map", for which "" stands too, or "pmap".
        devices: to run on.

    Returns:
        A function of a state and a batch of all devices' rows (numpy or jax arrays, or None) to the next state and
        the metrics, both as plain arrays. The state that it is given is used up under "shard_map".
    """
    if mapping == "pmap":
        return _pmap_step(step, devices)
    mesh = Mesh(np.asarray(devices), (AXIS,))
    specs = _by_part(P(), P(AXIS))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(specs, P(AXIS)), out_specs=(specs, P()), check_vma=False)
    compiled = jax.jit(mapped, donate_argnums=0)
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    places = _by_part(everywhere, split)
    return lambda state, batch: compiled(jax.device_put(state, places), jax.device_put(batch, split))


def _by_part(same: Any, split: Any) -> TrainState:
    """Returns `same` for what is the same on every device, `split` for what each has its rows of."""
    return TrainState(step=same, params=same, opt_state=same, key=same, carry=split, average=same)


def _pmap_step(step: Step, devices: list[jax.Device]) -> Step:
    # pmap wants an array to map over even where the batch is None: the third argument, which has no elements.
    mapped = jax.pmap(
        lambda state, rows, _: step(state, rows),
        axis_name=AXIS,
        in_axes=(_by_part(None, 0), 0, 0),
        out_axes=(_by_part(None, 0), None),
        devices=devices,
    )

    def parts(rows: Any) -> Any:
        return jax.tree.map(lambda a: a.reshape(len(devices), -1, *a.shape[1:]), rows)

    def run(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        state = state._replace(carry=parts(state.carry))
        state, metrics = mapped(state, parts(batch), np.empty((len(devices), 0)))
        return state._replace(carry=jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), state.carry)), metrics

    return run


def make_step(
    problem: Problem, graphdef: nnx.GraphDef[Any], optimizer: optax.GradientTransformation, train: ConfigDict
) -> Step:
    """The step of a run on its devices: `map_step` of `configured_step`."""
    devices = choose_devices(train.num_devices, train.batch_size, train.accumulate)
    return map_step(configured_step(problem, graphdef, optimizer, train), train.mapping, devices)
