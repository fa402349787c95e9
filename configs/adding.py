"""The adding problem with any cell: the sum of the two marked ones of LENGTH numbers.

python train.py --config=configs/adding.py:ql_lstm,200 --workdir=runs/adding_ql_lstm
python eval.py --workdir=runs/adding_ql_lstm

QL-LSTM wants biases of all time scales for it, --config.model.ql_lstm.chrono=200 (the length), and LSTM and GRU gain by
them.
"""

from qlstm_jax.training import config as configs


def get_config(cell_length="lstm,200"):
    config = configs.default()
    config.problem = "adding"
    cell, length = cell_length.split(",")
    config.model.cell, config.adding.length = cell, int(length)
    config.model.hidden_size = 128
    config.train.steps = 4000
    config.train.batch_size = 64
    return config
