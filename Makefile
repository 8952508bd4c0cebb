# Every target sets up what it needs. With an environment of your own: make test VENV=path/to/it
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python

.PHONY: demo test test-all test-gpu test-versions check docs figures bench clean

demo: $(VENV)/.ready          ## LoRA+ on the real MiniLM and Rotten Tomatoes, about a minute on two cores
	"$(RUN)" train.py tracker=none

# In the order of tests/conftest.py, slow files first; xdist's own order has those of few tests, which are slow, last.
PYTEST = "$(RUN)" -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.ready          ## the gate, some minutes; tests that need a GPU are skipped where there is none
	$(PYTEST) -m gate --durations=10

test-all: $(VENV)/.ready      ## every test: each kill, each launcher, the smoke size of every study; about 12 minutes on two cores
	$(PYTEST)

test-gpu: $(VENV)/.ready      ## the tests that need a GPU, with a packaged MiniLM, on one
	"$(RUN)" -m pytest -n 0 -m gpu

test-versions: $(VENV)/.ready ## the quick tests on other processors, threads, a busy machine, and the oldest and newest libraries
	"$(RUN)" tests/matrix.py settings
	"$(RUN)" tests/matrix.py versions

check: $(VENV)/.ready         ## lint, format and types
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/mypy"

docs: $(VENV)/.ready          ## the documentation as docs/_build/html, built offline; broken links are errors
	"$(RUN)" -m sphinx -W -n --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html
	"$(RUN)" -m pytest -n 0 tests/test_docs.py

figures: $(VENV)/.ready       ## every figure and the claims table, from analysis/results/*.csv; seconds, trains nothing
	"$(VENV)/bin/loralab" figure all
	"$(VENV)/bin/loralab" claims

bench: $(VENV)/.ready         ## speed against HF Trainer + PEFT, 25 minutes; leave the machine alone meanwhile
	"$(RUN)" benchmarks/step_time.py

clean:                        ## removes the environments; outputs/ stays
	rm -rf "$(VENV)" .venv-versions

INSTALL = "$(RUN)" -m pip install --quiet --disable-pip-version-check
LOG = $(VENV)/install.log
FAILED = { grep -m 1 '^ERROR' "$(LOG)" || tail -n 1 "$(LOG)"; \
	echo 'error: the packages of constraints.txt cannot be installed (all of it: $(LOG)); another Python may have them:' \
	'make PYTHON=python3.13'; exit 1; } >&2

$(VENV)/.ready: pyproject.toml constraints.txt requirements-demo.txt
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 14) else "error: loralab is tested on Python 3.11 to 3.14, and this is {}.{}; name another: make PYTHON=python3.13".format(*v))'
	@test -x "$(RUN)" || "$(PYTHON)" -m venv "$(VENV)"
	@"$(RUN)" -m pip --version >/dev/null 2>&1 || "$(RUN)" -m ensurepip --upgrade >/dev/null
	@echo 'installing into $(VENV), a minute or a few'
	@# a torch that is there already stays as it is
	@{ grep -v '^torch==' constraints.txt; "$(RUN)" -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' 2>/dev/null || \
		grep '^torch==' constraints.txt; } >"$(VENV)/constraints.txt"
	@$(INSTALL) --constraint "$(VENV)/constraints.txt" --editable '.[dev]' >"$(LOG)" 2>&1 || $(FAILED)
	@$(INSTALL) --no-deps --requirement requirements-demo.txt >"$(LOG)" 2>&1 || $(FAILED)
	@touch "$@"
