# Varsel. `make run` sets everything up and serves; `make test` sets everything up and tests.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
export PYTHONDONTWRITEBYTECODE =

# uv installs in seconds; where it has no build, or cannot reach the registry pip is set up for, pip does.
define install
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes $(1) 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --require-hashes -r $(1)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@printf '%s\n' "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/varsel.pth"
	@printf '#!/bin/sh\nexec "%s/$(BIN)/python" -m cds_service "$$@"\n' "$(CURDIR)" > $(BIN)/varsel && chmod +x $(BIN)/varsel
endef

.PHONY: help setup run test test-all check format lock bench bench-models openapi clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Varsel needs Python 3.11 or newer; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serving: requirements.txt requirements-uv.txt Makefile | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-uv.txt || echo "no uv here; pip it is"
	$(call install,requirements.txt)
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-uv.txt Makefile | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-uv.txt || echo "no uv here; pip it is"
	$(call install,requirements-dev.txt)
	@touch $@ $(VENV)/.serving

setup: $(VENV)/.dev ## the environment, with everything tests and studies need

run: $(VENV)/.serving ## set up, migrate, score one bundled patient, and serve on loopback
	@VARSEL_PROFILE=$${VARSEL_PROFILE:-demo} $(BIN)/varsel serve --demo

test: setup ## all tests but the long ones
	$(BIN)/python -m pytest -n 2 -m "not slow" $(TESTS)

test-all: setup ## every test, with the long simulations
	$(BIN)/python -m pytest -n 2 $(TESTS)

check: setup ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## stages and whole requests against the floor, in one run
	$(BIN)/python -m tests.bench.hook

bench-models: setup ## train on public real outcomes and hold the figures against the published ones
	@$(BIN)/python -m tests.bench.outcomes bench

openapi: setup ## write openapi/ anew
	$(BIN)/varsel openapi

UV_COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet --custom-compile-command 'make lock'
lock: setup ## resolve the requirements files anew
	$(UV_COMPILE) pyproject.toml -o requirements.txt
	$(UV_COMPILE) pyproject.toml --extra study --extra drift -c requirements.txt -o requirements-extras.txt
	$(UV_COMPILE) pyproject.toml --extra study --extra drift --group dev -c requirements-extras.txt -o requirements-dev.txt

clean: ## remove the environment and what was made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
