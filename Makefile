# Everything is set up in .venv; nothing else has to be installed by hand but Python >= 3.11 on Linux and, for clusters, Rust.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
# Without Rust the tests of clusters are skipped, and pytest says so; CI insists on it.
RUST   := 1.85
CARGO  := $(shell for c in `command -v cargo` "$$HOME/.cargo/bin/cargo"; do \
	"$$c" --version 2>/dev/null | awk -v want=$(RUST) '{split($$2, has, "."); split(want, w, "."); \
	ok = has[1] > w[1] || has[1] == w[1] && has[2] + 0 >= w[2] + 0} END {exit !ok}' && echo "$$c" && break; done)
RAFT   := $(if $(CARGO)$(filter true,$(CI)),$(VENV)/raft.stamp)

.DEFAULT_GOAL := help
.PHONY: help demo test raft lint format bench soak clean

help: ## this list
	@echo "make demo   run the flights example on a one-node Grampus, with live progress, and show its report"
	@echo "make test   every check and test that CI runs, two at a time (JOBS=number for more)"
	@echo "make raft   build and test grampus_raft, the part in Rust that clusters need (make test does it too)"
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

$(VENV)/raft.stamp: $(wildcard raft/src/*.rs raft/src/*/*.rs) raft/Cargo.toml raft/pyproject.toml raft/grampus_raft.pyi | $(VENV)/dev.stamp
	@test -n "$(CARGO)" || { echo "grampus_raft needs Rust $(RUST) or newer, and there is none: get it from https://rustup.rs, then say: make raft" >&2; exit 2; }
	@echo "Building and testing grampus_raft (a minute or two, once) ..."
	@cd raft && PATH="$(dir $(CARGO)):$$PATH" cargo test -q --no-default-features
	@PATH="$(dir $(CARGO)):$$PATH" $(PIP) install --force-reinstall --no-deps ./raft
	@touch $@

demo: $(VENV)/demo.stamp
	@$(BIN)/python examples/flights/demo.py

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

raft: $(VENV)/raft.stamp

# Two at a time, however many cores there are: most tests wait, and some measure how long.
test: lint $(RAFT)
	@$(BIN)/python -m pytest -n $(or $(JOBS),2) --dist worksteal

format: $(VENV)/dev.stamp
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m benchmarks $(BENCH)

soak: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.soak --minutes $(or $(SOAK),10)
	@SOAK=$(or $(SOAK),10) $(BIN)/python -m pytest tests/properties tests/simulation --hypothesis-profile=soak --timeout=0

clean:
	rm -rf $(VENV) demo bench-results .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist raft/target raft/Cargo.lock
