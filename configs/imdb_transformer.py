"""IMDB reviews by a Transformer: the data and budget of imdb_ql_lstm, for comparison.

python train.py --config=configs/imdb_transformer.py --workdir=runs/imdb_transformer

Not measured here: the dataset was not at hand.
"""

from configs import imdb_ql_lstm


def get_config():
    config = imdb_ql_lstm.get_config()
    config.model.cell = "transformer"
    return config
