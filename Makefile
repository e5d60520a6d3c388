# oxloop's commands; `make help` lists them. Nothing is installed outside of this folder, except that
# the targets for other systems, and downstream, get what they lack by apt-get where they are root on Debian.
#
# PYTHON=python3.13        which interpreter (default: python3)
# VENV=.venv               where the virtual environment is made
# MATURIN_PROFILE=release  or dev-release: less optimised, much quicker to build
# PYTEST_ARGS=...          for pytest
# TEST_WORKERS=4           how many processes share the tests; 0: this one does them, as --pdb needs
# DOWNSTREAM_ARGS=...      for python -m tests.downstream
# SOAK_ARGS=...            for scripts/soak.py: --loop poll, --seed 1, --only tcp_client,udp
# WHEELS_ARGS=...          for scripts/wheels.py: --python 3.13 --kind musllinux
# WINDOWS_ARGS=quick       which part of `make test-windows`: see scripts/windows/test.sh
# LOAD_ARGS=...            for python -m tests.downstream.load: --loop asyncio, --clients 200
# MINUTES=60               how long `make soak`, `make load` and the soak of `make sanitize` take

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL: # cargo and maturin use all cores, and reports should not mix
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV ?= .venv
MATURIN_PROFILE ?= release
PYTEST_ARGS ?=
TEST_WORKERS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
DOWNSTREAM_ARGS ?=

BIN := $(VENV)/bin
STEP := $(BIN)/python scripts/step.py
# The environment is made anew when the interpreter changes: its stamp has the version in its name.
PYTHON_ID := $(shell $(PYTHON) -c 'import platform, sysconfig; \
	print(platform.python_version() + "-" + sysconfig.get_config_var("SOABI"))' 2>/dev/null)
