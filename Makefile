# demo | serve | test | check | bench | train. Each sets up what it needs in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SCAN ?=
DATA ?= ../shared/data/hippocampus
CONFIG ?= training/configs/hippocampus.toml
STORE ?= runs/models

# A stamp per set of extras: installed once, again when what is installed or compiled changes.
SOURCES := pyproject.toml constraints.txt $(wildcard nca/engine/native/CMakeLists.txt nca/engine/native/src/*)
RUN_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: demo serve test check bench train clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# torch first and by its exact version, so that pip takes a CPU build where it is given one.
$(RUN_STAMP): $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	touch $@

$(DEV_STAMP): $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@ $(RUN_STAMP)

demo: $(RUN_STAMP)
	$(BIN)/python -m ncagate.demo $(SCAN)

serve: $(RUN_STAMP)
	$(BIN)/ncagate serve

test: $(DEV_STAMP)
	$(BIN)/python -m pytest

check: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.service

train: $(DEV_STAMP)
	$(BIN)/ncagate train --data $(DATA) --config $(CONFIG) --store $(STORE)

clean:
	rm -rf $(VENV) demo-out bench-out runs
