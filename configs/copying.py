"""The copying problem with any cell: ten symbols of eight, said again after LENGTH blanks.

python train.py --config=configs/copying.py:lstm,100 --workdir=runs/copying_lstm
python eval.py --workdir=runs/copying_lstm

LSTM and GRU learn it faster with biases of all time scales: --config.model.lstm.chrono=100, the length.
"""

from qlstm_jax.training import config as configs


def get_config(cell_length="lstm,100"):
    config = configs.default()
    config.problem = "copying"
    cell, length = cell_length.split(",")
    config.model.cell, config.copying.length = cell, int(length)
    config.model.hidden_size = 128
    config.model.embedding_size = 16
    config.model.transformer.causal = cell == "transformer"
    config.train.steps = 4000
    config.train.batch_size = 64
    return config
