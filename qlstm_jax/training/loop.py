"""A training run from start, or from where it stopped, to its end."""

import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from signal import Signals

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from qlstm_jax.problems import Problem
from qlstm_jax.training import config_checks, hosts
from qlstm_jax.training.beginning import expected, first_state, initial, run_keys, static_model
from qlstm_jax.training.checkpoints import Checkpoints
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.lock import locked
from qlstm_jax.training.meshes import everywhere, make_mesh, make_step, using
from qlstm_jax.training.metrics import Patience, Progress, Reader, Writer
from qlstm_jax.training.opening import Opened, OwnModel, OwnProblem, make_problem, open_run
from qlstm_jax.training.selection import selection
from qlstm_jax.training.signals import Interrupted, StopSignal
from qlstm_jax.training.step import TrainState, make_optimizer
from qlstm_jax.training.summary import parameter_table
from qlstm_jax.training.warm_start import warm_start


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    problem: OwnProblem | None = None,
    model: OwnModel | None = None,
) -> dict[str, float]:
    """Trains to `config.train.steps`, going on from the latest checkpoint in `workdir` if there is one.

    Args:
        config: from `config.default`, changed at will.
        workdir: a folder for config, metrics, checkpoints; made if missing.
        problem: your own, in place of the one that the config names: a `Problem`, or what makes one of the config and
            the folder, such as `lambda config, workdir: TextProblem(config, workdir, parts=my_parts)`.
        model: your own, `rngs -> nnx.Module`, in place of the problem's.

    Returns:
        The last validation metrics, and those of the training steps since the last log before them.

    Raises:
        ConfigError: for a config that cannot be run, or another one than the workdir's.
        WorkdirError: for a workdir that another run is using, or whose checkpoints or figures are damaged.
        WriteError: for a workdir that cannot be written.
        Diverged: at a loss that is not finite, naming the step and the last good checkpoint.
        Interrupted: after SIGINT or SIGTERM, once everything is saved.
    """
    workdir = Path(workdir)
    hosts.join(None, None, None, config.parallel.hosts)
    unused = config_checks.check(config, own_problem=problem is not None)
    mesh = make_mesh(config)
    with hosts.by_first(locked(workdir)):
        notes = [f"note: {line}" for line in unused]
        opened = hosts.first_alone(
            "open the run",
            lambda: open_run(config, workdir, problem, model),
            lambda: Opened(make_problem(config, workdir, problem, model), [], False),
        )
        return _train(config, workdir, notes, opened, mesh)


def _train(config: ConfigDict, workdir: Path, notes: list[str], opened: Opened, mesh: Mesh | None) -> dict[str, float]:
    """Does the work of `train` in a folder that is the run's alone; `notes` are said first."""
    problem, select = opened.problem, selection(opened.problem, config.train.select_metric)
    keys, optimizer = run_keys(config.seed), make_optimizer(config.train)
    with ExitStack() as end:
        end.enter_context(using(mesh))
        keep = config.train.keep_checkpoints
        checkpoints = Checkpoints(workdir, keep=keep, select=select.metric, mode=select.mode)
        end.callback(checkpoints.close)
        make = partial(first_state, problem, config, optimizer)
        found = _where_it_stopped(checkpoints, expected(make, keys, mesh), opened, config.train.select == "best")
        state = found or initial(make, keys, mesh)
        start = int(state.step)
        if config.train.init_from and not start:
            state, lines = warm_start(state, config, problem)
            notes = [*notes, *lines]
        progress = Progress(start, config.train.steps, silent=not hosts.first())
        end.callback(progress.close)
        for line in [*notes, *problem.notes(), parameter_table(state.params)]:
            progress.say(line)
        for line in [*checkpoints.notes, *(f"changed since the last call: {line}" for line in opened.changed)]:
            progress.say(f"note: {line}")
        if start:
            progress.say(f"continuing from step {start} of {config.train.steps}")
        writer = hosts.first_alone("metrics", lambda: Writer(workdir, start), lambda: Reader(workdir, start))
        end.callback(writer.close)
        patience = Patience(workdir, config.train.patience, select=select.metric, mode=select.mode)
        run = _Run(config, problem, optimizer, checkpoints, writer, patience, progress, keys[2], mesh)
        with StopSignal() as stop:
            return run.to_the_end(state, stop)


def _where_it_stopped(
    checkpoints: Checkpoints, like: TrainState, opened: Opened, wants_best: bool
) -> TrainState | None:
    """Returns the state that a run goes on from, of its latest checkpoint; None for a new one."""
    found = checkpoints.restore(like)
    if opened.another_course:
        checkpoints.drop_best_after(int(found.step) if found else 0)
    if wants_best:
        checkpoints.check_best(like)
    return found


