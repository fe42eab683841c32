#!/usr/bin/env bash
# Train on a Slurm cluster.
#     GPUS=32 GPUS_PER_NODE=8 tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
# The processes meet at PORT, by default at one that follows from the number of the job.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
CPUS_PER_TASK=${CPUS_PER_TASK:-8}
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/counts.sh"
count GPUS 1 100000
count GPUS_PER_NODE 1 1024
count CPUS_PER_TASK 1 4096
count PORT 1 65535

CAE_MM_COMMAND="GPUS=$GPUS GPUS_PER_NODE=$GPUS_PER_NODE $(printf '%q ' "$0" "$@")"  # to go on with
export CAE_MM_COMMAND
if [ -n "${PORT:-}" ]; then
    export MASTER_PORT=$PORT
fi
# SRUN_ARGS is several words.
# shellcheck disable=SC2086
exec srun -p "$PARTITION" \
    --job-name="$JOB_NAME" \
    --gres=gpu:"$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="$CPUS_PER_TASK" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    bash "$TOOLS/python.sh" -u "$TOOLS/train.py" "$CONFIG" --work-dir "$WORK_DIR" --launcher slurm "${@:5}"
