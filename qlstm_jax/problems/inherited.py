"""The tokenizer of a run that begins with another run's weights: its rows of the embedding are numbered by it."""

from pathlib import Path

from ml_collections import ConfigDict

from qlstm_jax.data.tokenizer import Tokenizer
from qlstm_jax.problems.config import ConfigError


def tokenizer(config: ConfigDict, problem: str) -> Tokenizer | None:
    """Returns the tokenizer that the run in `config.train.init_from` hands on; None where it has none of this problem.

    Args:
        config: of the new run.
        problem: its name.

    Raises:
        ConfigError: if it is of another kind than the config's.
        DataError: if its file is damaged.
    """
    if not config.train.init_from:
        return None
    path = Path(config.train.init_from).expanduser() / problem / "tokenizer.json"
    if not path.exists():
        return None
    found, kind = Tokenizer.load(path), config[problem].tokenizer
    if found.kind != kind:
        raise ConfigError(
            f"{problem}.tokenizer is {kind!r} and that of {path} {found.kind!r}; expected the same kind, as the run "
            f"begins with the embeddings of train.init_from (--config.{problem}.tokenizer={found.kind})"
        )
    return found
