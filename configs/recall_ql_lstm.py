"""The class of the first token, named after 1,024 tokens of noise, by a QL-LSTM.

python train.py --config=configs/recall_ql_lstm.py --workdir=runs/recall_ql_lstm
python eval.py --workdir=runs/recall_ql_lstm

Measured on two CPU cores (shared AMD EPYC), seed 0: validation accuracy 1.000 from step 200 on; at the end 1.000 after
1,024 tokens, and 1.000 after 2,048 and 4,096. 200 to 300 s for the 300 steps.
"""

from qlstm_jax.training import config as configs


def get_config():
    config = configs.default()
    config.task = "recall"
    config.recall.length = 1024
    config.model.cell = "ql_lstm"
    config.model.hidden_size = 64
    config.model.embedding_size = 64
    config.train.steps = 300
    config.train.batch_size = 64
    config.train.learning_rate = 3e-3
    config.train.eval_every = 100
    config.train.checkpoint_every = 150
    return config
