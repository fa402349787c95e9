"""Several processes that train one run together, one or more on each host: joining, waiting, and who writes.

Every process runs the same program on its own devices; arrays lie over the devices of all. What is written is written
by the first one, but for checkpoints, of which each writes what it holds.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from qlstm_jax.training.config import ConfigError

T = TypeVar("T")


def join(coordinator: str | None, num_processes: int | None, process_id: int | None, hosts: str) -> None:
    """Joins the other processes of a run, before anything is computed; does nothing for a run of one process.

    Args:
        coordinator: HOST:PORT where the first process listens, or None.
        num_processes: how many there are.
        process_id: which this is, from 0.
        hosts: "auto" to be told all three by the cluster, as `jax.distributed.initialize` finds them (TPU pods,
            Slurm, Open MPI, Kubernetes), or "".

    Raises:
        ConfigError: for some of the three without the others, or out of range, or where no cluster is found.
    """
    given = coordinator, num_processes, process_id
    if (given == (None, None, None) and not hosts) or jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if given == (None, None, None):
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ConfigError(
                f"parallel.hosts is 'auto' and no cluster is found ({error}); expected one that jax knows, or "
                "--coordinator=HOST:PORT --num_processes=N --process_id=K"
            ) from error
        return
    if hosts:
        raise ConfigError(f"parallel.hosts is {hosts!r} and --coordinator is given; expected one of the two")
    if coordinator is None or num_processes is None or process_id is None:
        raise ConfigError(
            f"--coordinator is {coordinator}, --num_processes {num_processes} and --process_id {process_id}; expected "
            "all three or none"
        )
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id is {process_id} and --num_processes {num_processes}; expected one of 0..{num_processes - 1}"
        )
    jax.distributed.initialize(coordinator, num_processes, process_id)


def several() -> bool:
    """Tells whether there are other processes."""
    return bool(jax.process_count() > 1)


def first() -> bool:
    """Tells whether this is the process that writes."""
    return bool(jax.process_index() == 0)


def wait(what: str) -> None:
    """Waits until all processes are here; `what` names the place."""
    if several():
        multihost_utils.sync_global_devices(what)


def first_alone(what: str, doing: Callable[[], T], others: Callable[[], T]) -> T:
    """Has the first process do something before the others do theirs."""
    if not several():
        return doing()
    made = doing() if first() else None
    wait(what)
    result = made if made is not None else others()
    wait(f"{what}, all")
    return result


@contextlib.contextmanager
def by_first(context: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """Enters a context in the first process alone."""
    with context if first() else contextlib.nullcontext():
        yield


def whole(a: Any) -> Any:
    """Returns an array, of which each process may hold a part, whole in the memory of each host."""
    if isinstance(a, jax.Array) and not a.is_fully_addressable and not a.is_fully_replicated:
        return multihost_utils.process_allgather(a, tiled=True)
    return a


def place_rows(batch: Any, sharding: NamedSharding) -> Any:
    """Puts a batch, which every process has made, on the devices: each process its own rows."""
    if not several():
        return jax.device_put(batch, sharding)

    def place(a: Any) -> Any:
        rows = np.asarray(a)
        return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])

    return jax.tree.map(place, batch)


def any_of(number: int) -> int:
    """Returns the largest number that a process gives: all must ask at the same step."""
    return int(np.max(multihost_utils.process_allgather(np.int32(number)))) if several() else number
