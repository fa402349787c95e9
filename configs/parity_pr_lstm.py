"""PR-LSTM learns parity at lengths 1..40 and is scored at 41..500, the paper's setting at hidden size 64.

python train.py --config=configs/parity_pr_lstm.py --workdir=runs/parity
python eval.py --workdir=runs/parity
"""

from qlstm_jax.training import config as configs


def get_config():
    config = configs.default()
    config.task = "parity_check"
    config.model.cell = "pr_lstm"
    config.train.steps = 1000
    config.train.eval_every = 250
    return config