VENV_STAMP := $(VENV)/.made-$(PYTHON_ID)
INSTALLED := $(VENV)/.installed-$(MATURIN_PROFILE)
# The libraries have an environment of their own.
DOWNSTREAM := $(VENV)-downstream
DOWNSTREAM_STAMP := $(DOWNSTREAM)/.made-$(PYTHON_ID)
DOWNSTREAM_INSTALLED := $(DOWNSTREAM)/.installed-$(MATURIN_PROFILE)
SOURCES := $(shell find crates python -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.py' -o \
	-name '*.pyi' -o -name py.typed \)) Cargo.toml Cargo.lock pyproject.toml

.PHONY: help
help:
	@echo "make demo           serve an asyncio program on oxloop and on asyncio, side by side"
	@echo "make test           the engine's tests, then oxloop's, then CPython's own of asyncio"
	@echo "make build          oxloop, built for release, in the virtual environment $(VENV)"
	@echo "make lint           rustfmt, clippy, ruff, mypy and stubtest"
	@echo "make test-all       make test on CPython 3.9 to 3.15 and free-threaded 3.14, and a table"
	@echo "make test-windows   the tests on CPython for Windows 3.13, 3.14 and free-threaded 3.14, under Wine"
	@echo "make downstream     uvicorn, aiohttp, asyncpg and others on oxloop and on asyncio, and a table"
	@echo "make load           a real uvicorn and a real aiohttp on the proactor, under load for ten minutes"
	@echo "make wheels         wheels for Linux and Windows for each CPython found, and an sdist, installed and tried"
	@echo "make check-targets  type-check oxloop for the systems that this one is not"
	@echo "make test-kqueue    the selector of macOS and FreeBSD, on Linux over libkqueue"
	@echo "make soak           random lifecycles with faults for an hour, counting what is left behind"
	@echo "make sanitize       a part of the tests, and a short soak, under AddressSanitizer"
	@echo "make bench          the benchmarks, against asyncio and uvloop"
	@echo "make clean          remove what these have made"

# Says what is missing, and how to get it, before anything is done.
.PHONY: check
check:
	@PYTHON="$(PYTHON)" scripts/check-setup.sh

$(VENV_STAMP): | check
	@echo "Making the virtual environment $(VENV) with Python $(PYTHON_ID)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(STEP) "Installing maturin" $(BIN)/python -m pip install "maturin>=1.9.4,<2"
	@touch $@

$(INSTALLED): $(VENV_STAMP) $(SOURCES) | check
	@$(STEP) "Building oxloop ($(MATURIN_PROFILE); the first time takes minutes)" \
		$(BIN)/maturin build --profile $(MATURIN_PROFILE) --auditwheel skip \
		--interpreter $(BIN)/python --out build/installed
	@$(STEP) "Installing oxloop into $(VENV)" \
		$(BIN)/python -m pip install --force-reinstall --no-deps --no-index --find-links build/installed oxloop
	@rm -f $(VENV)/.installed-*
	@touch $@

# What each kind of work needs, from its requirements file.
$(VENV)/.requirements-%: scripts/%-requirements.txt $(VENV_STAMP)
	@$(STEP) "Installing what $* needs" $(BIN)/python -m pip install -r $<
	@touch $@

$(VENV)/.requirements-test: tests/requirements.txt $(VENV_STAMP)
	@$(STEP) "Installing what the tests need" $(BIN)/python -m pip install -r $<
	@touch $@

.PHONY: build
build: $(INSTALLED)

.PHONY: demo
demo: $(INSTALLED) $(VENV)/.requirements-demo
	@$(BIN)/python scripts/demo.py

.PHONY: test
test: test-engine test-python

.PHONY: test-engine
test-engine: | check
	cargo test --locked --package oxloop-engine

.PHONY: test-python
test-python: $(INSTALLED) $(VENV)/.requirements-test
	@$(BIN)/python -m pytest --numprocesses=$(TEST_WORKERS) --dist=worksteal \
		$$(scripts/conformance-args.sh $(BIN)/python) $(PYTEST_ARGS)

.PHONY: test-all
test-all:
	@scripts/test-all.sh 3.9 3.10 3.11 3.12 3.13 3.14 3.14t 3.15

# As root it installs mingw, Wine and, where rustup has no such target, Debian's Rust.
.PHONY: test-windows
test-windows: | check
	@PYTHON=$(PYTHON) scripts/windows/test.sh $(WINDOWS_ARGS)

$(DOWNSTREAM_STAMP): tests/downstream/requirements.txt $(VENV_STAMP)
	@rm -rf $(DOWNSTREAM)
	@$(PYTHON) -m venv $(DOWNSTREAM)
	@$(STEP) "Installing the libraries into $(DOWNSTREAM)" $(DOWNSTREAM)/bin/python tests/downstream/install.py
	@touch $@

$(DOWNSTREAM_INSTALLED): $(INSTALLED) $(DOWNSTREAM_STAMP)
	@$(STEP) "Installing oxloop into $(DOWNSTREAM)" $(DOWNSTREAM)/bin/python -m pip install \
		--force-reinstall --no-deps --no-index --find-links build/installed oxloop
	@rm -f $(DOWNSTREAM)/.installed-*
	@touch $@

# PostgreSQL and Redis are the system's; as root they are installed if they are missing.
.PHONY: downstream
downstream: $(DOWNSTREAM_INSTALLED)
	@$(DOWNSTREAM)/bin/python -m tests.downstream $(DOWNSTREAM_ARGS)

.PHONY: load
load: $(DOWNSTREAM_INSTALLED)
	@$(DOWNSTREAM)/bin/python -m tests.downstream.load --minutes $(or $(MINUTES),10) $(LOAD_ARGS)

.PHONY: lint
lint: lint-rust lint-python

.PHONY: lint-rust
lint-rust: $(VENV_STAMP)
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: lint-python
lint-python: $(INSTALLED) $(VENV)/.requirements-test $(VENV)/.requirements-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest oxloop --allowlist tests/stubtest-allowlist.txt

.PHONY: check-targets
check-targets: | check
	scripts/check-targets.sh

.PHONY: test-kqueue
test-kqueue: $(VENV)/.requirements-test | check
	@scripts/test-kqueue.sh $(BIN)/python $(PYTEST_ARGS)

.PHONY: wheels
wheels: $(VENV)/.requirements-wheels | check
	@$(BIN)/python scripts/wheels.py --profile $(MATURIN_PROFILE) $(WHEELS_ARGS)

.PHONY: soak
soak: $(INSTALLED) $(VENV)/.requirements-test
	@$(BIN)/python scripts/soak.py --minutes $(or $(MINUTES),60) $(SOAK_ARGS)

.PHONY: sanitize
sanitize: $(VENV)/.requirements-test | check
	@PYTHON=$(BIN)/python MINUTES=$(or $(MINUTES),2) scripts/sanitize.sh $(PYTEST_ARGS)

.PHONY: bench
bench: $(INSTALLED) $(VENV)/.requirements-bench
	@$(STEP) "Building the load generator" cargo build --release --locked --package oxloop-engine --example load
	@$(BIN)/python benchmarks/run.py --json build/bench.json

.PHONY: clean
clean:
	rm -rf .venv .venv-* build target .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
