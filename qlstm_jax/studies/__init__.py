"""Whole grids of runs as one command: `python -m qlstm_jax.studies.formal --help`."""
