# `make demo` and `make test` are all that a newcomer needs; HACKING.md says when to use the rest.
#
# Everything is made inside this tree: the virtual environment in .venv, generated C and objects in build/. A file of the
# name .venv/.installed or build/.built stands for "this was done", so that a second call does nothing.

PYTHON ?= python3
# Extra words for pytest: make test ARGS="-k inventory -x"
ARGS ?=
# The data folder of `make serve`, and its settings (empty: the defaults).
DATA ?= build/data
CONFIG ?=
# The run of `make simulate`: a seed (empty: drawn), and where it ends (empty: after 2,000 steps).
SEED ?=
STEPS ?=
CRASHES ?=
# How long `make soak` goes on (empty: 120).
MINUTES ?=

# Where a machine says so, every process would compile every module anew: the tests start a few hundred.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
SOURCES := $(shell find engine -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi')
PROTOS := $(shell find proto -name '*.proto')

.DEFAULT_GOAL := build
.PHONY: build test lint format bench bench-lines bench-peers overload soak controller fit caps reports foresight proto debug sanitized sanitize fuzz fuzz-readers fuzz-guided simulate histories lock licences sbom audit wheel serve demo clean

build: build/.built

# A folder .venv that another Python has left is made anew; one that is being used is kept.
.venv/.created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "simswitch needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	touch $@

# What is tested is what is deployed: every package by the hashes of the lock, what building needs among them. The
# extensions are then compiled once, in place, with the same Cython that `make build` uses later.
.venv/.installed: .venv/.created pyproject.toml dependencies/development.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r dependencies/development.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

# The drivers of `make bench-peers`; nothing else needs them.
.venv/.peers: .venv/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[peers]'
	touch $@

# What writes the lists in dependencies/ and asks for known vulnerabilities; nothing else needs it.
.venv/.supply: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[supply]'
	touch $@

build/.built: .venv/.installed setup.py $(SOURCES)
	mkdir -p build
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch $@

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: build
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two processes, since tests wait for disks, processes and clocks half of the time; the tests of a file stay together and
# in order. One that ends is not replaced: the run then fails, where a replaced one has left it standing for ever.
# ARGS="-n 0": one process, as a debugger wants it.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 $(ARGS)

bench: build
	$(BIN)/python -m benches.run $(ARGS)

bench-lines: build
	$(BIN)/python -m benches.run --only lines --json build/bench-lines.json $(ARGS)

# Five times the load that the service can carry, on both transports; leaves build/overload.json.
overload: build
	$(BIN)/python -m benches.overload $(ARGS)

# A real server, its follower and load for two hours: does anything grow? Leaves build/soak.json and build/soak.png.
soak: build
	$(BIN)/python -m tests.soak.run $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

# Redis, PostgreSQL and SQLite at the same job; as root it installs the Debian packages that are missing.
bench-peers: build .venv/.peers
	$(BIN)/python -m benches.peers $(ARGS)

# A job on access servers of every speed, in the twin, beside the best fixed batch that a search finds.
controller: build
	$(BIN)/python -m tests.twin.controller $(ARGS)

fit: build
	$(BIN)/python -m tests.twin.fit $(ARGS)

# Detector and learner against carriers with hidden caps: 50 seeds, drawn when it runs.
caps: build
	$(BIN)/python -m tests.caps.season $(ARGS)

# Reports over a history of 10,000,000 subscribers and a month: time and memory. Takes 10 GB of disk meanwhile.
reports: build
	$(BIN)/python -m tests.reports.large $(ARGS)

# A month in which the believed cap is wrong, on the engine: what is said on each morning, beside what happened.
foresight: build
	$(BIN)/python -m tests.planning.twin_month --plot build/foresight.png $(ARGS)

proto: build
	$(BIN)/python proto/generate.py

# The checked build stands in build/checked, apart from the fast one, and its tests run with it first on the path.
debug: build
	SIMSWITCH_DEBUG=1 $(BIN)/python setup.py --quiet build --build-base build/checked --build-lib build/checked/lib
	PYTHONPATH=build/checked/lib $(BIN)/python -m pytest tests/core $(ARGS)

# The sanitizers' build stands in build/sanitized. Their libraries have to be there before Python is; Python leaves memory
# to the end of the process, and its own allocator would hide where a block ends. Of what was freed 32 MB are watched, so
# that memory which grows can be told from memory which is kept back.
SANITIZED = PYTHONPATH=build/sanitized/lib PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=32 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" $(BIN)/python

sanitized: build
	SIMSWITCH_SANITIZE=1 $(BIN)/python setup.py --quiet build --build-base build/sanitized --build-lib build/sanitized/lib

sanitize: sanitized
	$(SANITIZED) -m pytest -p no:cacheprovider tests/core tests/wire tests/fuzz $(ARGS)

# A million messages through the wire and through protobuf's parser, under the sanitizers.
fuzz: sanitized
	$(SANITIZED) -m tests.fuzz.run $(ARGS)

# A million files, each nearly sound or forged, into every reader of files, under the sanitizers.
fuzz-readers: sanitized
	$(SANITIZED) -m tests.fuzz.readers $(ARGS)

.venv/.fuzz: .venv/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[fuzz]'
	touch $@

# Every reader of files, led by coverage: what atheris finds; ARGS="--keep" adds to tests/fuzz/corpus.
fuzz-guided: build .venv/.fuzz
	$(BIN)/python -m tests.fuzz.guided $(ARGS)

# One seed drives load, time and faults over the real cell on a disk in memory; leaves build/simulate.json.
simulate: build
	$(BIN)/python -m tests.simulator.run $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS)) \
		$(if $(CRASHES),--crashes $(CRASHES)) $(ARGS)

# Three access servers and an operator against a real server that is killed 200 times; leaves build/histories.json.
histories: build
	$(BIN)/python -m tests.histories.run $(if $(SEED),--seed $(SEED)) $(ARGS)

# The locks of pyproject.toml, one resolution for all; ARGS="--upgrade" takes newer releases, otherwise those that
# stand there stay where they can. Licences and the bill of materials go with them.
LOCK = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header pyproject.toml

lock: .venv/.supply
	$(LOCK) --extra dev --output-file dependencies/development.txt $(ARGS)
	$(LOCK) --extra production --constraints dependencies/development.txt --output-file dependencies/production.txt
	$(LOCK) --constraints dependencies/development.txt --output-file dependencies/base.txt
	$(MAKE) licences sbom

licences: build
	$(BIN)/python -m dependencies.licences

sbom: build .venv/.supply
	$(BIN)/python -m dependencies.sbom

# Every release of the lock against the database of known vulnerabilities; one that it can't be asked about fails too.
# ARGS="--advisories FILE": asks nobody.
audit: .venv/.supply
	$(BIN)/python -m dependencies.audit $(ARGS)

wheel: build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

serve: build
	$(BIN)/simswitch serve $(DATA) $(if $(CONFIG),--config $(CONFIG))

demo: build
	$(BIN)/simswitch demo --output build

clean:
	rm -rf build dist engine/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find engine -name '*.so' -delete
	find engine tests benches -name __pycache__ -type d -prune -exec rm -rf {} +
