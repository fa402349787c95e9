"""Rows with resets equal their pieces read alone: outputs, last carry, and gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cells import cases

B, T = 6, 6
LAYOUTS = 9  # of B rows each
CLOSE = 1e-10


def draw_layout(rng):
    """(resets, lengths): from none to one at every token, and a row with no token."""
    resets = rng.random((B, T)) < rng.choice([0.0, 0.1, 0.3, 0.8], size=(B, 1))
    resets[0], resets[1, 0] = True, True
    lengths = rng.integers(0, T + 1, size=B)
    lengths[:3] = T, T, 0
    return resets, lengths


def cut(resets, lengths):
    """The pieces of all rows as arrays: of each its row, start, length and whether it continues the carry.

    The first B pieces are those that continue each row's carry, of no token where a row begins with a reset. And of
    each token its piece and place in it, of each row its last piece.
    """
    pieces = [[b, 0, 0, True] for b in range(B)]
    piece, last = np.zeros((B, T), int), np.arange(B)
    for b in range(B):
        for t in range(lengths[b]):
            if resets[b, t]:
                pieces.append([b, t, 0, False])
                last[b] = len(pieces) - 1
            piece[b, t] = last[b]
            pieces[last[b]][2] += 1
    pieces += [[0, 0, 0, False]] * (B * T + B - len(pieces))
    row, start, length, continues = (np.array(column) for column in zip(*pieces, strict=True))
    place = np.arange(T) - start[piece]
    return {
        "row": row,
        "start": start,
        "length": length,
        "continues": continues,
        "piece": piece,
        "place": np.where(np.arange(T) < lengths[:, None], place, T - 1),
        "last": last,
    }


def apart(cell, params, xs, carry, lengths, layout):
    """Each piece in a row of its own, which nothing else reaches."""
    where = jnp.minimum(jnp.arange(T)[None, :] + layout["start"][:, None], T - 1)
    rows = xs[layout["row"][:, None], where]
    initial = cases.start(cell, params, 1, 2 * T)

    def start(given, zero):
        keep = layout["continues"].reshape((-1,) + (1,) * (given.ndim - 1))
        return jnp.where(keep, given[layout["row"]], jnp.broadcast_to(zero, (len(layout["row"]), *zero.shape[1:])))

    ends, ys = cell.unroll(params, rows, seq_lengths=layout["length"], carry=jax.tree.map(start, carry, initial))
    ys = ys[layout["piece"], layout["place"]]
    valid = jnp.arange(T)[None, :] < lengths[:, None]
    return jax.tree.map(lambda a: a[layout["last"]], ends), jnp.where(valid[:, :, None], ys, 0)


def split(carry):
    """The floating-point arrays of a carry, and a function that puts them back."""
    leaves, structure = jax.tree.flatten(carry)
    floats = [jnp.issubdtype(a.dtype, jnp.floating) for a in leaves]
    chosen = [a for a, is_float in zip(leaves, floats, strict=True) if is_float]

    def put_back(given):
        given = iter(given)
        both = [next(given) if is_float else a for a, is_float in zip(leaves, floats, strict=True)]
        return jax.tree.unflatten(structure, both)

    return chosen, put_back


@cases.MAIN
def test_rows_with_resets_equal_their_pieces(case):
    cell = case.cell
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: a.astype(jnp.float64), case.params(dtype="float64"))
        rng = np.random.default_rng(0)
        before = jnp.asarray(rng.normal(size=(B, T, cases.D)))

        @jax.jit
        def compare(xs, carry, resets, lengths, layout):
            floats, put_back = split(carry)

            def packed(params, xs, floats):
                return cell.unroll(params, xs, seq_lengths=lengths, resets=resets, carry=put_back(floats))

            def separate(params, xs, floats):
                return apart(cell, params, xs, put_back(floats), lengths, layout)

            found = []
            for run in (packed, separate):
                out, pull = jax.vjp(run, params, xs, floats)
                weights = jax.tree.map(
                    lambda a: (
                        jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape)
                        if jnp.issubdtype(a.dtype, jnp.floating)
                        else np.zeros(a.shape, jax.dtypes.float0)
                    ),
                    out,
                )
                found.append((out, pull(weights)))
            return found

        carry = cases.start(cell, params, B, 2 * T)
        carry, _ = jax.jit(cell.unroll)(params, before, seq_lengths=np.arange(B) + 1, carry=carry)
        for _ in range(LAYOUTS):
            resets, lengths = draw_layout(rng)
            xs = jnp.asarray(rng.normal(size=(B, T, cases.D)))
            packed, separate = compare(xs, carry, resets, lengths, cut(resets, lengths))
            for a, b in zip(*map(jax.tree.leaves, (packed, separate)), strict=True):
                a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
                np.testing.assert_allclose(a, b, rtol=0, atol=CLOSE * max(1, np.abs(b).max(initial=0)))


@cases.MAIN
def test_a_step_with_a_reset_starts_anew(case):
    cell, params = case.cell, case.params()
    xs = cases.sequence(4, 6)
    fresh = cases.start(cell, params, 4, 7)
    carry, _ = jax.jit(cell.unroll)(params, xs, carry=fresh)
    step = jax.jit(cell.step)
    reset = jnp.array([True, False, True, False])
    fresh, continued = (step(params, c, xs[:, 0]) for c in (fresh, carry))
    found = step(params, carry, xs[:, 0], reset=reset)

    def choose(a, b):
        return jnp.where(reset.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    for a, b in zip(*map(jax.tree.leaves, (found, jax.tree.map(choose, fresh, continued))), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@cases.MAIN
def test_nothing_of_before_a_reset_reaches_value_or_gradient(case):
    """Not even NaN, but where the cell itself multiplies by 0: then finite numbers alone."""
    cell, params = case.cell, case.params()
    xs = cases.sequence(1, 8)
    resets = jnp.arange(8)[None, :] == 5

    @jax.jit
    @jax.value_and_grad
    def after(xs):
        carry, ys = cell.unroll(params, xs, resets=resets, carry=cases.start(cell, params, 1, 8))
        floats, _ = split(carry)
        return jnp.sum(ys[:, 5:] ** 2) + sum(jnp.sum(a**2) for a in floats)

    value, gradient = after(xs)
    assert not np.any(gradient[:, :5]) and np.all(np.any(np.asarray(gradient[:, 5:]), axis=2))
    np.testing.assert_allclose(value, after(xs.at[:, :5].multiply(-3))[0], rtol=1e-6)


@pytest.mark.parametrize("resets", [np.zeros((2, 5), int), np.zeros((5,), bool), np.zeros((2, 4), bool)])
def test_resets_of_another_kind_are_refused(resets):
    case = cases.CASES[0]
    with pytest.raises(ValueError, match=r"resets is .*; expected booleans of shape \(2, 5\)"):
        case.cell.unroll(case.params(), cases.sequence(2, 5), resets=resets)
