"""Whole grids of runs as one command: `python -m qlstm_jax.benchmark.formal --help`."""
