"""Studies by name, for `python -m qlstm_jax.studies.study NAME`: what its other arguments are unless given."""

from pathlib import Path
from typing import Any

from qlstm_jax.problems.config import nearest
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
# Trained at one length, tested from a quarter of it to 16,384.
LONG_RANGE: dict[str, Any] = {
    "rows": [
        "lstm",
        "gru",
        "slstm",
        "pr_lstm",
        *(f"ql_lstm,block_size={size}" for size in (8, 32, 256)),
        "ql_lstm,skip=false",
        "ql_lstm,sharing=gates",
        "ql_lstm,sharing=none",
    ],
    "metric": ["accuracy_by_length"],
    "seeds": 1,
}
# The same with biases of all time scales up to the training length.
CHRONO = [f"{row},chrono=256" for row in ("lstm", "gru", "ql_lstm", "ql_lstm,skip=false", "ql_lstm,sharing=none")]
CHRONO_RECALL = [
    "lstm,chrono=1024",
    "gru,chrono=1024",
    "ql_lstm,chrono=1024,forget_bias=1.0",
    "ql_lstm,skip=false,chrono=1024,forget_bias=1.0",
]
SHORT = ["model.hidden_size=64", "train.steps=1000", "train.batch_size=32", "train.learning_rate=0.003"]


STUDIES: dict[str, dict[str, Any]] = {
    # The paper's data (arXiv 2512.06582); needs the dataset, by TFDS or --set text.path=/path/to/aclImdb, a local copy
    # whose lists of films keep those of validation out of training.
    "imdb": TEXTS | {"config": "configs/imdb.py:lstm", "columns": [""], "seeds": 3},
    # The same at more and more of a review.
    "imdb_length": {
        "config": "configs/imdb.py:lstm",
        "rows": ["lstm", "ql_lstm"],
        "columns": [f"text.max_length={length}" for length in (128, 256, 512, 1024, 2048)],
        "metric": ["accuracy"],
        "seeds": 1,
    },
    # Characters, on the budget of nanoGPT's recipe for a CPU; needs --set lm.path=FILE, its 1,115,394 characters.
    "shakespeare": {
        "config": "configs/shakespeare.py:lstm",
        "rows": ["lstm", "gru", "ql_lstm", "slstm", "mlstm", "pr_lstm", "transformer,causal=true"],
        "columns": [""],
        "metric": ["loss", "bits_per_byte"],
        "seeds": 1,
    },
    # The same models on a file of the user's own; needs --set text.path=FILE.
    "reviews": TEXTS | {"config": "configs/reviews_lstm.py", "columns": [""]},
    # Multi-query associative recall; xlstm is of two mLSTM blocks.
    "mqar": {
        "config": "configs/mqar.py:mlstm,4,64",
        "rows": ["xlstm", "transformer,causal=true", "ql_lstm", "lstm"],
        "columns": [f"mqar.length={n},mqar.num_pairs={n // 16}" for n in (64, 128, 256)],
        "set": ["train.steps=1000", "train.batch_size=32"],
        "seeds": 1,
    },
    # Language models of bytes, as many parameters each.
    "lm": {
        "config": "configs/lm.py:lstm",
        "rows": [
            "lstm",
            "gru",
            "ql_lstm",
            "transformer,causal=true,num_layers=2",
            "xlstm,num_layers=2,slstm_at=1:1",
        ],
        "equal": ["parameters"],
        "metric": ["bits_per_byte"],
        "set": ["model.hidden_size=192", "train.steps=1000", "train.eval_every=250"],
        "seeds": 1,
    },
    # Long range: accuracy, or the error of a sum, against length.
    "recall": LONG_RANGE
    | {
        "config": "configs/recall_ql_lstm.py",
        "rows": [*LONG_RANGE["rows"], *CHRONO_RECALL],
        "set": ["train.batch_size=32", "eval.longest=16"],
    },
    "copy": LONG_RANGE
    | {
        "config": "configs/copying.py:lstm,256",
        "rows": [*LONG_RANGE["rows"], *CHRONO],
        "set": [*SHORT, "eval.longest=64"],
    },
    "adding": LONG_RANGE
    | {
        "config": "configs/adding.py:lstm,256",
        "rows": [*LONG_RANGE["rows"], *CHRONO],
        "set": [*SHORT, "eval.longest=64"],
        "metric": ["accuracy_by_length", "loss_by_length"],
    },
}


def defaults(name: str) -> dict[str, Any]:
    """Returns the arguments of a study, its folder of results among them.

    Raises:
        ConfigError: if there is no such study.
    """
    if name not in STUDIES:
        raise ConfigError(f"study {name!r}; {nearest(name, STUDIES)}")
    return {"out": Path("results") / name} | STUDIES[name]
