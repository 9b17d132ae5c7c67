# The developer's interface: every check and every way to run leptond is a target here.
# Needs python3 (3.11 or newer), its pip, and make. `make` alone lists the targets.

PYTHON ?= python3
VENV   ?= .venv
STORE  ?= .cache/store
LISTEN ?= 127.0.0.1:8600
MODEL  ?= smollm2-135m-instruct
ARGS   ?=
ROW    ?=
BENCH  ?= $(patsubst benchmarks/%/__main__.py,%,$(wildcard benchmarks/*/__main__.py))

BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# A Debian python3 has no ensurepip, so the venv is made without pip and filled from outside.
PIP    := $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python install --quiet
# No lock names an index: it installs from whichever one pip is set up for.
LOCK   := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-emit-find-links --no-header --upgrade

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo serve fmt lint types layers protos protos-check test unit \
        property contract integration e2e coverage bench locks ci ci-full clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ------------------------------------------------------------------------------------ to set up
install: $(STAMPS)/project ## Make .venv with the daemon, its engines and the client
install-dev: $(STAMPS)/project $(STAMPS)/dev ## The same, with the tools for tests and checks

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "leptond needs Python 3.11 or newer (set PYTHON=)")'
	@$(PYTHON) -m pip --version >/dev/null || { echo "$(PYTHON) has no pip: install python3-pip" >&2; exit 1; }
	@$(PYTHON) -m venv --without-pip $(VENV)

# Hashed pins first, then the project itself without dependencies: pip cannot hash a folder.
$(STAMPS)/runtime: requirements/runtime.txt | $(BIN)/python
	@echo "Installing what leptond needs into $(VENV) (about 0.5 GB on disk) ..."
	@$(PIP) --require-hashes --requirement $<
	@mkdir -p $(@D) && touch $@
$(STAMPS)/project: pyproject.toml $(STAMPS)/runtime
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/runtime
	@echo "Installing the tools for tests and checks ..."
	@$(PIP) --require-hashes --requirement $<
	@touch $@

# -------------------------------------------------------------------------------------- to run
demo: install ## Import the default chat model, serve it, stream one answer, stop
	@$(BIN)/python scripts/demo.py --store $(STORE) --model $(MODEL) $(ARGS)

serve: install ## Keep the daemon in the foreground on LISTEN=127.0.0.1:8600
	@$(BIN)/python scripts/demo.py --store $(STORE) --model $(MODEL) --import-only
	@exec $(BIN)/leptond serve --store $(STORE) --listen $(LISTEN) --preload $(MODEL) $(ARGS)

bench: install-dev ## On an idle machine: JSON into benchmarks/results (some: BENCH="transport")
	@for precision in int8 float32 float16; do \
	  $(BIN)/leptond import default:chat --store $(STORE) --name $(MODEL) --quantization $$precision || exit; \
	done
	@$(BIN)/leptond import default:embed --store $(STORE)
	@mkdir -p benchmarks/results
	@for name in $(BENCH); do \
	  chat=$(STORE)/$(MODEL)/1; embedder=$(STORE)/all-minilm-l6-v2/1/int8; \
	  case $$name in \
	    perplexity|engine) models="--model $$chat" ;; \
	    embeddings) models="--model $$embedder" ;; \
	    neighbours) models="--model $$chat/int8 --embedder $$embedder" ;; \
	    *) models="--model $$chat/int8" ;; \
	  esac; \
	  echo "$$name"; \
	  $(BIN)/python -m benchmarks.$$name $$models --out benchmarks/results/$$name.json $(ARGS) || exit; \
	done

# ------------------------------------------------------------------------------------ to check
fmt: install-dev ## Format, and fix what ruff can fix by itself
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

lint: install-dev ## ruff (lint and format) and the project's own rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python scripts/lint_sources.py

types: install-dev ## mypy --strict
	$(BIN)/mypy

layers: install-dev ## import-linter's contracts between the layers
	$(BIN)/lint-imports --no-logo

protos: install-dev ## Generate the stubs from protos/
	$(BIN)/python scripts/protos.py

protos-check: install-dev ## Fail when the stubs are stale or the protos break their rules
	$(BIN)/python scripts/protos.py --check

test: install-dev ## Every test (narrow it with ARGS="-k name")
	$(BIN)/pytest $(ARGS)

unit property contract integration e2e: install-dev ## One tier of the tests
	$(BIN)/pytest tests/$@ $(ARGS)

coverage: install-dev ## Every test, with the coverage of lines and branches
	$(BIN)/pytest --cov --cov-report=term $(ARGS)

ci: lint types layers protos-check test ## What must pass on every commit

ci-full: $(if $(ROW),install-dev,ci) ## ci, and every set of dependencies (one alone: make ci-full ROW=client-only)
	$(BIN)/python scripts/ci_full.py $(ROW) $(ARGS)

# ----------------------------------------------------------------------------------- to maintain
locks: install-dev ## Move every pin in requirements/ to its newest release
	$(LOCK) --extra all --group build --output-file requirements/runtime.txt pyproject.toml
	$(LOCK) --group dev --constraint requirements/runtime.txt --output-file requirements/dev.txt

clean: ## Remove what make has built, the environment and the caches
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
