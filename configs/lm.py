"""Language modelling of bytes with any cell: by default, of the sources of Python's own standard library.

python train.py --config=configs/lm.py:ql_lstm --workdir=runs/lm
python eval.py --workdir=runs/lm
python generate.py --workdir=runs/lm --prompt="def " --tokens=200

Another text: --config.lm.path=FILE, or a folder of *.txt files (--config.lm.pattern), or a dataset of TFDS by name,
--config.lm.dataset=tiny_shakespeare, which path then says the folder of.
"""

from qlstm_jax.training import config as configs


def get_config(cell="ql_lstm"):
    config = configs.default()
    config.problem = "lm"
    config.lm.length = 128
    # Its memory never fades: carried on without end it becomes a vector that only these very streams have.
    config.lm.restart = 16 if cell == "ql_lstm" else 0
    config.model.cell = cell
    config.model.embedding_size = 64
    config.model.hidden_size = 256
    config.model.transformer.causal = cell == "transformer"
    config.train.steps = 2000
    config.train.batch_size = 32
    config.train.learning_rate = 2e-3
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.select = "best"
    return config
