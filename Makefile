# Everything is set up in .venv; nothing else has to be installed by hand but Python >= 3.11 on Linux.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench soak clean

help: ## this list
	@echo "make demo   run the flights example on a one-node Grampus, with live progress, and show its report"
	@echo "make test   every check and test that CI runs"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make format write the code in its one format"
	@echo "make bench  speed, side by side with the limits of this machine (BENCH=name for one)"
	@echo "make soak   kill -9 of a busy node for SOAK=minutes (default 10), then the random tests with many more examples"
	@echo "make clean  remove what the above made"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Grampus needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Say: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian and Ubuntu, install python3-venv" >&2; exit 2; }

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Grampus and the libraries of the demo into $(VENV) (a minute or so, once) ..."
	@$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Grampus and the tools of its tests into $(VENV) (a minute or so, once) ..."
	@$(PIP) install -c constraints.txt -e '.[dev,demo]'
	@touch $@ $(VENV)/demo.stamp

demo: $(VENV)/demo.stamp
	@$(BIN)/python examples/flights/demo.py

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

test: lint
	@$(BIN)/python -m pytest

format: $(VENV)/dev.stamp
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m benchmarks $(BENCH)

soak: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.soak --minutes $(or $(SOAK),10)
	@SOAK=$(or $(SOAK),10) $(BIN)/python -m pytest tests/properties tests/simulation --hypothesis-profile=soak --timeout=0

clean:
	rm -rf $(VENV) demo bench-results .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
