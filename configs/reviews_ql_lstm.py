"""Sentiment of short texts from a file of your own, columns text and label, by a QL-LSTM.

python train.py --config=configs/reviews_ql_lstm.py --config.text.path=reviews.tsv --workdir=runs/reviews_ql_lstm
"""

from qlstm_jax.training import config as configs


def get_config():
    config = configs.default()
    config.task = "text"
    config.text.max_length = 64
    config.text.min_frequency = 2
    config.text.validation = 0.1
    config.text.test = 0.2
    config.model.cell = "ql_lstm"
    config.model.hidden_size = 128
    config.model.embedding_size = 128
    config.model.pooling = "mean_max"
    config.model.dropout = 0.5
    config.model.embedding_dropout = 0.5
    config.train.batch_size = 64
    config.train.steps = 400
    config.train.learning_rate = 3e-3
    config.train.schedule = "cosine"
    config.train.eval_every = 50
    config.train.checkpoint_every = 200
    config.train.select = "best"
    return config
