"""Forecasts of a csv file of your own with any cell: PATH has a row for each time and a column for each series.

python train.py --config=configs/series.py:lstm,my.csv --workdir=runs/series_lstm
python eval.py --workdir=runs/series_lstm

From 96 rows the next 24 are forecast, all columns at once; --config.series.targets=NAME,NAME forecasts some of them.
What follows the end of the file is in eval/next.csv, with the times that follow those of the file.
python eval.py --workdir=runs/series_lstm --predict_file=new.csv forecasts what follows another file's last row.
With --config.series.period=24 the report has the seasonal naive forecast too, here that of a day of hours.
"""

from qlstm_jax.training import config as configs


def get_config(cell_path="lstm,my.csv"):
    config = configs.default()
    config.problem = "series"
    config.model.cell, config.series.path = cell_path.split(",", 1)
    config.model.hidden_size = 128
    config.train.steps = 2000
    config.train.batch_size = 64
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.eval_every = 250
    config.train.select = "best"
    return config
