"""The training step: the program of one device, which `devices` maps over all of them and `meshes` lets be divided."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from qlstm_jax.problems.base import Batch, Problem
from qlstm_jax.shardings import split_rows, whole_weights
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.freezing import frozen, hold
from qlstm_jax.training.gradients import gradient, rounded

AXIS = "data"


class TrainState(NamedTuple):
    """All that a run needs to go on; but for the carry, the same on every device."""

    step: jax.Array  # () int32, steps done
    params: dict[str, Any]
    opt_state: optax.OptState
    key: jax.Array  # of the run; step t uses fold_in(key, t)
    carry: object = None  # from batch to batch, (B, ...) in every leaf, rows split over the devices; None without one
    average: dict[str, Any] | None = None  # of the parameters over the steps; None without one

    @property
    def final_params(self) -> dict[str, Any]:
        """The parameters that are evaluated: their average, where there is one."""
        return self.params if self.average is None else self.average


Step: TypeAlias = Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]  # of a state and a batch


def make_optimizer(train: ConfigDict) -> optax.GradientTransformation:
    """Makes an optimizer: clipping by global norm, then the one of a config's `train` section, with its schedule.

    Adafactor (arXiv 1804.04235) is optax's with its defaults: of a parameter with two axes of 128 or more it keeps the
    means of the squared gradients over rows and over columns, no momentum, and it moves a parameter by the rate times
    the parameter's own size. What is frozen is not moved, nor decayed, and has no moments.
    """
    peak, warmup = train.learning_rate, train.warmup_steps
    decay = max(train.steps - warmup, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, decay),
        "linear": optax.linear_schedule(peak, 0.0, decay),
    }[train.schedule]
    rate = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after
    optimizers = {
        "adam": partial(optax.adam, rate),
        "adamw": partial(optax.adamw, rate, weight_decay=train.weight_decay),
        "adafactor": partial(optax.adafactor, rate),
    }
    whole = optax.chain(optax.clip_by_global_norm(train.clip_norm), optimizers[train.optimizer]())
    if not train.freeze:
        return whole
    return optax.partition({False: whole, True: optax.set_to_zero()}, lambda params: frozen(params, train.freeze))


def initial_state(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    carry: Any = None,
    *,
    averaged: bool = False,
) -> TrainState:
    """Makes the state before the first step, of a new model; `carry` is the problem's `initial_carry`.

    `averaged` is whether the parameters are averaged over the steps, a config's train.average_decay > 0.
    """
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    # A carry may hold one array of zeros in several places, and a step that uses up its state takes each but once.
    carry = jax.tree.map(jnp.copy, carry)
    average = jax.tree.map(jnp.copy, params) if averaged else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), key, carry, average)


RECURRENT = ("recurrent_kernel", "merge_kernel")  # the parameters that weight dropout acts on


def drop_weights(params: Any, key: Key[Array, ""], rate: float) -> Any:
    """Sets each recurrent weight to 0 with probability `rate` and divides the others by 1 − rate.

    One mask serves all positions of a batch (DropConnect on the hidden-to-hidden maps, arXiv 1708.02182, section 2).

    Raises:
        ConfigError: if there are no recurrent kernels.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    chosen = [n for n, (path, _) in enumerate(leaves) if path[-1].key in RECURRENT]
    if not chosen:
        raise ConfigError(f"train.weight_dropout is {rate}; expected 0 for a model without {' or '.join(RECURRENT)}")
    values = [leaf for _, leaf in leaves]
    for n in chosen:
        kept = jax.random.bernoulli(jax.random.fold_in(key, n), 1 - rate, values[n].shape)
        values[n] = jnp.where(kept, values[n] / (1 - rate), jnp.zeros((), values[n].dtype))
    return jax.tree.unflatten(structure, values)


def averaged(average: Any, params: Any, step: Any, decay: float) -> Any:
    """Returns average + (1 − d) (params − average) with d = min(decay, (1 + step) / (10 + step)); None stays None.

    The minimum lets the average forget the first steps, which decay alone would not for 1 / (1 − decay) steps.
    """
    if average is None:
        return None
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: (a + rate * (p - a)).astype(a.dtype), average, params)


