"""Selective copying with any cell: 16 symbols of 14 among LENGTH tokens, said in order (arXiv 2312.00752).

python train.py --config=configs/selective_copying.py:mlstm,256 --workdir=runs/selective_copying
python eval.py --workdir=runs/selective_copying
"""

from qlstm_jax.training import config as configs


def get_config(cell_length="mlstm,256"):
    config = configs.default()
    config.problem = "selective_copying"
    cell, length = cell_length.split(",")
    config.model.cell, config.selective_copying.length = cell, int(length)
    config.model.hidden_size = 128
    config.model.embedding_size = 32
    config.model.transformer.causal = cell == "transformer"
    config.train.steps = 4000
    config.train.batch_size = 64
    return config
