"""TensorBoard event files of a run, written at once: no thread holds back points that a kill would lose."""

import time
from pathlib import Path
from typing import Any

from tensorboardX import RecordWriter, summary
from tensorboardX.proto.event_pb2 import Event

from qlstm_jax.training import records
from qlstm_jax.training.faults import writing

PATTERN = "events.out.tfevents.*"


class Board:
    """The scalars of a run in one event file, which takes the place of those that were there.

    Args:
        folder: for TensorBoard; made if missing.
        past: the records of `metrics.jsonl` that the run goes on from; they are written anew, as the file of a run that
            was killed may lack some, and hold others that the run will write again.

    Raises:
        WriteError: if it cannot be written.
    """

    def __init__(self, folder: Path, past: list[dict[str, Any]]) -> None:
        self.folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            before = list(folder.glob(PATTERN))
            self.writer = RecordWriter(str(folder / f"events.out.tfevents.{time.time_ns()}"))
            self.writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        for record in past:
            self.add(record)
        self.flush()
        # Only now: whenever a run is killed, all points of its figures are in some file.
        with writing(folder):
            for path in before:
                path.unlink()

    def add(self, record: dict[str, Any]) -> None:
        """Adds the figures of one record, at its step and time.

        Raises:
            WriteError: if they cannot be written.
        """
        values = {k: v for k, v in record.items() if k not in ("step", "split", records.TIME)}
        moment = record.get(records.TIME, time.time())  # a run of an earlier version kept none
        with writing(self.folder):
            for name, value in values.items():
                scalar = summary.scalar(f"{record['split']}/{name}", value)
                event = Event(wall_time=moment, step=record["step"], summary=scalar)
                self.writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Puts all that was added on the disk.

        Raises:
            WriteError: if that fails.
        """
        with writing(self.folder):
            self.writer.flush()

    def close(self) -> None:
        """Flushes and closes the file.

        Raises:
            WriteError: if that fails.
        """
        with writing(self.folder):
            self.writer.close()
