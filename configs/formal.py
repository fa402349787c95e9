"""Any formal language with any cell, as in the benchmark: batch 128, lengths 1..40, Adam 1e-3, gradients clipped at 1.

python train.py --config=configs/formal.py:reverse_string,lstm --workdir=runs/reverse_lstm

pr_lstm is also a tree of other merges: --config=configs/formal.py:cycle_navigation,pr_lstm:ldru, or :rnn, :grc. On
cycle_navigation (H 64, 1,000 steps of 64 at 1e-3, cosine, about half a minute on one core) they reach, in range and at
lengths 41..80, as means of three seeds in percent: ldru 100.0 and 100.0, grc 90.8 and 65.2, lstm 77.3 and 44.1, rnn
57.3 and 23.7.
"""

from qlstm_jax.training import config as configs


def get_config(task_and_cell="parity_check,pr_lstm"):
    config = configs.default()
    config.formal.task, cell = task_and_cell.split(",")
    config.update_from_flattened_dict(configs.cell_settings(cell))
    config.train.steps = 10_000
    config.train.log_every = 100
    config.train.eval_every = 1000
    config.train.checkpoint_every = 1000
    return config
