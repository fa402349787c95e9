"""One checkpoint: how a state is laid out in it, and reading it with every check that tells damage from content."""

import functools
import logging
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from qlstm_jax.training.freezing import name_of
from qlstm_jax.training.hosts import whole
from qlstm_jax.training.step import TrainState

DIGEST = "digest"  # beside the parts of the state, the checksum of them all
LATE = ("Event loop is closed", "while reading array index")  # what orbax's threads say of a reading that was given up


def storable(state: TrainState) -> dict[str, Any]:
    """Returns the parts of a state by name, and their checksum, as they are written."""
    parts = _parts(state)
    return {**parts, DIGEST: np.asarray(checksum(parts), np.uint32)}


def _parts(state: TrainState) -> dict[str, Any]:
    stored = state._replace(key=jax.random.key_data(state.key))._asdict()
    return {name: value for name, value in stored.items() if value is not None}


def checksum(parts: Any) -> int:
    """Returns the CRC-32 of the names, shapes, dtypes and bytes of all arrays, in whatever containers."""
    crc = 0
    leaves = {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parts)}
    for name in sorted(leaves):
        array = np.asarray(jax.device_get(whole(leaves[name])), order="C")
        crc = zlib.crc32(f"{name}{array.dtype}{array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


def read(manager: ocp.CheckpointManager, step: int, like: TrainState) -> TrainState:
    """Reads and checks the state of one checkpoint.

    Args:
        manager: of its folder.
        step: of the checkpoint.
        like: a state of the same structure and key.

    Raises:
        ValueError: if it is not what was saved there, or is another run's; besides, whatever orbax and its readers
            make of bytes that they did not write.
    """
    wanted = _parts(like)
    if DIGEST in arrays(manager, step):  # a run of an earlier version has none
        wanted[DIGEST] = np.zeros((), np.uint32)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
    stored = _restore(manager, step, abstract)
    if not np.array_equal(stored["key"], wanted["key"]):
        raise ValueError("it is of a run of another seed")
    state = TrainState(**stored)
    return state._replace(key=jax.random.wrap_key_data(state.key))


def contents(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns the parts of the state of one checkpoint in plain dictionaries, checked but for the run that they are of.

    Raises:
        ValueError: as for `read`, and what orbax raises.
    """
    known = arrays(manager, step)
    abstract = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), known)
    return _restore(manager, step, abstract)


def _restore(manager: ocp.CheckpointManager, step: int, abstract: Any) -> dict[str, Any]:
    """Returns the parts of a state, after a check of checksum and step."""
    stored: dict[str, Any] = manager.restore(step, args=ocp.args.StandardRestore(abstract))
    digest = stored.pop(DIGEST, None)
    if digest is not None and int(digest) != checksum(stored):
        raise ValueError("its content is not what was saved")
    if int(stored["step"]) != step:
        raise ValueError(f"it is of step {int(stored['step'])}")
    return stored


def arrays(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns the shapes and dtypes that a checkpoint holds, as nested dictionaries.

    Raises:
        ValueError: if it does not say; besides, as for `read`.
    """
    metadata = manager.item_metadata(step)
    if metadata is None or metadata.tree is None:
        raise ValueError("its list of arrays is missing")
    tree: dict[str, Any] = metadata.tree
    return tree


@functools.cache
def leave_errors_to_us() -> None:
    """Drops what orbax logs and what its threads say of a reading that was given up.

    Of every failure they write pages, and then orbax raises it.
    """
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in Path(record.pathname).parts)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not any(words in str(unraisable.exc_value) for words in LATE):
            before(unraisable)

    sys.unraisablehook = hook


@contextmanager
def quiet() -> Iterator[None]:
    """The same for the tasks of an event loop that end unheard when a block of reading or writing fails."""

    def nothing(_: logging.LogRecord) -> bool:
        return False

    log = logging.getLogger("asyncio")
    log.addFilter(nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that was never awaited
            yield
    finally:
        log.removeFilter(nothing)
