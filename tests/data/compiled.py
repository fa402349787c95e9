"""Each task's sampler and labelling, compiled once for a shape that most tests can share."""

import functools

import jax
import numpy as np

from qlstm_jax.data.formal import TASKS

ROWS, WIDTH = 256, 41


@functools.cache
def sampler(name, rows, width):
    """(key, lengths (rows,)) -> Batch of numpy arrays."""
    sample = jax.jit(lambda key, n: TASKS[name].sample(key, rows, n, max_length=width))
    return lambda key, lengths: jax.tree.map(np.asarray, sample(key, np.asarray(lengths, np.int32)))


@functools.cache
def _labeller(name):
    return jax.jit(TASKS[name].label)


def label(name, ids, lengths):
    """The labels of any rows that fit, as numpy; the first row fills the shape up."""
    assert len(ids) <= ROWS and ids.shape[1] <= WIDTH
    full_ids, full_lengths = np.zeros((ROWS, WIDTH), np.int32), np.full(ROWS, lengths[0], np.int32)
    full_ids[:, : ids.shape[1]] = ids[:1]
    full_ids[: len(ids), : ids.shape[1]] = ids
    full_lengths[: len(ids)] = lengths
    targets, target_lengths = _labeller(name)(full_ids, full_lengths)
    return np.asarray(targets)[: len(ids)], np.asarray(target_lengths)[: len(ids)]


@functools.cache
def mixed(name, lengths, rows=ROWS):
    """A batch in which the lengths take turns."""
    return sampler(name, rows, max(lengths))(jax.random.key(7), np.resize(lengths, rows))
