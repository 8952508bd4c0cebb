# Every target sets up what it needs. With an environment of your own: make test VENV=path/to/it
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python

.PHONY: demo test check figures bench clean

demo: $(VENV)/.ready          ## LoRA+ on the real MiniLM and Rotten Tomatoes, about a minute on two cores
	$(RUN) train.py tracker=none

test: $(VENV)/.ready          ## every test; those that need a GPU are skipped where there is none
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.ready         ## lint, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

figures: $(VENV)/.ready       ## every figure and the claims table, from analysis/results/*.csv; seconds, trains nothing
	$(VENV)/bin/loralab figure all
	$(VENV)/bin/loralab claims

bench: $(VENV)/.ready         ## speed against HF Trainer + PEFT, 25 minutes; leave the machine alone meanwhile
	$(RUN) benchmarks/step_time.py

clean:                        ## removes the environment; outputs/ stays
	rm -rf $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt requirements-demo.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "loralab needs Python 3.11 or newer: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(RUN) -m pip install --quiet --no-deps --requirement requirements-demo.txt
	touch $@
