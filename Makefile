# make            installs into .venv and runs the quickstart: trains, evaluates, draws
# make test       installs what the tests need and runs them
# make lint       style alone
# make types      the types alone
# make shapes     the tests of cells and models, with every annotated shape and dtype checked at each call

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

quickstart: $(VENV)/.installed
	$(BIN)/python train.py
	$(BIN)/python eval.py
	@echo "Next, after . $(VENV)/bin/activate:"
	@echo "  python train.py --config=configs/recall_ql_lstm.py      a memory of 1,024 tokens, in some minutes"
	@echo "  python train.py --config=configs/formal.py:bucket_sort,pr_lstm --workdir=runs/sort"
	@echo "  python train.py --config=configs/reviews_ql_lstm.py --config.text.path=YOUR.tsv"

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=15

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/python -m mypy

shapes: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --jaxtyping-packages=qlstm_jax.cells,qlstm_jax.models,tests.typechecker.check tests/cells tests/models

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Python 3.11 or newer is needed, this is ' + sys.version.split()[0] + '; name another one: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

.PHONY: quickstart test lint types shapes
