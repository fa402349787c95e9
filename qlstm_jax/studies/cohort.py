"""Several seeds of one config, trained together: many steps a dispatch, batches drawn on the device."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from qlstm_jax.problems.base import Problem
from qlstm_jax.training.beginning import run_keys
from qlstm_jax.training.checkpoints import Checkpoints
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.lock import locked
from qlstm_jax.training.metrics import Progress, Writer
from qlstm_jax.training.signals import Interrupted, StopSignal
from qlstm_jax.training.step import TrainState, configured_step, initial_state, make_optimizer

# All but the count of steps has a leading axis of seeds.
AXES: Any = {"step": None, "params": 0, "opt_state": 0, "key": 0, "average": 0}
SEEDS = TrainState(**AXES)


class Trainer:
    """The compiled programs of one config. All seeds share them; a seed here equals the run of that seed by train.py.

    Args:
        problem: draws its batches on the device.
        config: of the run; its seed is not read.
    """

    def __init__(self, problem: Problem, config: ConfigDict) -> None:
        self.problem, self.config = problem, config.train
        if config.train.init_from:
            raise ConfigError(f"train.init_from is {config.train.init_from!r}; expected '': seeds here begin anew")
        for name, value in config.parallel.items():
            if value:
                raise ConfigError(f"parallel.{name} is {value!r}; expected '': whole seeds go to the local devices")
        self.optimizer = make_optimizer(config.train)
        model = problem.model(nnx.Rngs(params=0))
        model.train()
        self.graphdef = nnx.graphdef(model)
        model.eval()
        self.eval_graphdef = nnx.graphdef(model)
        self.chunk = jax.jit(self._chunk, donate_argnums=0)

    def initial(self, seeds: list[int]) -> TrainState:
        """Returns the state of new runs of these seeds, stacked."""

        def one(init_key: Any, train_key: Any) -> Any:
            model, averaged = self.problem.model(nnx.Rngs(params=init_key)), self.config.average_decay > 0
            return initial_state(model, self.optimizer, train_key, averaged=averaged)

        keys = jnp.stack([run_keys(seed) for seed in seeds])
        return self._spread(jax.jit(jax.vmap(one, out_axes=SEEDS))(keys[:, 0], keys[:, 1]))

    def _spread(self, state: TrainState) -> TrainState:
        """Returns the state with its seeds dealt to the local devices, where they divide them."""
        devices = jax.local_devices()
        if state.key.shape[0] % len(devices):
            return state
        mesh = Mesh(np.asarray(devices), ("seeds",))
        split, same = NamedSharding(mesh, P("seeds")), NamedSharding(mesh, P())
        return TrainState(jax.device_put(state.step, same), *(jax.device_put(part, split) for part in state[1:]))

    def _chunk(self, state: TrainState, steps: int) -> Any:
        """Runs `steps` ≤ log_every steps of all seeds, in one program for any number. Metrics: (log_every, seeds)."""
        whole = configured_step(self.problem, self.graphdef, self.optimizer, self.config, axis=None)

        def one_seed(state: TrainState) -> Any:
            return whole(state, None)

        step: Callable[[TrainState], Any] = one_seed
        single = state.key.shape[0] == 1  # a batched product with one batch is slower than a plain one
        if single:
            state = TrainState(state.step, *jax.tree.map(lambda a: a[0], state[1:]))
        else:
            step = jax.vmap(one_seed, (SEEDS,), (SEEDS, 0))

        def body(i: Any, state_and_metrics: Any) -> Any:
            state, metrics = state_and_metrics
            state, new = step(state)
            return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), metrics, new)

        metrics = jax.tree.map(
            lambda a: jnp.zeros((self.config.log_every, *a.shape), a.dtype), jax.eval_shape(step, state)[1]
        )
        state, metrics = jax.lax.fori_loop(0, steps, body, (state, metrics))
        if single:
            state = TrainState(state.step, *jax.tree.map(lambda a: a[None], state[1:]))
            metrics = jax.tree.map(lambda a: a[:, None], metrics)
        return state, metrics

    def model(self, state: TrainState, place: int) -> nnx.Module:
        """Returns the trained model of the seed at `place`, in evaluation mode."""
        model: nnx.Module = nnx.merge(self.eval_graphdef, jax.tree.map(lambda a: a[place], state.final_params))
        return model

    def run(
        self, seeds: list[int], workdir: Path, progress: Progress, stop: StopSignal, *, checkpoint_seconds: float
    ) -> TrainState:
        """Trains these seeds to the config's last step, or goes on from the checkpoint in `workdir`.

        Args:
            seeds: of the runs that train together.
            workdir: a folder of their own, for checkpoints, `metrics.jsonl` and TensorBoard.
            progress: a `qlstm_jax.training.metrics.Progress` over the steps.
            stop: a `StopSignal`.
            checkpoint_seconds: how often to save.

        Raises:
            Interrupted: after a signal, once all is saved.
            WorkdirError, WriteError: as for `qlstm_jax.training.loop.train`.
        """
        with locked(workdir), ExitStack() as end:
            checkpoints = Checkpoints(workdir)
            end.callback(checkpoints.close)
            state = self.initial(seeds)
            state = checkpoints.restore(state) or state
            for line in checkpoints.notes:
                progress.say(f"note: {line}")
            done, saved = int(state.step), time.monotonic()
            writer = Writer(workdir, done)
            end.callback(writer.close)
            progress.last_step = done
            while done < self.config.steps:
                steps = min(self.config.log_every - done % self.config.log_every, self.config.steps - done)
                state, metrics = self.chunk(state, steps)
                done += steps
                values = {name: a[:steps] for name, a in jax.device_get(metrics).items()}
                speeds = progress.log(done, float(values["tokens"].sum()), _means(values))
                writer.write(done, "train", _means(values) | _by_seed(values, seeds) | speeds)
                if stop.received or done == self.config.steps or time.monotonic() - saved > checkpoint_seconds:
                    checkpoints.save(state)
                    saved = time.monotonic()
                if stop.received and done < self.config.steps:
                    message = f"{stop.received.name} at step {done}: saved. Run the same command to go on."
                    raise Interrupted(message, stop.received)
        return state


def _means(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(values[name].mean()) for name in ("loss", "accuracy")}


def _by_seed(values: dict[str, Any], seeds: Sequence[int]) -> dict[str, float]:
    return {
        f"{name}_seed_{seed}": float(values[name][:, place].mean())
        for name in ("loss", "accuracy")
        for place, seed in enumerate(seeds)
    }
