# One word per chore. `make serve` and `make test` each work as the only command on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev serve demo test test-images docs screenshots prove check fix bench lock

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## install qwenbox into .venv

setup-dev: $(VENV)/.ready-dev

$(VENV)/.ready: requirements.lock pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" tools/setup.sh requirements.lock
	@touch $@

$(VENV)/.ready-dev: requirements-dev.lock pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" tools/setup.sh requirements-dev.lock
	@touch $(VENV)/.ready $@

serve: setup ## fetch the default weights if need be, and serve
	@$(BIN)/qwenbox serve

demo: setup-dev ## ask the document's question through both official SDKs
	@$(BIN)/python tools/demo.py

check: setup-dev ## format, lint, types, layers, file sizes, unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/sizes.py
	$(BIN)/pytest tests/unit -q

test: setup-dev ## everything that CI runs
	@BIN=$(BIN) tools/test.sh

test-images: ## the tests of a real diffusers pipeline, in an environment of their own (torch: about 6 GB)
	@PYTHON="$(PYTHON)" tools/images.sh

docs: setup-dev ## build the documentation's site into site/, without a network
	@$(BIN)/python tools/docs.py

screenshots: setup-dev ## take the pictures of the console's pages for the documentation (needs Chromium)
	@$(BIN)/python tools/screenshots.py

prove: setup-dev ## the same tests with full counts and real windows; figures go to bench/results/
	@BIN=$(BIN) QWENBOX_FULL_COUNTS=1 tools/test.sh

fix: setup-dev ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup-dev ## measure against the budgets and beside the peers
	@$(BIN)/python -m bench

lock: ## pin every dependency anew, with hashes and without addresses (needs uv)
	uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --upgrade -q -p 3.11 -o requirements.lock
	uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --upgrade -q -p 3.11 -o requirements-dev.lock
