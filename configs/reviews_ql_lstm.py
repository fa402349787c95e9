"""Sentiment of short texts from a file of your own, columns text and label, by a QL-LSTM.

python train.py --config=configs/reviews_ql_lstm.py --config.text.path=reviews.tsv --workdir=runs/reviews_ql_lstm
python eval.py --workdir=runs/reviews_ql_lstm

The split is 70 % training, 10 % validation, 20 % test, by text.split_seed. Measured on two CPU cores (shared AMD EPYC)
with 7,672 film reviews rated by people (published with VADER), seeds 0, 1, 2: test accuracy 78.8, 78.9, 79.2 %, mean
79.0 %; 67,200 recurrent parameters. With blocks of 8 (--config.model.ql_lstm.block_size=8) 78.6, 78.0, 78.2 %.
"""

from qlstm_jax.training import config as configs


def get_config():
    config = configs.default()
    config.problem = "text"
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
