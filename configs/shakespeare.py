"""Tiny Shakespeare, character by character, by any cell, on the budget of nanoGPT's recipe for a CPU.

python train.py --config=configs/shakespeare.py:ql_lstm --config.lm.path=tiny_shakespeare.txt --workdir=runs/shakespeare

2,000 steps of 12 windows of 64 characters, 1.5 million in all; the text is ASCII, so a byte is a character. The first
90 % train, the rest but for the last 1,673 characters validates. That recipe's Transformer of 0.80 million parameters
is said to reach about 1.88 nats on validation.
"""

from qlstm_jax.training import config as configs


def get_config(cell="ql_lstm"):
    config = configs.default()
    config.problem = "lm"
    config.lm.length = 64
    config.lm.validation = 0.0985
    config.lm.test = 0.0015
    config.lm.validation_tokens = 131072
    config.lm.restart = 16 if cell == "ql_lstm" else 0
    config.model.cell = cell
    config.model.embedding_size = 64
    config.model.hidden_size = 256
    config.model.transformer.causal = cell == "transformer"
    config.train.steps = 2000
    config.train.batch_size = 12
    config.train.learning_rate = 6e-3
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.eval_every = 250
    config.train.checkpoint_every = 500
    config.train.select = "best"
    return config
