"""Cells inside `jax.shard_map` with its default checks: a batch split over devices gives what it gives on one."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from tests.cells import cases

B, T = 4, 7


@cases.MAIN
def test_outputs_and_gradients_equal_those_of_one_device(case):
    """With resets the numbers; without them the types alone, which tell what each device has for itself."""
    params, xs = case.params(), cases.sequence(B, T)
    lengths = jnp.array([7, 0, 4, 6])
    resets = jnp.asarray(np.random.default_rng(0).random((B, T)) < 0.3)

    def gradients(params, xs, lengths, resets):
        def loss(params, xs):
            _, ys = case.cell.unroll(params, xs, seq_lengths=lengths, resets=resets)
            return jnp.sum(jnp.sin(ys)), ys

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, xs)

    mesh = jax.make_mesh((2,), ("rows",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    split, specs = P("rows"), ((P(), P("rows")), P("rows"))
    mapped = jax.shard_map(gradients, mesh=mesh, in_specs=(P(), split, split, split), out_specs=specs)
    jax.eval_shape(mapped, params, xs, lengths, None)
    found, expected = (jax.jit(run)(params, xs, lengths, resets) for run in (mapped, gradients))
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@cases.MAIN
def test_devices_whose_streams_stand_at_different_places(case):
    """A step from there may go another way on each device; the gradient of the params is a sum over devices."""
    params, xs = case.params(), cases.sequence(B, T)
    carry, _ = jax.jit(case.cell.unroll)(params, xs, seq_lengths=jnp.array([3, 3, 6, 5]))

    def gradients(params, carry, x):
        return jax.grad(lambda params: jnp.sum(jnp.sin(case.cell.step(params, carry, x)[1])))(params)

    mesh = jax.make_mesh((2,), ("rows",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(gradients, mesh=mesh, in_specs=(P(), P("rows"), P("rows")), out_specs=P())
    found, expected = (jax.jit(run)(params, carry, xs[:, 0]) for run in (mapped, gradients))
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
