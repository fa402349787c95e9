"""The paper's study, IMDB reviews (arXiv 2512.06582), by a QL-LSTM. Needs the dataset: a download by TFDS, or a copy.

python train.py --config=configs/imdb_ql_lstm.py --workdir=runs/imdb_ql_lstm
python train.py --config=configs/imdb_ql_lstm.py --config.text.path=/path/to/aclImdb ...

Not measured here: the dataset was not at hand. The paper reports 87.83 % accuracy and 87.82 % macro-F1.
"""

from qlstm_jax.training import config as configs


def get_config():
    config = configs.default()
    config.task = "text"
    config.text.dataset = "imdb_reviews"
    config.text.vocab_size = 30000
    config.text.max_length = 512
    config.text.num_buckets = 4
    config.model.cell = "ql_lstm"
    config.model.hidden_size = 256
    config.model.embedding_size = 128
    config.model.pooling = "mean_max"
    config.model.dropout = 0.5
    config.model.embedding_dropout = 0.3
    config.train.batch_size = 64
    config.train.steps = 3500
    config.train.schedule = "cosine"
    config.train.warmup_steps = 200
    config.train.eval_every = 350
    config.train.checkpoint_every = 350
    config.train.select = "best"
    return config
