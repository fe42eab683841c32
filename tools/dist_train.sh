#!/usr/bin/env bash
# Train on the GPUs of one or several machines, or with as many processes on CPU.
#     tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# With several machines, run it on each with the same MASTER_ADDR and PORT:
#     NNODES=4 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_train.sh CONFIG 8
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
TOOLS=$(cd "$(dirname "$0")" && pwd)
CORES=$(( $(nproc 2>/dev/null || sysctl -n hw.ncpu) / GPUS ))

# A process on CPU computes with its share of the cores (torchrun would give it one).
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(( CORES > 0 ? CORES : 1 ))}
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
