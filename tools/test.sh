#!/usr/bin/env bash
# Every check and every suite, with coverage. The engine's suites need the real weights: they are pulled into
# QWENBOX_HOME (default ~/.qwenbox) if they are not there, and stay there for the next run.
set -euo pipefail
bin=${BIN:-.venv/bin}
export QWENBOX_HOME=${QWENBOX_HOME:-$HOME/.qwenbox}

"$bin"/ruff format --check .
"$bin"/ruff check .
"$bin"/pyright
"$bin"/lint-imports --no-cache
"$bin"/python tools/sizes.py

"$bin"/qwenbox pull qwen-turbo
"$bin"/qwenbox pull qwen-plus

# Suites that ask a box or none run two by two; those that load weights, kill boxes or count under load have the machine to themselves,
# as everything has when figures are to be written down.
processes=2
if [ -n "${QWENBOX_FULL_COUNTS:-}" ]; then processes=0; fi
status=0
"$bin"/pytest -n "$processes" --cov --cov-report= "$@" tests/unit tests/golden tests/contract tests/sdk tests/docs || status=$?
"$bin"/pytest --cov --cov-append --cov-report=term:skip-covered --durations=40 "$@" tests/e2e tests/bench || status=$?
exit "$status"
