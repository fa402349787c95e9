"""PR-LSTM learns parity on short strings and is tested on longer ones: the first thing to run.

python train.py && python eval.py
"""

from qlstm_jax.training import config as configs


def get_config():
    config = configs.default()
    config.formal.task = "parity_check"
    config.model.cell = "pr_lstm"
    config.model.hidden_size = 64
    config.train.steps = 800
    config.train.eval_every = 400
    config.train.checkpoint_every = 400
    config.eval.max_length = 200
    config.eval.sequences = 32
    return config
