"""Checkpoints by orbax: the latest ones to go on from, and the best one on validation."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from qlstm_jax.training.step import TrainState


class Checkpoints:
    """The checkpoints of a run: `checkpoints/` holds the latest few, `best/` the best on validation.

    A checkpoint is a whole `TrainState`: parameters, optimiser, step, PRNG key and any carry. A position in the data is
    the step, as every step reads one batch. Writing is atomic and goes on in the background: a run that is killed while
    it writes goes on from the checkpoint before.

    Args:
        workdir: the run's folder.
        keep: how many of the latest are kept.
        select: the validation metric that says what is best.
        mode: "max" if the higher is the better, or "min".
    """

    def __init__(self, workdir: Path, *, keep: int = 2, select: str = "accuracy", mode: str = "max") -> None:
        root = Path(workdir).absolute()
        self.select, self.sign = select, {"max": 1, "min": -1}[mode]
        options = ocp.CheckpointManagerOptions
        self.latest = ocp.CheckpointManager(root / "checkpoints", options=options(max_to_keep=keep))
        best = options(max_to_keep=1, best_fn=lambda values: values[select], best_mode=mode)
        self.best = ocp.CheckpointManager(root / "best", options=best)

    def save(self, state: TrainState) -> None:
        """Saves the state as the latest, unless its step is saved already."""
        step = int(state.step)
        if step != self.latest.latest_step():
            self.latest.save(step, args=ocp.args.StandardSave(_storable(state)))

    def save_if_best(self, state: TrainState, values: dict[str, float]) -> None:
        """Saves the state as the best one if its validation figures are better than any before."""
        self.best.wait_until_finished()  # the figures of a checkpoint can be read once it is written
        step, held = int(state.step), self.best.best_step()
        if held is None or (step > held and self._better(values, self.best.metrics(held))):
            self.best.save(step, args=ocp.args.StandardSave(_storable(state)), metrics=values)

    def _better(self, values: dict[str, float], held: dict[str, float]) -> bool:
        return self.sign * values[self.select] > self.sign * held[self.select]

    def restore(self, like: TrainState, *, best: bool = False) -> TrainState | None:
        """The latest state, or the best; None if there is none.

        Args:
            like: a state of the same structure.
            best: whether the best on validation is wanted.
        """
        manager = self.best if best else self.latest
        step = manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _storable(like))
        stored = TrainState(**manager.restore(step, args=ocp.args.StandardRestore(abstract)))
        return stored._replace(key=jax.random.wrap_key_data(stored.key))

    def last_step(self) -> int | None:
        """The step of the latest checkpoint."""
        step: int | None = self.latest.latest_step()
        return step

    def close(self) -> None:
        """Waits until all is written."""
        for manager in (self.latest, self.best):
            manager.wait_until_finished()
            manager.close()


def _storable(state: TrainState) -> dict[str, Any]:
    stored = state._replace(key=jax.random.key_data(state.key))._asdict()
    return {name: value for name, value in stored.items() if value is not None}
