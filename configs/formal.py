"""Any formal language with any cell, as in the benchmark: batch 128, lengths 1..40, Adam 1e-3, gradients clipped at 1.

python train.py --config=configs/formal.py:reverse_string,lstm --workdir=runs/reverse_lstm
"""

from qlstm_jax.training import config as configs


def get_config(task_and_cell="parity_check,pr_lstm"):
    config = configs.default()
    config.formal.task, config.model.cell = task_and_cell.split(",")
    config.train.steps = 10_000
    config.train.log_every = 100
    config.train.eval_every = 1000
    config.train.checkpoint_every = 1000
    return config
