#!/usr/bin/env bash
# Run Python with this checkout: $PYTHON, or that of the active environment, or that of .venv, which make makes.
#     tools/python.sh [arguments of python]
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)

# Conda's base is active in every shell of many machines: nobody chose it.
if [ -z "${PYTHON:-}${VIRTUAL_ENV:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" = base ] && [ -x "$ROOT/.venv/bin/python" ]; then
    PYTHON=$ROOT/.venv/bin/python
fi
# On CPUs: glibc would give large tensors back to the kernel, and wait for each of their pages anew.
if [ ! -e /dev/nvidiactl ]; then
    export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_-4294967296}"
    export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_-17179869184}"
fi
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" "$@"