def device_step(
    problem: Problem,
    graphdef: nnx.GraphDef[Any],
    optimizer: optax.GradientTransformation,
    batch_size: int,
    state: TrainState,
    batch: Batch,
    axis: str | None = AXIS,
    *,
    weight_dropout: float = 0.0,
    average_decay: float = 0.0,
    freeze: str = "",
    accumulate: int = 1,
    param_dtype: str = "float32",
) -> tuple[TrainState, dict[str, Array]]:
    """Takes one step on one device, inside a mapped axis `axis`; None for a step that is all of it.

    The gradient is that of the mean over the whole batch: sums of loss and weight are averaged over the devices before
    one is divided by the other, so that devices with different numbers of valid rows count rightly. The state's carry
    is where this batch continues from, not what it is differentiated by: back-propagation ends at the batch's start.

    Args:
        problem: gives `sample` and `loss`, with a carry `continued_loss`.
        graphdef: the static part of the model, in training mode.
        optimizer: from `make_optimizer`.
        batch_size: of all devices together.
        state: the same on every device, but for its carry: that of this device's rows.
        batch: this device's rows; None where the problem draws its own.
        axis: over which gradients are averaged.
        weight_dropout: rate of `drop_weights`.
        average_decay: of the state's average, if it has one.
        freeze: parameters that have no gradient, as for `freezing.frozen`.
        accumulate: pieces in which a device's rows are computed one after another.
        param_dtype: of the parameters that the loss is computed with; the state has them in their own.

    Returns:
        (state, metrics), the same on every device but for the carry; metrics hold the scalars loss, accuracy (where the
        problem counts it), grad_norm and tokens.
    """
    sample_key, model_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    device, devices = (0, 1) if axis is None else (jax.lax.axis_index(axis), jax.lax.axis_size(axis))
    if batch is None:
        # Every device draws the whole batch and keeps its part: the run is the same on any number of devices.
        batch, rows = problem.sample(sample_key, batch_size, state.step), batch_size // devices
        if devices > 1:
            batch = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, device * rows, rows), batch)

    def loss(params: Any, batch: Batch, carry: Any, dropout_key: Any) -> tuple[Array, Any]:
        params = whole_weights(rounded(hold(params, freeze), param_dtype))
        batch, carry = split_rows((batch, carry))
        if weight_dropout:  # the same weights on every device
            params = drop_weights(params, jax.random.fold_in(model_key, devices), weight_dropout)
        model, rngs = nnx.merge(graphdef, params), nnx.Rngs(dropout=dropout_key)
        if carry is None:
            sums = problem.loss(model, batch, rngs)
        else:
            sums, carry = problem.continued_loss(model, batch, rngs, carry)
        return sums["loss"], (sums, carry)

    dropout_key = jax.random.fold_in(model_key, device)
    grads, sums, carry = gradient(loss, state.params, batch, state.carry, dropout_key, accumulate)
    if devices > 1:  # XLA would keep even a mean over one device
        grads, sums = jax.lax.pmean((grads, sums), axis)
    grads = jax.tree.map(lambda g: g / sums["weight"].astype(g.dtype), grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
        "loss": sums["loss"] / sums["weight"],
        "grad_norm": optax.tree.norm(grads),
        "tokens": sums["tokens"] * devices,
    }
    if "correct" in sums:
        metrics["accuracy"] = sums["correct"] / sums["count"]
    average = averaged(state.average, params, state.step, average_decay)
    return TrainState(state.step + 1, params, opt_state, state.key, carry, average), metrics


def configured_step(
    problem: Problem,
    graphdef: nnx.GraphDef[Any],
    optimizer: optax.GradientTransformation,
    train: ConfigDict,
    axis: str | None = AXIS,
) -> Step:
    """Returns `device_step` as a config's `train` section says: a function of a state and a batch."""
    return partial(
        device_step,
        problem,
        graphdef,
        optimizer,
        train.batch_size,
        axis=axis,
        weight_dropout=train.weight_dropout,
        average_decay=train.average_decay,
        freeze=train.freeze,
        accumulate=train.accumulate,
        param_dtype=train.param_dtype,
    )
