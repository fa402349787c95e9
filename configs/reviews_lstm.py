"""Sentiment of short texts from a file of your own by an LSTM: the budget of reviews_ql_lstm.

python train.py --config=configs/reviews_lstm.py --config.text.path=reviews.tsv --workdir=runs/reviews_lstm
python eval.py --workdir=runs/reviews_lstm

Measured as there, seeds 0, 1, 2: test accuracy 79.0, 79.8, 79.3 %, mean 79.4 %; 131,584 recurrent parameters.
"""

from configs import reviews_ql_lstm


def get_config():
    config = reviews_ql_lstm.get_config()
    config.model.cell = "lstm"
    return config
