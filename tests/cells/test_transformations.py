"""Every cell under every transformation of JAX that users meet; docs/transformations.md has the table."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from qlstm_jax.cells import min_gru, min_lstm, mlstm, pr_lstm
from tests.cells import cases

B, T = 2, 7
TREES = (pr_lstm, min_lstm, min_gru)  # the number of levels, and so the program, depends on T


def outputs(case, params, xs, **options):
    return case.cell.unroll(params, xs, **options)[1]


def loss(case, params, xs, **options):
    return jnp.sum(jnp.sin(outputs(case, params, xs, **options)))


def inputs(case, batch=B, steps=T):
    return case.params(), cases.sequence(batch, steps)


def differentiable(case):
    """Options under which the cell has derivatives in any mode."""
    return {"plain": True} if "plain" in inspect.signature(case.cell.unroll).parameters else {}


def close(found, expected, atol=2e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), atol=atol)


def jit_with_constant_lengths(case):
    params, xs = inputs(case)
    lengths = jnp.array([3, T])

    def run(xs):
        carry, ys = case.cell.unroll(params, xs, seq_lengths=lengths)
        return ys, case.cell.step(params, carry, xs[:, 0])

    close(jax.jit(run)(xs), run(xs))


def vmap_over_params(case):
    xs = cases.sequence(B, T)
    several = [case.params(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *several)
    run = functools.partial(case.cell.unroll, xs=xs, seq_lengths=jnp.array([3, T]))
    found = jax.jit(jax.vmap(run))(stacked)
    close(found, jax.tree.map(lambda *a: jnp.stack(a), *map(jax.jit(run), several)))


def vmap_over_sequences(case):
    params, xs = inputs(case)
    found = jax.vmap(lambda row: outputs(case, params, row[None])[0])(xs)
    close(found, outputs(case, params, xs))


def forward_mode(case):
    """`jvp` and `linearize` against a difference quotient, and reverse mode against both."""
    params, xs = inputs(case)
    run = jax.jit(lambda xs: loss(case, params, xs, **differentiable(case)))
    along = cases.sequence(B, T, seed=9)
    _, tangent = jax.jvp(run, (xs,), (along,))
    _, linear = jax.linearize(run, xs)
    gradient = jax.grad(lambda xs: loss(case, params, xs))(xs)
    close((tangent, linear(along)), (jnp.vdot(gradient, along),) * 2, atol=1e-4)
    quotient = (run(xs + 1e-2 * along) - run(xs - 1e-2 * along)) / 2e-2
    close(tangent, quotient, atol=1e-2)


def hessian_vector_product(case):
    params, xs = inputs(case)
    along = cases.sequence(B, T, seed=9)

    def product(**options):
        gradient = jax.grad(lambda xs: loss(case, params, xs, **options))
        return jax.jit(lambda xs: jax.jvp(gradient, (xs,), (along,))[1])(xs)

    found = product()
    if differentiable(case):
        close(found, product(**differentiable(case)), atol=1e-4)
    else:
        gradient = jax.jit(jax.grad(lambda xs: loss(case, params, xs)))
        close(found, (gradient(xs + 1e-2 * along) - gradient(xs - 1e-2 * along)) / 2e-2, atol=1e-2)


def checkpoint(case):
    params, xs = inputs(case)
    kept, again = (jax.jit(jax.grad(f, argnums=1)) for f in (loss_of(case), jax.checkpoint(loss_of(case))))
    close(again(params, xs), kept(params, xs))


def loss_of(case):
    return lambda params, xs: loss(case, params, xs)


def scan_over_layers(case):
    """Layers of one shape as one scan, each reading the outputs of the one below."""
    xs = jnp.asarray(np.random.default_rng(2).normal(size=(B, T, cases.H)), jnp.float32)
    shape = jax.eval_shape(lambda: case.cell.init(jax.random.key(0), cases.H, cases.H, **dict(case.options)))

    def draw(n):
        return jax.tree.map(lambda a: 0.3 * jnp.cos(jnp.arange(a.size) + n).reshape(a.shape), shape)

    several = [draw(0), draw(1)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *several)
    found = jax.jit(lambda xs: jax.lax.scan(lambda ys, params: (outputs(case, params, ys), None), xs, stacked)[0])(xs)
    close(found, outputs(case, several[1], outputs(case, several[0], xs)))


def pmap(case):
    params, xs = inputs(case, 4)
    found = jax.pmap(lambda xs: outputs(case, params, xs), devices=jax.devices()[:2])(xs.reshape(2, 2, T, -1))
    close(found.reshape(4, T, -1), outputs(case, params, xs))


def eval_shape(case):
    params, xs = inputs(case)
    shape = jax.eval_shape(lambda params, xs: case.cell.unroll(params, xs), params, xs)
    found = case.cell.unroll(params, xs)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), shape) == jax.tree.map(lambda a: (a.shape, a.dtype), found)


def strict_promotion(case):
    params, xs = case.params(dtype="bfloat16"), cases.sequence(B, T)
    with jax.numpy_dtype_promotion("strict"):
        gradient = jax.jit(jax.grad(loss_of(case), argnums=1))(params, xs)
    assert np.isfinite(gradient).all()


def no_transfers(case):
    params, xs = inputs(case)
    run = jax.jit(jax.grad(loss_of(case)))
    jax.block_until_ready(run(params, xs))
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(run(params, xs))


def debug_nans(case):
    params, xs = inputs(case)
    with jax.debug_nans(True):
        jax.block_until_ready(jax.jit(jax.grad(loss_of(case)))(params, xs))


def donation(case):
    params, xs = inputs(case)
    expected = outputs(case, params, xs)
    carry, _ = case.cell.unroll(params, xs[:, :3])

    def advance(carry, xs):
        return case.cell.unroll(params, xs, carry=carry)

    donating = jax.jit(advance, donate_argnums=0)
    _, ys = donating(jax.tree.map(jnp.copy, carry), xs[:, 3:])
    close(ys, expected[:, 3:])


def no_rows(case):
    params, xs = inputs(case, 0)
    _, ys = jax.jit(case.cell.unroll)(params, xs, seq_lengths=jnp.zeros((0,), jnp.int32))
    assert ys.shape == (0, T, cases.H)
    gradient = jax.jit(jax.grad(loss_of(case)))(params, xs)
    close(gradient, jax.tree.map(jnp.zeros_like, params))


def no_tokens(case):
    params, xs = inputs(case, B, 0)
    carry, ys = case.cell.unroll(params, xs)
    assert ys.shape == (B, 0, cases.H)
    close(carry, case.cell.initial_carry(params, B))
    close(jax.grad(loss_of(case))(params, xs), jax.tree.map(jnp.zeros_like, params))


def exported(case, params, *shape):
    run = jax.jit(lambda xs: outputs(case, params, xs))
    serialized = export.export(run)(jax.ShapeDtypeStruct((*shape, cases.D), jnp.float32)).serialize()
    return export.deserialize(serialized).call


def export_with_any_batch(case):
    params, _ = inputs(case)
    (batch,) = export.symbolic_shape("batch")
    call = exported(case, params, batch, T)
    for rows in (1, 3):
        xs = cases.sequence(rows, T)
        close(call(xs), outputs(case, params, xs))


def export_with_any_length(case):
    params, _ = inputs(case)
    batch, steps = export.symbolic_shape("batch, steps")
    if case.cell in TREES:
        with pytest.raises(ValueError, match="symbolic"):
            exported(case, params, batch, steps)
        return
    call = exported(case, params, batch, steps)
    for rows, length in ((1, 5), (3, 70)):
        xs = cases.sequence(rows, length)
        close(call(xs), outputs(case, params, xs))


TRANSFORMATIONS = [
    jit_with_constant_lengths,
    vmap_over_params,
    vmap_over_sequences,
    forward_mode,
    hessian_vector_product,
    checkpoint,
    scan_over_layers,
    pmap,
    eval_shape,
    strict_promotion,
    no_transfers,
    debug_nans,
    donation,
    no_rows,
    no_tokens,
    export_with_any_batch,
    export_with_any_length,
]


ONE_EACH = list({case.cell: case for case in cases.CASES if case.main and case.name != "pr_rnn-1r"}.values())
ONE_EACH.append(cases.Case("mlstm", mlstm, None, (("num_heads", 1), ("chunk_size", 4))))


@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
@pytest.mark.parametrize("transformation", TRANSFORMATIONS, ids=lambda f: f.__name__)
def test_transformation(case, transformation):
    transformation(case)
