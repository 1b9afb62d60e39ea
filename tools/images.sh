#!/usr/bin/env bash
# The tests that need the extra qwenbox[images], in an environment of their own: PyPI's torch brings GPU libraries of several gigabytes,
# which nobody else should have to fetch. Removing .venv-images undoes it.
set -euo pipefail
python=${PYTHON:-python3}
venv=.venv-images
[ -x "$venv"/bin/python ] || "$python" -m venv "$venv"
if [ ! -e "$venv"/.ready ] || [ pyproject.toml -nt "$venv"/.ready ]; then
  echo "Installing qwenbox[images-test] into $venv (about 6 GB) …"
  "$venv"/bin/python -m pip install --quiet --disable-pip-version-check -e '.[images-test]'
  touch "$venv"/.ready
fi
exec "$venv"/bin/python -m pytest --no-cov -q tests/images "$@"
