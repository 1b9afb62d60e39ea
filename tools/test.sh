#!/usr/bin/env bash
# Every check and every suite, with coverage. The engine's suites need the real weights: they are pulled into
# QWENBOX_HOME (default ~/.qwenbox) if they are not there, and stay there for the next run.
set -euo pipefail
bin=${BIN:-.venv/bin}
export QWENBOX_HOME=${QWENBOX_HOME:-$HOME/.qwenbox}
export QWENBOX_TEST_WEIGHTS=${QWENBOX_TEST_WEIGHTS:-$QWENBOX_HOME/weights}

"$bin"/ruff format --check .
"$bin"/ruff check .
"$bin"/pyright
"$bin"/lint-imports --no-cache
"$bin"/python tools/sizes.py

if [ ! -e "$QWENBOX_TEST_WEIGHTS/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf" ]; then "$bin"/qwenbox pull qwen-turbo; fi
if [ ! -e "$QWENBOX_TEST_WEIGHTS/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf" ]; then "$bin"/qwenbox pull qwen-plus; fi

unset QWENBOX_HOME
exec "$bin"/pytest --cov --cov-report=term:skip-covered "$@"