class _Run:
    """The loop and what it writes to."""

    def __init__(
        self,
        config: ConfigDict,
        problem: Problem,
        optimizer: optax.GradientTransformation,
        checkpoints: Checkpoints,
        writer: Writer,
        patience: Patience,
        progress: Progress,
        eval_key: Key[Array, ""],
        mesh: Mesh | None,
    ) -> None:
        self.patience, self.mesh = patience, mesh
        self.config, self.problem, self.checkpoints = config.train, problem, checkpoints
        self.writer, self.progress, self.eval_key = writer, progress, eval_key
        model = static_model(problem)
        model.train()
        self.step = make_step(problem, nnx.graphdef(model), optimizer, config.train, mesh)
        model.eval()
        self.eval_graphdef = nnx.graphdef(model)
        self.pending: list[tuple[int, dict[str, Array]]] = []
        self.latest: dict[str, float] = {}
        self.first_loss = writer.first_loss  # of step 1; of a run that goes on, the mean that was logged first

    def to_the_end(self, state: TrainState, stop: StopSignal) -> dict[str, float]:
        """Runs from `state` to the last step."""
        start = int(state.step)
        last = start if self.patience.is_over() else self.config.steps
        batches, signal = None if self.problem.on_device else self.problem.stream(start), 0
        for done in range(start + 1, last + 1):
            state, metrics = self.step(state, None if batches is None else next(batches))
            self.pending.append((done, metrics))
            if done % self.config.log_every == 0 or done == last:
                self.log()
            if not hosts.several() or done % self.config.log_every == 0:
                signal = hosts.any_of(stop.received or 0)
            if done % self.config.eval_every == 0 or done == last:
                self.validate(state, done)
            over = self.patience.is_over()
            if done % self.config.checkpoint_every == 0 or done == last or signal or over:
                self.log()
                self.checkpoints.save(state)
            if over:
                self.progress.say(f"ending at step {done}: {self.config.patience} validations without a better one")
                break
            if signal and done < last:
                self.checkpoints.close()
                message = f"{Signals(signal).name} at step {done}: saved. Run the same command to go on."
                raise Interrupted(message, signal)
        if start >= last:
            more = "patience" if self.patience.is_over() else "steps"
            self.progress.say(f"nothing to do: step {start} of {last} is done (--config.train.{more}=N for more)")
            # Not `validate`, which would write the figures of this step a second time.
            self.latest = self.problem.validate(self.model(state), self.eval_key)
        self.say_if_diverged()
        return self.latest

    def say_if_diverged(self) -> None:
        """Says so at the end of a run that is worse than at its start, though its loss is finite."""
        first, last = self.first_loss, self.latest.get("train_loss")
        if first is not None and last is not None and last - first > max(1.0, abs(first)):
            self.progress.say(
                f"diverged: the loss is {last:.4f} at the end and was {first:.4f} at the start. Try a lower "
                "--config.train.learning_rate or --config.train.clip_norm in another --workdir."
            )

    def model(self, state: TrainState) -> nnx.Module:
        """Returns the model as it is evaluated, whole on every device."""
        model: nnx.Module = nnx.merge(self.eval_graphdef, everywhere(state.final_params, self.mesh))
        return model

    def log(self) -> None:
        """Reads the figures of the steps since the last log, which waits for the device, and writes their means."""
        if not self.pending:
            return
        steps, values = zip(*jax.device_get(self.pending), strict=True)
        self.pending = []
        for step, figures in zip(steps, values, strict=True):
            # A gradient that is not finite has spoilt the parameters already, though the loss tells it a step later.
            if not (math.isfinite(figures["loss"]) and math.isfinite(figures["grad_norm"])):
                saved = self.checkpoints.last_step()
                good = f"the last good checkpoint is that of step {saved}" if saved else "no checkpoint was saved yet"
                raise Diverged(
                    f"the loss is {figures['loss']} and the gradient's norm {figures['grad_norm']} at step {step}; "
                    f"{good}. Try a lower --config.train.learning_rate or --config.train.clip_norm in another "
                    "--workdir."
                )
        if steps[0] == 1:
            self.first_loss = float(values[0]["loss"])
        names = [n for n in values[0] if n != "tokens"]
        means = {name: float(sum(v[name] for v in values) / len(values)) for name in names}
        means["grad_norm_max"] = float(max(v["grad_norm"] for v in values))
        means["clipped"] = sum(float(v["grad_norm"]) > self.config.clip_norm for v in values) / len(values)
        shown = {name: means[name] for name in ("loss", "accuracy") if name in means}
        speeds = self.progress.log(steps[-1], float(sum(v["tokens"] for v in values)), shown)
        self.writer.write(steps[-1], "train", means | speeds)
        self.latest |= {f"train_{name}": value for name, value in shown.items()}

    def validate(self, state: TrainState, step: int) -> None:
        """Writes the validation figures, and keeps the state if they are the best so far."""
        self.log()
        with self.progress.paused():
            values = self.problem.validate(self.model(state), self.eval_key)
        if not values:
            return
        metric = self.patience.selection.metric
        if metric not in values:
            raise ConfigError(f"a run is selected by {metric!r}; expected one of the validation's {', '.join(values)}")
        self.writer.write(step, "validation", values)
        self.patience.add(values[metric])
        self.progress.say(f"step {step}  validation  " + "  ".join(f"{k} {v:.4f}" for k, v in values.items()))
        self.latest |= values
        if self.config.select == "best":
            self.checkpoints.save_if_best(state, values)
