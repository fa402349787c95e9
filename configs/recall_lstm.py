"""The class of the first token, named after 1,024 tokens of noise, by an LSTM: the budget of recall_ql_lstm.

python train.py --config=configs/recall_lstm.py --workdir=runs/recall_lstm
python eval.py --workdir=runs/recall_lstm

Measured on two CPU cores (shared AMD EPYC), seed 0: 0.109 after 1,024 tokens; trained at 4,096 tokens, 300 steps of 32,
0.137 there. Chance is 0.125. With biases of all time scales, --config.model.lstm.chrono=1024, and batches of 32: 1.000,
0.898 and 1.000 (seeds 0, 1, 2).
"""

from configs import recall_ql_lstm


def get_config():
    config = recall_ql_lstm.get_config()
    config.model.cell = "lstm"
    config.model.ql_lstm.forget_bias = 1.0  # as by default: an LSTM does not use it
    return config
