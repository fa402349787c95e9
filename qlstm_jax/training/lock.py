"""One run a folder: two that train in one at once would overwrite each other's checkpoints and figures."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from qlstm_jax.training.faults import InUse, WriteError, writing

LOCK, HOLDER = "run.lock", "run.holder.json"


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds a run's folder for one process, or one thread.

    The operating system holds the lock (flock, on Windows msvcrt.locking) and lets it go when its process ends,
    however that ends: there is no stale lock. The file `run.holder.json` beside it is for the message alone.

    Args:
        workdir: of the run; made if missing.

    Raises:
        InUse: if it is held already, naming host, process and since when.
        WriteError: if the folder cannot be made or written.
    """
    lock = FileLock(workdir / LOCK)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InUse(
            f"{workdir} is in use by another run ({_holder(workdir)}); wait until it ends, or give another --workdir"
        ) from None
    except OSError as error:
        raise WriteError(f"{workdir} cannot be used as the folder of a run: {error.strerror or error}") from error
    holder = workdir / HOLDER
    try:
        about = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now().astimezone().isoformat()}
        with writing(workdir):
            holder.write_text(json.dumps(about) + "\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(workdir: Path) -> str:
    """ "process 17 on HOST since 2026-01-01 12:00:00"."""
    try:
        found = json.loads((workdir / HOLDER).read_text())
        since = datetime.fromisoformat(found["since"]).strftime("%Y-%m-%d %H:%M:%S")
        return f"process {found['pid']} on {found['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written
        return "it does not say by which"
