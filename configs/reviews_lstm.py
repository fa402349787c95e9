"""Sentiment of short texts from a file of your own by an LSTM: the budget of reviews_ql_lstm.

python train.py --config=configs/reviews_lstm.py --config.text.path=reviews.tsv --workdir=runs/reviews_lstm
"""

from configs import reviews_ql_lstm


def get_config():
    config = reviews_ql_lstm.get_config()
    config.model.cell = "lstm"
    return config
