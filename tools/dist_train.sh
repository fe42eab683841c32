#!/usr/bin/env bash
# Train on the GPUs of one or several machines, or with as many processes on CPU; see dist_run.sh.
#     tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
TOOLS=$(dirname "$0")
CAE_MM_COMMAND=$(printf '%q ' "$0" "$@")  # what a run that is ended says to go on with
export CAE_MM_COMMAND
exec bash "$TOOLS/dist_run.sh" "$TOOLS/train.py" "$2" "$1" --launcher pytorch "${@:3}"
