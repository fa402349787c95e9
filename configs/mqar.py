"""Multi-query associative recall with any cell: PAIRS key-value pairs, then as many questions within LENGTH tokens.

python train.py --config=configs/mqar.py:mlstm,8,128 --workdir=runs/mqar_mlstm
python eval.py --workdir=runs/mqar_mlstm
"""

from qlstm_jax.training import config as configs


def get_config(cell_pairs_length="mlstm,4,64"):
    config = configs.default()
    config.problem = "mqar"
    cell, pairs, length = cell_pairs_length.split(",")
    config.model.cell, config.mqar.num_pairs, config.mqar.length = cell, int(pairs), int(length)
    config.model.num_layers = 2
    config.model.transformer.causal = cell == "transformer"
    config.train.steps = 2000
    config.train.batch_size = 64
    config.train.learning_rate = 2e-3
    return config
