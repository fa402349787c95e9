"""Figures of a run: JSON lines and TensorBoard, a progress line with speed and ETA."""

import contextlib
import json
import math
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from qlstm_jax.training import records
from qlstm_jax.training.board import Board
from qlstm_jax.training.faults import writing
from qlstm_jax.training.selection import Selection


class Writer:
    """Appends metrics to `metrics.jsonl` and TensorBoard event files in a workdir; each is on the disk at once.

    Args:
        workdir: the run's folder.
        start: the step that the run continues from; figures of later steps, which a run that was cut off wrote and
            will now write again, are dropped.

    Raises:
        WorkdirError: if `metrics.jsonl` is damaged.
        WriteError: if they cannot be written.
    """

    def __init__(self, workdir: Path, start: int) -> None:
        self.path = Path(workdir) / records.NAME
        past = [record for record in records.read(workdir) if record["step"] <= start]
        records.rewrite(Path(workdir), past)
        with writing(self.path):
            self.file = self.path.open("a", encoding="utf-8")
        self.board = Board(Path(workdir) / "tensorboard", past)
        self._know(past)

    def _know(self, past: Iterable[dict[str, Any]]) -> None:
        self.first_loss: float | None = next((r["loss"] for r in past if "loss" in r and r["split"] == "train"), None)

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Writes one line of figures: `split` is "train" or "validation".

        Raises:
            WriteError: if they cannot be written.
        """
        record = {"step": step, "split": split, **values, records.TIME: round(time.time(), 3)}
        with writing(self.path):
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()
        self.board.add(record)
        self.board.flush()

    def close(self) -> None:
        """Closes both."""
        with writing(self.path):
            self.file.close()
        self.board.close()


class Reader(Writer):
    """What a process that does not write has in place of a `Writer`."""

    def __init__(self, workdir: Path, start: int) -> None:
        self._know(record for record in records.read(workdir) if record["step"] <= start)

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Leaves it to the process that writes."""

    def close(self) -> None:
        """Has nothing to close."""


class Patience:
    """Counts the validations since the best one, those that an earlier process wrote to `metrics.jsonl` among them.

    Args:
        workdir: the run's folder, after its `Writer` has been opened.
        limit: validations without a better one after which patience is over; 0: never.
        select: the validation metric; a figure that is not finite is never a better one.
        mode: "max" if the higher is the better, or "min".
    """

    def __init__(self, workdir: Path, limit: int, *, select: str, mode: str) -> None:
        self.limit, self.selection, self.best, self.since = limit, Selection(select, mode), -math.inf, 0
        for record in records.read(workdir):
            if record["split"] == "validation" and select in record:
                self.add(record[select])

    def add(self, value: float) -> None:
        """Takes the figure of one more validation."""
        score = self.selection.score(value)
        self.best, self.since = (score, 0) if score > self.best else (self.best, self.since + 1)

    def is_over(self) -> bool:
        """Returns whether there were `limit` validations without a better one."""
        return 0 < self.limit <= self.since


class Progress:
    """A bar on a terminal, plain lines elsewhere; both with steps/s, tokens/s and the time left."""

    def __init__(self, start: int, total: int, stream: TextIO | None = None, *, silent: bool = False) -> None:
        self.stream, self.silent = sys.stdout if stream is None else stream, silent
        self.total, self.last_step, self.since = total, start, time.perf_counter()
        live = self.stream.isatty() and not silent
        size = shutil.get_terminal_size()  # tqdm itself draws nothing on a terminal that does not tell its size
        shape = {"ncols": size.columns, "nrows": size.lines}
        self.bar = tqdm(total=total, initial=start, unit="step", file=self.stream, **shape) if live else None

    def log(self, step: int, tokens: float, values: dict[str, float]) -> dict[str, float]:
        """Shows the figures of the steps since the last call, `tokens` of them, and returns the speeds."""
        now = time.perf_counter()
        seconds = max(now - self.since, 1e-9)
        speeds = {"steps_per_second": (step - self.last_step) / seconds, "tokens_per_second": tokens / seconds}
        self.last_step, self.since = step, now
        shown = "  ".join(f"{k} {v:.4f}" for k, v in values.items())
        if self.bar:
            self.bar.set_postfix_str(f"{shown}  {speeds['tokens_per_second']:,.0f} tokens/s", refresh=False)
            self.bar.update(step - self.bar.n)
        else:
            eta = clock((self.total - step) / max(speeds["steps_per_second"], 1e-9))
            rates = f"{speeds['steps_per_second']:.2f} steps/s  {speeds['tokens_per_second']:,.0f} tokens/s"
            self.say(f"step {step}/{self.total}  {shown}  {rates}  ETA {eta}")
        return speeds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time that goes on something else, such as a validation, out of the speeds."""
        before = time.perf_counter()
        yield
        self.since += time.perf_counter() - before

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        if self.bar:
            self.bar.write(line, file=self.stream)
        elif not self.silent:
            print(line, file=self.stream, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self.bar:
            self.bar.close()


def clock(seconds: float) -> str:
    """Formats seconds as hours, minutes and seconds: 3661 as 1:01:01."""
    seconds = int(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
