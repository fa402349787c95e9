"""Studies by name, for `python -m qlstm_jax.benchmark.study NAME`: what its other arguments are unless given."""

from pathlib import Path

from qlstm_jax import registry
from qlstm_jax.training.config import ConfigError

# The QL-LSTM whole, and each of its two parts by itself, among their baselines; sizes equal the first row's.
ROWS = [
    "lstm",
    "ql_lstm",
    "ql_lstm,skip=false",  # PSUG alone: one affine map for all gates
    "ql_lstm,sharing=none",  # the additive memory alone
    "gru",
    "lstm,bidirectional=true",
    "transformer",
]
TEXTS = {
    "rows": ROWS,
    "equal": ["hidden_size", "recurrent_parameters"],
    "metric": ["accuracy", "macro_f1"],
    "seeds": 5,
}
STUDIES = {
    # The paper's data (arXiv 2512.06582) at more and more of a review; needs the dataset, by TFDS or
    # --set text.path=/path/to/aclImdb.
    "imdb": TEXTS
    | {
        "config": "configs/imdb_ql_lstm.py",
        "columns": [f"text.max_length={length}" for length in (128, 256, 512, 1024, 2048, 4096)],
    },
    # The same models on a file of the user's own; needs --set text.path=FILE.
    "reviews": TEXTS | {"config": "configs/reviews_lstm.py", "columns": [""]},
}


def defaults(name: str) -> dict:
    """The arguments of a study, its folder of results among them.

    Raises:
        ConfigError: if there is no such study.
    """
    if name not in STUDIES:
        raise ConfigError(f"study {name!r}; {registry.nearest(name, STUDIES)}")
    return {"out": Path("results") / name} | STUDIES[name]
