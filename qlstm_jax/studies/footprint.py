"""The cost of a model: its parameters, the memory of a training step, and the speed of a run."""

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
from flax import nnx
from ml_collections import ConfigDict

from qlstm_jax import problems
from qlstm_jax.problems.base import Problem
from qlstm_jax.training import records
from qlstm_jax.training.step import TrainState, configured_step, initial_state, make_optimizer
from qlstm_jax.training.summary import count


def parameters(config: ConfigDict) -> dict[str, int]:
    """ "parameters", and "recurrent_parameters": those of the sequence layer, of a config's model. Nothing is computed.

    Raises:
        DataError: for data that cannot be read; a vocabulary has a size.
    """
    with _opened(config) as problem:
        return _sizes(problem)


def matched_hidden_size(config: ConfigDict, what: str, wanted: int) -> int:
    """Returns the hidden size that brings `what` nearest to `wanted`.

    Of a layer of several heads it is a multiple of twice their number, and of any Transformer, whose heads are even.

    Args:
        config: of a run; both directions of a bidirectional layer count.
        what: "parameters" or "recurrent_parameters".
        wanted: how many.

    Raises:
        DataError: as for `parameters`.
    """
    options = config.model.get(config.model.cell, {})
    heads = options.get("num_heads", 1)
    unit = 2 * heads if heads > 1 or config.model.cell == "transformer" else 1
    trial = config.copy_and_resolve_references()

    with _opened(trial) as problem:

        def difference(units: int) -> int:
            trial.model.hidden_size = units * unit
            return _sizes(problem)[what] - wanted

        low, high = 1, 2
        while difference(high) < 0:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if difference(middle) < 0 else (low, middle)
        return unit * min((low, high), key=lambda units: abs(difference(units)))


def step_bytes(problem: Problem, config: ConfigDict) -> int | None:
    """Returns the memory in bytes that the compiled training step takes on one device that has the whole batch.

    arguments + outputs − those outputs that take the arguments' place + temporary, as the compiler tells them; the
    state and its gradient are among them, data that stays on the device is not. The step is compiled, by shapes alone,
    and not run.

    Args:
        problem: the config's, as from `problems.make`. Of batches from the host the largest in training counts.
        config: of a run.

    Returns:
        None on a backend that does not tell.
    """
    train, optimizer = config.train, make_optimizer(config.train)

    def initial() -> TrainState:
        model = problem.model(nnx.Rngs(params=0))
        carry = problem.initial_carry(model, train.batch_size)
        return initial_state(model, optimizer, jax.random.key(0), carry, averaged=train.average_decay > 0)

    model = nnx.eval_shape(lambda: problem.model(nnx.Rngs(params=0)))
    model.train()
    step = configured_step(problem, nnx.graphdef(model), optimizer, train, axis=None)
    step = jax.jit(step, donate_argnums=0)
    memory = step.lower(jax.eval_shape(initial), problem.largest_batch()).compile().memory_analysis()
    if memory is None:
        return None
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(held + memory.temp_size_in_bytes)


def tokens_per_second(workdir: str | Path) -> float | None:
    """Returns the valid tokens per second of training: the median over the logged lines, None if there are none.

    The first line, whose time is that of compiling for the most part, counts only where it is alone.
    """
    speeds = [r["tokens_per_second"] for r in records.read(workdir) if r["split"] == "train"]
    return statistics.median(speeds[1:] or speeds) if speeds else None


@contextlib.contextmanager
def _opened(config: ConfigDict) -> Iterator[Problem]:
    """Opens the config's problem, whose data is read once, with a temporary folder for a tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        yield problems.make(config, Path(folder))


def _sizes(problem: Problem) -> dict[str, int]:
    """Returns `parameters` of the model that the problem's config describes now."""
    shapes = jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(problem.model(nnx.Rngs(params=0)), nnx.Param)))
    return {"parameters": count(shapes), "recurrent_parameters": count(shapes["layer"])}
