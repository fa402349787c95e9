"""The paper's study, IMDB reviews (arXiv 2512.06582), by any cell, on a budget that two CPU cores can afford.

python train.py --config=configs/imdb.py:ql_lstm --config.text.path=/path/to/aclImdb --workdir=runs/imdb

Needs the dataset: a local copy, aclImdb or its archive, or without a path a download by TFDS. The lists of films of a
local copy keep each film on one side of the split into training and validation parts. The paper reports 87.83 %
accuracy and 87.82 % macro-F1 for a QL-LSTM.
"""

from qlstm_jax.training import config as configs


def get_config(cell="ql_lstm"):
    config = configs.default()
    config.problem = "text"
    config.text.dataset = "imdb_reviews"
    config.text.vocab_size = 30000
    config.text.max_length = 512
    config.text.num_buckets = 4
    config.model.cell = cell
    config.model.hidden_size = 128
    config.model.embedding_size = 128
    config.model.pooling = "mean_max"
    config.model.dropout = 0.5
    config.model.embedding_dropout = 0.5
    config.model.variational = True
    config.train.batch_size = 64
    config.train.steps = 1200
    config.train.learning_rate = 2e-3
    config.train.schedule = "cosine"
    config.train.warmup_steps = 50
    config.train.eval_every = 150
    config.train.checkpoint_every = 300
    config.train.select = "best"
    return config
