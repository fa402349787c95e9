"""IMDB reviews by a QL-LSTM without its block memory, PSUG alone: the data and budget of imdb_ql_lstm, for comparison.

python train.py --config=configs/imdb_psug.py --workdir=runs/imdb_psug

Not measured here: the dataset was not at hand.
"""

from configs import imdb_ql_lstm


def get_config():
    config = imdb_ql_lstm.get_config()
    config.model.ql_lstm.skip = False
    return config
