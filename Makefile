# Varsel. `make run` sets everything up and serves; `make test` sets everything up and tests.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
FHIR := .venv-fhir
PEER := .venv-peer
CLIENT := tests/clients/medplum
NODE := $(shell command -v npm >/dev/null 2>&1 && node -p 'parseInt(process.versions.node) >= 20 ? "yes" : ""' 2>/dev/null)
AUDIT := .venv-audit
ADVISORIES ?= osv
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

.PHONY: help setup run test test-all check audit format lock bench bench-models bench-fallback bench-tokens bench-peer bench-log soak fuzz chaos openapi clean

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

# A FHIR server for the tests, in an environment of its own: what it pins conflicts with ours.
$(FHIR)/.installed: tests/servers/requirements-sekmet.txt | $(VENV)/.dev
	$(BIN)/python -m venv --without-pip --clear $(FHIR)
	@$(BIN)/uv pip sync --quiet --python $(FHIR)/bin/python --require-hashes $< 2>/dev/null \
	  || $(BIN)/python -m pip --python $(FHIR)/bin/python install --quiet --require-hashes -r $<
	@touch $@

# A second client for the tests, where there is Node 20 or newer; where there is none, its tests are skipped.
$(CLIENT)/node_modules/.installed: $(CLIENT)/package-lock.json
	@cd $(CLIENT) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# What Varsel is measured against, in an environment of its own: what it pins conflicts with ours.
$(PEER)/.installed: tests/bench/peer/requirements.txt | $(VENV)/.dev
	$(BIN)/python -m venv --without-pip --clear $(PEER)
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(PEER)/bin/python --require-hashes $< 2>/dev/null \
	  || $(BIN)/python -m pip --python $(PEER)/bin/python install --quiet --require-hashes -r $<
	@touch $@

setup: $(VENV)/.dev $(FHIR)/.installed $(if $(NODE),$(CLIENT)/node_modules/.installed) ## the environment, with everything tests and studies need

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

# Needs a vulnerability service (ADVISORIES=osv or pypi), so it is no part of `make check`, which works without a
# network. A package it cannot ask about fails it: silence is not safety.
$(AUDIT)/.installed: .ci/requirements-audit.txt
	$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --require-hashes -r $<
	@touch $@

audit: $(AUDIT)/.installed ## ask for known vulnerabilities of every pinned package; fails where it cannot ask
	@$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --vulnerability-service $(ADVISORIES) \
	  -r requirements.txt -r requirements-extras.txt \
	  || { echo "audit: vulnerable, or $(ADVISORIES) could not be asked; see above" >&2; exit 1; }

format: setup ## mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## stages and whole requests against the floor, in one run
	$(BIN)/python -m tests.bench.hook

bench-models: setup ## train on public real outcomes and hold the figures against the published ones
	@$(BIN)/python -m tests.bench.outcomes bench

bench-fallback: setup ## what completing a prefetch from a FHIR server adds to a hook call
	@$(BIN)/python -m tests.bench.fallback

bench-tokens: setup ## what checking a caller's JWT costs
	@$(BIN)/python -m tests.bench.tokens

bench-peer: setup $(PEER)/.installed ## answers per second beside the peer, in turns, in one run
	@$(BIN)/python -m tests.bench.peer_bench

bench-log: setup ## a million predictions in SQLite and PostgreSQL: rate, size, times, and what durability costs
	@$(BIN)/python -m tests.bench.log_bench $(if $(ROWS),--rows $(ROWS)) $(if $(WINDOW),--window $(WINDOW))

soak: setup ## sixteen clients without a pause for ten minutes: errors, memory, the slowest
	@$(BIN)/python -m tests.bench.soak

fuzz: setup ## at least 10,000 mutated requests: never a 500, never a number from nowhere
	@$(BIN)/python -m tests.fuzz.run

chaos: setup ## kill workers and database under load, twenty rounds: no card without its prediction, none twice
	@$(BIN)/python -m tests.chaos.run

openapi: setup ## write openapi/ anew
	$(BIN)/varsel openapi

UV_COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet --custom-compile-command 'make lock'
lock: setup ## resolve the requirements files anew
	$(UV_COMPILE) pyproject.toml -o requirements.txt
	$(UV_COMPILE) pyproject.toml --extra study --extra drift -c requirements.txt -o requirements-extras.txt
	$(UV_COMPILE) pyproject.toml --extra study --extra drift --group dev -c requirements-extras.txt -o requirements-dev.txt
	$(UV_COMPILE) tests/servers/requirements-sekmet.in -o tests/servers/requirements-sekmet.txt
	$(UV_COMPILE) tests/bench/peer/requirements.in -o tests/bench/peer/requirements.txt
	$(UV_COMPILE) .ci/requirements-audit.in -o .ci/requirements-audit.txt

clean: ## remove the environment and what was made
	rm -rf $(VENV) $(FHIR) $(PEER) $(CLIENT)/node_modules $(AUDIT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
