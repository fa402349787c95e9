"""Handwritten digits with any cell: MODE pixels, an image pixel by pixel, or clips, the sum of two digits that move.

pip install ".[digits]"
python train.py --config=configs/digits.py:lstm,pixels --workdir=runs/digits_lstm
python eval.py --workdir=runs/digits_lstm

The 1,797 images of 8 x 8 are those of scikit-learn; 70 % are trained on, 10 % validate and 20 % test.
"""

from qlstm_jax.training import config as configs


def get_config(cell_mode="lstm,pixels"):
    config = configs.default()
    config.problem = "digits"
    config.model.cell, config.digits.mode = cell_mode.split(",")
    clips = config.digits.mode == "clips"
    config.model.hidden_size = 128
    config.model.pooling = "mean" if clips else "last"
    config.train.steps = 10_000 if clips else 2000
    config.train.batch_size = 64
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.select = "best"
    config.eval.sequences = 2048  # clips
    return config
