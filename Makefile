# demo | pacs-demo | serve | console | test | check | bench | train. Each sets up what it needs in .venv first.
# chaos: faults; fuzz: damaged scans; load: what a gateway takes. audit: known vulnerabilities, secrets, bill of materials.
# sanitize | cross: the native engine under sanitizers, and on another processor.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
SCAN ?=
FUZZ ?=
DATA ?= ../shared/data/hippocampus
CONFIG ?= training/configs/hippocampus.toml
STORE ?= runs/models
SCHEDULES ?= 200
SEED ?= 0

# A stamp per set of extras: installed once, again when what is installed or compiled changes.
SOURCES := pyproject.toml constraints.txt $(wildcard nca/engine/native/CMakeLists.txt nca/engine/native/src/*)
RUN_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev

# Where there is a compiler, what it refuses is an error for developers, and no reason to do without the native engine.
COMPILER := $(shell command -v c++ || command -v g++ || command -v clang++)
NATIVE_TESTS := $(wildcard tests/*/test_native*.py)

.PHONY: demo pacs-demo serve console test check docs-cli audit chaos fuzz load bench dashboards train sanitize sanitize-address sanitize-thread cross clean
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
	$(if $(COMPILER),NCAGATE_REQUIRE_NATIVE=1) $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@ $(RUN_STAMP)

demo: $(RUN_STAMP)
	$(BIN)/python -m ncagate.demo $(SCAN)

# On Debian: apt-get install orthanc orthanc-dicomweb dcmtk
pacs-demo: $(RUN_STAMP)
	$(BIN)/python -m ncagate.pacs_demo $(SCAN)

serve: $(RUN_STAMP)
	$(BIN)/ncagate serve

test: $(DEV_STAMP)
	$(BIN)/python -m pytest

# The review page: built from console/ into the gateway's package, where it is committed. Needs Node 20.19 or newer.
console: console/node_modules/.installed
	cd console && npm run --silent check && npm run --silent build

console/node_modules/.installed: console/package-lock.json
	cd console && npm ci --silent
	touch $@

check: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(shell command -v npm),$(MAKE) --silent check-console)

# Whether its packages can be fetched is not the change's doing; all that is found is.
.PHONY: check-console
check-console:
	$(MAKE) --silent console/node_modules/.installed || echo "the console's types: NOT CHECKED, its packages cannot be fetched"
	[ ! -e console/node_modules/.installed ] || (cd console && npm run --silent check)

# docs/cli.md, from the commands.
docs-cli: $(DEV_STAMP)
	$(BIN)/python -m tests.docs.cli_reference

# Every named fault, then SCHEDULES random sequences of five, the first one from SEED.
chaos: $(DEV_STAMP)
	$(BIN)/python -m tests.chaos --all --schedules $(SCHEDULES) --seed $(SEED)

audit: $(DEV_STAMP) $(TOOLS)/.installed
	$(TOOLS)/bin/python .ci/audit.py

$(TOOLS)/.installed: .ci/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet -r .ci/tools.txt
	touch $@

load: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.load

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.service

# On Debian: apt-get install prometheus
dashboards: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.dashboards

train: $(DEV_STAMP)
	$(BIN)/ncagate train --data $(DATA) --config $(CONFIG) --store $(STORE)

# FUZZ='--count 500 --seed 7 --minutes 5', or --only N for one input; needs ../shared/data.
fuzz: $(DEV_STAMP)
	$(BIN)/python -m tests.fuzz $(FUZZ)

# pip fetches what the build needs (the dev extra has none of it); only the objects are kept between runs.
sanitize: sanitize-address sanitize-thread
sanitize-address: SANITIZERS := address,undefined
sanitize-thread: SANITIZERS := thread
sanitize-address sanitize-thread: sanitize-%: $(DEV_STAMP)
	rm -f build/sanitize/$*/*.whl
	NCAGATE_REQUIRE_NATIVE=1 CXX=g++ $(BIN)/python -m pip wheel --quiet --no-deps -w build/sanitize/$* \
		-C cmake.define.NCAGATE_SANITIZE=$(SANITIZERS) -C cmake.build-type=RelWithDebInfo -C install.strip=false \
		-C build-dir=build/sanitize/$*/objects .
	$(BIN)/python tests/native/run_sanitized.py build/sanitize/$*/*.whl $* -q -k 'not TestMemory' $(NATIVE_TESTS)

# On Debian: apt-get install cmake g++ g++-aarch64-linux-gnu qemu-user
cross:
	tests/native/cross

clean:
	rm -rf $(VENV) $(TOOLS) build demo-out bench-out runs
