"""The class of the first token, named after 1,024 tokens of noise, by a QL-LSTM.

python train.py --config=configs/recall_ql_lstm.py --workdir=runs/recall_ql_lstm
python eval.py --workdir=runs/recall_ql_lstm

Measured on two CPU cores (shared AMD EPYC): validation accuracy 1.000 from step 100, 150 and 100 on (seeds 0, 1, 2);
after 200 steps of seeds 0 and 1 1.000 after 1,024 and 2,048 tokens and 1.000 and 0.875 after 4,096. With the default
forget bias of 1, seed 0 takes 200 steps and seed 1 300. Trained at 4,096 tokens itself, by --config.recall.length=4096
--config.train.batch_size=32, 1.000 from step 250 on, and 1.000 at 1,024 to 16,384; 3.5 minutes of training.
"""

from qlstm_jax.training import config as configs


def get_config():
    config = configs.default()
    config.problem = "recall"
    config.recall.length = 1024
    config.model.cell = "ql_lstm"
    config.model.ql_lstm.forget_bias = 2.0
    config.model.hidden_size = 64
    config.model.embedding_size = 64
    config.train.steps = 300
    config.train.batch_size = 64
    config.train.learning_rate = 3e-3
    config.train.eval_every = 100
    config.train.checkpoint_every = 150
    return config
