#!/usr/bin/env bash
# Test on the GPUs of one or several machines, or with as many processes on CPU; see dist_run.sh.
#     tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [options of tools/test.py]" >&2
    exit 2
fi
TOOLS=$(dirname "$0")
exec bash "$TOOLS/dist_run.sh" "$TOOLS/test.py" "$3" "$1" "$2" --launcher pytorch "${@:4}"
