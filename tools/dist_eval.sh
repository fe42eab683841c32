#!/usr/bin/env bash
# Measure an encoder on the GPUs of one or several machines, or with as many processes on CPU.
#     tools/dist_eval.sh tools/knn.py GPUS [arguments of tools/knn.py]
#     tools/dist_eval.sh tools/linear_probe.py GPUS [arguments of tools/linear_probe.py]
# NNODES, NODE_RANK, MASTER_ADDR and PORT are those of dist_train.sh; beside a training take another PORT.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 TOOL GPUS [arguments of the tool]" >&2
    exit 2
fi
TOOL=$1
GPUS=$2
TOOLS=$(cd "$(dirname "$0")" && pwd)
CORES=$(( $(nproc 2>/dev/null || sysctl -n hw.ncpu) / GPUS ))

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(( CORES > 0 ? CORES : 1 ))}
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOL" "${@:3}"
