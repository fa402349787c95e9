"""A run on a mesh of devices, `parallel.mesh`: the mesh, the state cut over it, the step that the compiler divides."""

import contextlib
import math
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array
from ml_collections import ConfigDict

from qlstm_jax import shardings
from qlstm_jax.problems.base import Batch, Problem
from qlstm_jax.training import devices as local_devices
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.devices import check_batch, choose_devices
from qlstm_jax.training.hosts import place_rows, several
from qlstm_jax.training.mesh_axes import parse
from qlstm_jax.training.step import Step, TrainState, configured_step


def make_mesh(config: ConfigDict) -> Mesh | None:
    """Makes the mesh of a run; None where its step is mapped over the devices by hand.

    train.mapping=jit without a mesh has one of data alone, over train.num_devices.

    Raises:
        ConfigError: if there are fewer devices, or if they do not divide the batch.
    """
    text, train = config.parallel.mesh, config.train
    if several() and (not text or math.prod(parse(text).values()) != jax.device_count()):
        raise ConfigError(
            f"parallel.mesh is {text!r} in a run of {jax.process_count()} processes; expected a mesh of all their "
            f"{jax.device_count()} devices, such as data:{jax.device_count()}"
        )
    if not text:
        devices = choose_devices(train.num_devices, train.batch_size, train.accumulate)
        return _mesh({"data": len(devices)}, devices) if train.mapping == "jit" else None
    sizes = parse(text)
    number, there = math.prod(sizes.values()), jax.devices()
    if number > len(there):
        raise ConfigError(
            f"parallel.mesh is {text!r}, of {number} devices; expected at most {len(there)}, those that are here: "
            "another --config.parallel.mesh, or an empty one for none"
        )
    check_batch(train.batch_size, number, train.accumulate)
    return _mesh(sizes, there[:number])


def _mesh(sizes: dict[str, int], devices: list[jax.Device]) -> Mesh:
    shape = tuple(sizes.values())
    return Mesh(np.asarray(devices).reshape(shape), tuple(sizes), axis_types=(AxisType.Auto,) * len(shape))


def places(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns the sharding of each array of a state, of arrays or of shapes alone."""
    same: Any = NamedSharding(mesh, P())
    rows = NamedSharding(mesh, shardings.rows_spec(mesh))

    def weights(tree: Any) -> Any:
        return jax.tree.map(lambda a: NamedSharding(mesh, shardings.weights_spec(mesh, a.shape)), tree)

    return TrainState(
        step=same,
        params=weights(state.params),
        opt_state=weights(state.opt_state),
        key=same,
        carry=jax.tree.map(lambda _: rows, state.carry),
        average=weights(state.average),
    )


def divided_step(step: Step, mesh: Mesh) -> Any:
    """Returns `step(state, batch)`, the program of one device, as one for `jax.set_mesh(mesh)` to compile.

    It leaves the state as `places` says; the state that it is given is used up.
    """

    def divided(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        state, metrics = step(state, batch)
        return jax.lax.with_sharding_constraint(state, places(state, mesh)), metrics

    return jax.jit(divided, donate_argnums=0)


def mesh_step(step: Step, mesh: Mesh) -> Step:
    """Compiles `step(state, batch)`, the program of one device, divided by the compiler over a mesh.

    Returns:
        A function of a state and a batch of all rows (numpy or jax arrays, or None) to the next state, cut as `places`
        says, and the metrics, the same on every device. The state that it is given is used up.
    """
    rows, compiled = NamedSharding(mesh, shardings.rows_spec(mesh)), divided_step(step, mesh)

    def run(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        with jax.set_mesh(mesh):
            state = jax.device_put(state, places(state, mesh))
            return compiled(state, place_rows(batch, rows))  # type: ignore[no-any-return]

    return run


def make_step(
    problem: Problem,
    graphdef: nnx.GraphDef[Any],
    optimizer: optax.GradientTransformation,
    train: ConfigDict,
    mesh: Mesh | None,
) -> Step:
    """Makes the step of a run, on its mesh or mapped over its devices."""
    if mesh is None:
        return local_devices.make_step(problem, graphdef, optimizer, train)
    return mesh_step(configured_step(problem, graphdef, optimizer, train, axis=None), mesh)


def using(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Makes the mesh that of all programs in a `with`; None changes nothing."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def everywhere(params: Any, mesh: Mesh | None) -> Any:
    """Returns parameters whole on every device of the mesh, as an evaluation reads them."""
    if mesh is None:
        return params
    # A program, as device_put does not reach the devices of other processes.
    return jax.jit(_same, out_shardings=NamedSharding(mesh, P()))(params)


def _same(tree: Any) -> Any:
    return tree
