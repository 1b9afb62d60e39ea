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

exec "$bin"/pytest --cov --cov-report=term:skip-covered --durations=40 "$@"
