"""The training step: written once as the program of one device, and mapped over all of them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from qlstm_jax.training.config import ConfigError

AXIS = "data"


class TrainState(NamedTuple):
    """All that a run needs to go on, the same on every device."""

    step: jax.Array  # () int32, steps done
    params: dict
    opt_state: optax.OptState
    key: jax.Array  # of the run; step t uses fold_in(key, t)


def make_optimizer(train) -> optax.GradientTransformation:
    """Clipping by global norm, then Adam or AdamW with the schedule of a config's `train` section."""
    peak, warmup = train.learning_rate, train.warmup_steps
    decay = max(train.steps - warmup, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, decay),
        "linear": optax.linear_schedule(peak, 0.0, decay),
    }[train.schedule]
    rate = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after
    adam = optax.adamw(rate, weight_decay=train.weight_decay) if train.optimizer == "adamw" else optax.adam(rate)
    return optax.chain(optax.clip_by_global_norm(train.clip_norm), adam)


def initial_state(model, optimizer, key) -> TrainState:
    """The state before the first step, of a new model."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), key)


def device_step(problem, graphdef, optimizer, batch_size: int, state: TrainState, batch, axis: str | None = AXIS):
    """One step on one device, inside a mapped axis `axis`; None for a step that is all of it.

    The gradient is that of the mean over the whole batch: sums of loss and weight are averaged over the devices before
    one is divided by the other, so that devices with different numbers of valid rows count rightly.

    Args:
        problem: gives `sample` and `loss`.
        graphdef: the static part of the model, in training mode.
        optimizer: from `make_optimizer`.
        batch_size: of all devices together.
        state: the same on every device.
        batch: this device's rows; None where the problem draws its own.
        axis: over which gradients are averaged.

    Returns:
        (state, metrics), the same on every device; metrics hold the scalars loss, accuracy, grad_norm and tokens.
    """
    sample_key, model_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    device, devices = (0, 1) if axis is None else (jax.lax.axis_index(axis), jax.lax.axis_size(axis))
    if batch is None:
        # Every device draws the whole batch and keeps its part: the run is the same on any number of devices.
        batch, rows = problem.sample(sample_key, batch_size, state.step), batch_size // devices
        if devices > 1:
            batch = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, device * rows, rows), batch)

    def loss(params):
        rngs = nnx.Rngs(dropout=jax.random.fold_in(model_key, device))
        sums = problem.loss(nnx.merge(graphdef, params), batch, rngs)
        return sums["loss"], sums

    grads, sums = jax.grad(loss, has_aux=True)(state.params)
    if devices > 1:  # XLA would keep even a mean over one device
        grads, sums = jax.lax.pmean((grads, sums), axis)
    grads = jax.tree.map(lambda g: g / sums["weight"].astype(g.dtype), grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
        "loss": sums["loss"] / sums["weight"],
        "accuracy": sums["correct"] / sums["count"],
        "grad_norm": optax.global_norm(grads),
        "tokens": sums["tokens"] * devices,
    }
    return TrainState(state.step + 1, params, opt_state, state.key), metrics


def choose_devices(num_devices: int, batch_size: int) -> list:
    """The first `num_devices` local devices, or all for 0.

    Raises:
        ConfigError: if there are fewer, a negative number, or if they do not divide the batch.
    """
    local = jax.local_devices()
    if not 0 <= num_devices <= len(local):
        raise ConfigError(f"train.num_devices is {num_devices}; expected 0 (all) to {len(local)} local devices")
    devices = local[: num_devices or len(local)]
    if batch_size % len(devices):
        raise ConfigError(
            f"train.batch_size is {batch_size}; expected a multiple of {len(devices)}, the number of devices "
            "(or fewer devices: --config.train.num_devices=1)"
        )
    return devices


def map_step(step: Callable, mapping: str, devices: list) -> Callable:
    """The mapped and compiled form of `step(state, batch) -> (state, metrics)`, a per-device program.

    Args:
        step: uses the axis `AXIS`.
        mapping: "shard_map" or "pmap".
        devices: to run on.

    Returns:
        A function of a state and a batch of all devices' rows (numpy or jax arrays, or None) to the next state and
        the metrics, both as plain arrays. The state that it is given is used up under "shard_map".
    """
    if mapping == "pmap":
        # pmap wants an array to map over even where the batch is None: the third argument, which has no elements.
        mapped = jax.pmap(
            lambda state, rows, _: step(state, rows),
            axis_name=AXIS,
            in_axes=(None, 0, 0),
            out_axes=None,
            devices=devices,
        )

        def run(state, batch):
            parts = jax.tree.map(lambda a: a.reshape(len(devices), -1, *a.shape[1:]), batch)
            return mapped(state, parts, np.empty((len(devices), 0)))

        return run
    mesh = Mesh(np.asarray(devices), (AXIS,))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(), check_vma=False)
    compiled = jax.jit(mapped, donate_argnums=0)
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    return lambda state, batch: compiled(jax.device_put(state, everywhere), jax.device_put(batch, split))


def make_step(problem, graphdef, optimizer, train) -> Callable:
    """The step of a run: `map_step` of `device_step` as a config's `train` section says."""
    devices = choose_devices(train.num_devices, train.batch_size)
    step = partial(device_step, problem, graphdef, optimizer, train.batch_size)
    return map_step(step, train.mapping, devices)
