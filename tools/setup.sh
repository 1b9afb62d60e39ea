#!/usr/bin/env bash
# Makes .venv and installs what the given lock pins, then qwenbox itself. Needs Python >= 3.11 with pip or venv, nothing else.
set -euo pipefail
lock=$1
python=${PYTHON:-python3}
for candidate in "$python" python3.13 python3.12 python3.11 python3.14; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$candidate && break; fi
done
[ -n "${found:-}" ] || { echo "qwenbox needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3" >&2; exit 1; }

if [ ! -x .venv/bin/python ]; then
  rm -rf .venv
  # Debian ships Python without ensurepip; then virtualenv, fetched beside the project, makes the environment instead.
  if ! "$found" -m venv .venv >/dev/null 2>&1; then
    rm -rf .venv .boot
    "$found" -m pip install --quiet --disable-pip-version-check --target .boot virtualenv
    PYTHONPATH=.boot "$found" -m virtualenv --quiet .venv
    rm -rf .boot
  fi
fi
echo "Installing what $lock pins …"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
