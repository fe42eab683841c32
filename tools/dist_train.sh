#!/usr/bin/env bash
# Train on the GPUs of one or several machines, or with as many processes on CPU; see dist_run.sh.
# After a lost process all go on from the last checkpoint, 3 times or MAX_RESTARTS.
#     tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
TOOLS=$(dirname "$0")
if [[ ${NNODES:-} == *:* && " $* " != *" --resume"* ]]; then
    echo "cae_mm: NNODES=$NNODES starts the processes anew with each machine that comes: give --resume" >&2
    exit 2
fi
export MAX_RESTARTS=${MAX_RESTARTS:-3}
TYPED=$(printf '%q ' "$0" "$@")
export CAE_MM_COMMAND=${CAE_MM_COMMAND:-$TYPED}  # what a run that is ended says to go on with
exec bash "$TOOLS/dist_run.sh" "$TOOLS/train.py" "$2" "$1" --launcher pytorch "${@:3}"
