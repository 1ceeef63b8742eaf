# Two commands do everything: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-long test-all lint docs learning bench clean

# Train ODAC on a robot arm until it is solved, evaluate it, draw the curve and film the result.
demo: $(VENV)/.installed
	@rm -rf runs/demo
	@$(PY) -m rllib_odac.cli train FetchReach-v4 --steps 6000 --stop-success 0.95 \
		--evaluate-every 500 --out runs/demo
	@$(PY) -m rllib_odac.cli evaluate runs/demo/checkpoint_final --video runs/demo/solved.mp4

# One queue of tests, the long ones first. Each worker starts one Ray for all of its tests and waits
# for it more than it computes, so that three of them keep two cores busy.
PYTEST = $(PY) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --durations 25
test: lint
	@$(PYTEST) -m "not slow and not long"

# Those that take most of a minute or more each: with `make test`, what continuous integration runs.
test-long: $(VENV)/.installed-dev
	@$(PYTEST) -m "long and not slow"

# The slow ones too: minutes to hours.
test-all: lint
	@$(PYTEST)

lint: $(VENV)/.installed-dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

# The documentation's site, in site/.
docs: $(VENV)/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# What is missing of the learning results: days on two cores, and it goes on where it stopped.
learning: $(VENV)/.installed-dev
	@for study in paper_comparison.py paper_ablation.py fetch_push_variants.yaml; do \
		$(PY) -m rllib_odac.cli study tune_configs/$$study --runs runs/paper \
			--out benchmarks/results/$${study%.*} || exit 1; \
	done

# What one update costs, beside bare PyTorch, Stable-Baselines3 and RLlib's own SAC.
bench: $(VENV)/.installed-bench
	@$(PY) benchmarks/throughput.py

# PyTorch first and by its version: an open range would bring a build for another machine.
INSTALL = "$(PY)" -m pip install --quiet --constraint constraints.txt

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is too old: Python 3.11 or later is needed (make PYTHON=...)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(PY) pyproject.toml constraints.txt
	$(INSTALL) torch
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable ".[dev]"
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(INSTALL) --editable ".[bench]"
	@touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
