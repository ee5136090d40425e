# `make demo` and `make test` work as first commands on a fresh clone: they make .venv and install what they need.

PYTHON ?= python3
export PIP_EXTRA_INDEX_URL
# Threads that wait sleep, so that other work on the machine costs little.
export OMP_WAIT_POLICY ?= PASSIVE
# The CPU build where the package index gives that one. Elsewhere, without a GPU: make PIP_EXTRA_INDEX_URL=\
# https://download.pytorch.org/whl/cpu TORCH=torch==2.13.0+cpu demo. With an NVIDIA GPU: make TORCH='torch>=2.4,<3' demo
TORCH ?= torch==2.13.0
BIN := .venv/bin
# What the compiled search kernel is built from.
KERNEL := CMakeLists.txt $(wildcard src/hashlgn/_scan/*.?pp)

.PHONY: demo test check format clean

demo: .venv/.demo
	$(BIN)/hashlgn demo

test: check
	$(BIN)/python -m pytest

check: .venv/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

format: .venv/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv hashlgn-demo dist build .mypy_cache .ruff_cache .pytest_cache

.venv/.torch: Makefile
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	touch $@

.venv/.demo: .venv/.torch pyproject.toml $(KERNEL)
	$(BIN)/python -m pip install --quiet --editable '.[train,report]'
	touch $@

.venv/.dev: .venv/.torch pyproject.toml $(KERNEL)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/.demo
