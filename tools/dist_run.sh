#!/usr/bin/env bash
# Run a tool on the GPUs of one or several machines, or with as many processes on CPU.
#     tools/dist_run.sh TOOL GPUS [arguments of the tool]
# With several machines, run it on each with the same MASTER_ADDR and PORT:
#     NNODES=4 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_run.sh TOOL 8 ...
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 TOOL GPUS [arguments of the tool]" >&2
    exit 2
fi
TOOL=$1
GPUS=${2:-none}
TOOLS=$(dirname "$0")
. "$TOOLS/counts.sh"
count GPUS 1 1024
count NNODES 1 100000
count NODE_RANK 0 99999
count PORT 1 65535
CORES=$(( $(nproc 2>/dev/null || sysctl -n hw.ncpu) / GPUS ))

# A process on CPU computes with its share of the cores (torchrun would give it one).
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(( CORES > 0 ? CORES : 1 ))}
if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    MEETING=(--standalone --local_addr=127.0.0.1)  # at a free port: a machine may have several runs
else
    MEETING=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
             --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
fi
exec bash "$TOOLS/python.sh" "$TOOLS/torchrun.py" "${MEETING[@]}" --nproc_per_node="$GPUS" "$TOOL" "${@:3}"
