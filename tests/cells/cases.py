"""The cells and options under test, in one table, and what the tests share: weights, a fold of `step`, the oracle."""

import dataclasses
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import pr_lstm
from tests.cells import oracles

D, H = 3, 5
# Options with which a cell's layers are small and show what is theirs, of cells that have any to show.
SMALL = {
    "ql_lstm": {"block_size": 2},
    "slstm": {"num_heads": 5},
    "mlstm": {"num_heads": 1, "key_size": 2, "chunk_size": 4},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A cell with options; `main` marks the ones on which the dearer tests run."""

    name: str
    cell: object
    oracle: object
    options: tuple = ()
    main: bool = False

    def params(self, *, seed=0, dtype="float32"):
        """Weights with nothing left at a default: a bias that is 0 or a scale that is 1 would hide its place."""
        shapes = jax.eval_shape(lambda: self.cell.init(jax.random.key(0), D, H, dtype=dtype, **dict(self.options)))
        rng = np.random.default_rng(seed)

        def draw(a):
            scale = a.shape[-2] ** -0.5 if len(a.shape) > 1 and a.shape[-2] >= D else 0.7
            return jnp.asarray(scale * rng.normal(size=a.shape), a.dtype)

        return jax.tree.map(draw, shapes)

    def oracle_outputs(self, arrays, xs, lengths=None):
        """(B, T, H) float64, zero beyond `lengths`; `arrays` as from `as_arrays`."""
        options = {k: v for k, v in self.options if k != "refinements"}
        ys = np.zeros((*xs.shape[:2], H))
        for b, n in enumerate([xs.shape[1]] * len(xs) if lengths is None else lengths):
            if n:
                ys[b, :n] = self.oracle(arrays, np.asarray(xs[b, :n], np.float64), **options)
        return ys


def _case(name, cell, oracle, options, main):
    return Case(name, importlib.import_module(f"qlstm_jax.cells.{cell}"), oracle, options, main)


CASES = [_case(*registered) for registered in oracles.CASES]
ALL = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
MAIN = pytest.mark.parametrize("case", [c for c in CASES if c.main], ids=lambda c: c.name)


def as_arrays(params):
    """Parameter name to float64 array, without options and absent parameters."""
    fields = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
    return {k: np.asarray(v, np.float64) for k, v in fields.items() if isinstance(v, jax.Array)}


def sequence(batch, steps, *, seed=2):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, steps, D)), jnp.float32)


def cotangents(tree, *, seed=3):
    """A random weight for each floating number of `tree`, None for its integers."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else None,
        tree,
    )


def weigh(tree, weights):
    """The sum of `tree` times `weights`, a scalar that depends on every number in it."""
    products = jax.tree.map(
        lambda w, a: None if w is None else jnp.sum(w * a.astype(w.dtype)), weights, tree, is_leaf=lambda w: w is None
    )
    return sum(jax.tree.leaves(products))


def start(cell, params, batch, tokens):
    """An initial carry; that of a PR-LSTM with slots for `tokens` and no more, which keeps its programs small."""
    options = {"max_length": tokens} if cell is pr_lstm else {}
    return cell.initial_carry(params, batch, **options)


def fold(cell, params, xs, lengths, carry=None):
    """`cell.step` one position after another, each row stopping at its length."""
    carry = cell.initial_carry(params, xs.shape[0]) if carry is None else carry

    def keep(ok, new, old):
        return jnp.where(ok.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    def body(carry, t_and_x):
        t, x = t_and_x
        new, y = cell.step(params, carry, x)
        new = jax.tree.map(lambda n, o: keep(t < lengths, n, o), new, carry)
        return new, keep(t < lengths, y, jnp.zeros_like(y))

    carry, ys = jax.lax.scan(body, carry, (jnp.arange(xs.shape[1]), jnp.swapaxes(xs, 0, 1)))
    return carry, jnp.swapaxes(ys, 0, 1)


def cut_rows(rows, lengths_of_pieces, widths, fill=0.0):
    """Each row in consecutive pieces, piece k of row b being lengths_of_pieces[k][b] long, padded to widths[k]."""
    batch, pieces = len(rows), []
    ends = list(itertools.accumulate(lengths_of_pieces, np.add))
    for k, width in enumerate(widths):
        piece = np.full((batch, width, rows.shape[2]), fill, np.float32)
        for b in range(batch):
            n, end = lengths_of_pieces[k][b], ends[k][b]
            piece[b, :n] = rows[b, end - n : end]
        pieces.append(piece)
    return pieces


def join_rows(pieces, lengths_of_pieces, width):
    """The inverse of `cut_rows`, padded to `width` with zeros."""
    rows = np.zeros((len(pieces[0]), width, pieces[0].shape[2]), np.float32)
    place = np.zeros(len(rows), int)
    for piece, lengths in zip(pieces, lengths_of_pieces, strict=True):
        for b, n in enumerate(lengths):
            rows[b, place[b] : place[b] + n] = piece[b, :n]
        place = place + lengths
    return rows
