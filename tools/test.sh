#!/usr/bin/env bash
# Every check and every suite. The engine's suites need the real weights: they are pulled into
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

# What needs no published weights (marker `e2e`) runs two by two, each file in one process, as its fixtures start boxes. What does, has the
# machine to itself, as everything has when figures are to be written down. Coverage is counted where our code runs in the test's own
# process, of which it takes two and a half times the time; elsewhere, in boxes, it could not see anything.
processes=2
if [ -n "${QWENBOX_FULL_COUNTS:-}" ]; then processes=0; fi
status=0
"$bin"/pytest -n "$processes" --dist loadfile --cov --cov-report= --durations=20 "$@" tests/unit tests/golden tests/contract || status=$?
"$bin"/pytest -n "$processes" --dist loadfile --durations=20 -m "not e2e" "$@" tests/sdk tests/docs tests/e2e tests/bench || status=$?
"$bin"/pytest --cov --cov-append --cov-report=term:skip-covered --durations=40 -m e2e "$@" tests/e2e || status=$?
# The console in a browser, on machines of any speed; one process, as Playwright's loop and other tests' do not go together. It comes last:
# where there is no Chromium, its last lines say that nothing was looked at.
"$bin"/pytest --durations=20 "$@" tests/console || status=$?
exit "$status"
