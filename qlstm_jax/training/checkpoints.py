"""Checkpoints by orbax: the latest ones to go on from, and the best one on validation."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN

from qlstm_jax.training import hosts
from qlstm_jax.training.faults import WorkdirError, WriteError, reason
from qlstm_jax.training.selection import Selection
from qlstm_jax.training.step import TrainState
from qlstm_jax.training.stored import contents, leave_errors_to_us, quiet, read, storable

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of a run: `checkpoints/` holds the latest few, `best/` the best on validation.

    A checkpoint is a whole `TrainState`: parameters, optimiser, step, PRNG key and any carry. A position in the data is
    the step, as every step reads one batch. Writing is atomic and goes on in the background: a run that is killed while
    it writes goes on from the checkpoint before. A checkpoint that was damaged later is known by its digest: the one
    before it is read in its place, and `notes` says so.

    Args:
        workdir: the run's folder.
        keep: how many of the latest are kept.
        select: the validation metric that says what is best.
        mode: "max" if the higher is the better, or "min".
        read_only: whether nothing is written, not even the folders; any number may read while one writes.
    """

    def __init__(
        self, workdir: Path, *, keep: int = 2, select: str = "accuracy", mode: str = "max", read_only: bool = False
    ) -> None:
        self.root, self.read_only = Path(workdir).absolute(), read_only
        self.selection = Selection(select, mode)
        self.notes: list[str] = []  # of damaged checkpoints
        leave_errors_to_us()
        with self._writing():
            self.latest = self._manager("checkpoints", keep)
            self.best = self._manager("best", 1)

    def _manager(self, name: str, keep: int) -> ocp.CheckpointManager:
        # orbax's own choice of the best would be spoilt by figures that are not finite. The function has its use in
        # that orbax then keeps the figures.
        kept: dict[str, Any] = {"best_fn": lambda values: values[self.selection.metric]} if name == "best" else {}
        if self.read_only:
            kept |= {"create": False, "save_root_metadata": False}
        else:
            kept |= {"preservation_policy": LatestN(keep), "cleanup_tmp_directories": True}
        # Two saves at a time, of several processes, could come to where these meet in another order on each.
        alone = not hosts.several()
        options = ocp.CheckpointManagerOptions(lightweight_initialize=True, enable_async_checkpointing=alone, **kept)
        handler = ocp.StandardCheckpointHandler()
        return ocp.CheckpointManager(self.root / name, options=options, item_handlers=handler)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Tells in one line what orbax says in many where it cannot write."""
        try:
            with quiet():
                yield
        except (OSError, ValueError, RuntimeError) as error:
            raise WriteError(f"{self.root}: no checkpoint can be written there ({reason(error)})") from error

    def save(self, state: TrainState) -> None:
        """Saves the state as the latest, unless its step is saved already.

        Raises:
            WriteError: if this or the save before failed.
        """
        step = int(state.step)
        if step != self.latest.latest_step():
            with self._writing():
                self.latest.save(step, args=ocp.args.StandardSave(storable(state)))

    def save_if_best(self, state: TrainState, values: dict[str, float]) -> None:
        """Saves the state as the best one if its validation figures are better than any before.

        Raises:
            WriteError: if this or the save before failed.
        """
        with self._writing():
            self.best.wait_until_finished()  # the figures of a checkpoint can be read once it is written
            step, held = int(state.step), self.best.latest_step()
            if held is not None and step <= held:
                return
            if self.selection.better(values, None if held is None else self.best.metrics(held)):
                self.best.save(step, args=ocp.args.StandardSave(storable(state)), metrics=values)

    def restore(self, like: TrainState, *, best: bool = False) -> TrainState | None:
        """Returns the latest state that can be read, or the best; None if there is none.

        A checkpoint that cannot be read is told of in `notes`, and unless `read_only` moved to the folder damaged, so
        that its step can be saved anew.

        Args:
            like: a state of the same structure and key.
            best: whether the best on validation is wanted.

        Raises:
            WorkdirError: if there are checkpoints and none can be read.
        """
        return self._first_whole(best, lambda manager, step: read(manager, step, like))

    def contents(self, *, best: bool = False) -> tuple[dict[str, Any], int] | None:
        """Restores, as `restore`, a state's parts as plain dictionaries and its step, for another model's use."""
        return self._first_whole(best, lambda manager, step: (contents(manager, step), step))

    def _first_whole(self, best: bool, reader: Callable[[ocp.CheckpointManager, int], T]) -> T | None:
        """Returns what `reader` makes of the latest checkpoint that can be read."""
        name, manager = ("best", self.best) if best else ("checkpoints", self.latest)
        wrong: dict[int, str] = {}
        for step in sorted(manager.all_steps(), reverse=True):
            with quiet():
                try:
                    found = reader(manager, step)
                except Exception as error:  # whatever orbax and its readers make of bytes that are not those it wrote
                    wrong[step] = reason(error)
                gc.collect()  # what failed beside the first says so when it is freed
            if step in wrong:
                continue
            for damaged, why in wrong.items():
                self.notes.append(f"{self.root / name / str(damaged)} cannot be read ({why}); taking step {step}")
                self._set_aside(name, damaged)
            return found
        if wrong:
            raise WorkdirError(_unreadable(self.root / name, wrong, best=best))
        return None

    def check_best(self, like: TrainState) -> None:
        """Sets a best checkpoint aside that cannot be read, so that a later one can take its place.

        What a run that was killed left of those before it is deleted.
        """
        step = self.best.latest_step()
        try:
            self.restore(like, best=True)
        except WorkdirError as error:
            self.notes.append(str(error))
            self._set_aside("best", step)
        for old in sorted(self.best.all_steps())[:-1]:
            self.best.delete(old)

    def drop_best_after(self, step: int) -> None:
        """Sets a best checkpoint of a later step aside: the run that made it is not the one that goes on."""
        held = self.best.latest_step()
        if held is not None and held > step:
            self.notes.append(f"the best checkpoint, of step {held}, is of another course: set aside")
            self._set_aside("best", held)

    def _set_aside(self, name: str, step: int | None) -> None:
        if self.read_only or step is None:
            return
        if hosts.first():
            aside = self.root / "damaged"
            aside.mkdir(exist_ok=True)
            number = sum(1 for _ in aside.glob(f"{name}-{step}-*"))
            (self.root / name / str(step)).rename(aside / f"{name}-{step}-{number}")
        hosts.wait("set aside")
        (self.best if name == "best" else self.latest).reload()

    def last_step(self) -> int | None:
        """Returns the step of the latest checkpoint."""
        step: int | None = self.latest.latest_step()
        return step

    def close(self) -> None:
        """Waits until all is written.

        Raises:
            WriteError: if a save failed.
        """
        with self._writing():
            for manager in (self.latest, self.best):
                manager.wait_until_finished()
                manager.close()


def _unreadable(folder: Path, wrong: Mapping[int, str], *, best: bool) -> str:
    """Returns the error message for a folder in which no checkpoint can be read."""
    steps = "; ".join(f"step {step}: {why}" for step, why in wrong.items())
    remedy = "--checkpoint=last takes the latest one" if best else "delete the run's folder to train anew"
    return f"{folder} holds no checkpoint that can be read ({steps}); bring one back, or {remedy}"
