"""One function a console program. Each imports its program only when it runs: the programs need the extra `train`."""

import contextlib
import sys
from collections.abc import Iterator

# Modules that the extra `train` installs.
TRAIN = (
    "absl",
    "filelock",
    "flatbuffers",
    "importlib_resources",
    "matplotlib",
    "ml_collections",
    "optax",
    "orbax",
    "safetensors",
    "scipy",
    "tensorboardX",
    "tensorflow_datasets",
    "tokenizers",
    "tqdm",
)


@contextlib.contextmanager
def _needs_train(program: str) -> Iterator[None]:
    """Ends with one line if a module of the extra `train` is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in TRAIN:
            raise
        sys.exit(f'error: {program} needs {module}, which is not installed; run: pip install "qlstm_jax[train]"')


def train(program: str = "qlstm-train", evaluate: str = "qlstm-eval", about: str | None = None) -> int:
    """Runs `qlstm-train`; returns its exit code, as the others do.

    Args:
        program: how this program was started, for messages.
        evaluate: how `qlstm-eval` is started, for messages.
        about: what --help says of it, in place of the program's own words.
    """
    with _needs_train(program):
        from qlstm_jax.commands import train as command
    return command.run(program, evaluate, about)


def evaluate(program: str = "qlstm-eval", about: str | None = None) -> int:
    """Runs `qlstm-eval`."""
    with _needs_train(program):
        from qlstm_jax.commands import evaluate as command
    return command.run(program, about)


def generate(program: str = "qlstm-generate", about: str | None = None) -> int:
    """Runs `qlstm-generate`."""
    with _needs_train(program):
        from qlstm_jax.commands import generate as command
    return command.run(program, about)


def export() -> int:
    """Runs `qlstm-export`."""
    with _needs_train("qlstm-export"):
        from qlstm_jax.commands import export as command
    return command.run("qlstm-export")


def study() -> int:
    """Runs `qlstm-study`."""
    with _needs_train("qlstm-study"):
        from qlstm_jax.studies.study import main
    return main()


def formal() -> int:
    """Runs `qlstm-formal`."""
    with _needs_train("qlstm-formal"):
        from qlstm_jax.studies.formal import main
    return main()
