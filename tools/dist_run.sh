#!/usr/bin/env bash
# Run a tool on the GPUs of one or several machines, or with as many processes on CPU.
#     tools/dist_run.sh TOOL GPUS [arguments of the tool]
# With several machines, run it on each with the same MASTER_ADDR and PORT:
#     NNODES=4 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_run.sh TOOL 8 ...
# With machines that come and go, from two to four, without a NODE_RANK; MASTER_ADDR is one that stays:
#     NNODES=2:4 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_run.sh TOOL 8 ...
# After a lost process all are started anew, MAX_RESTARTS times; of several machines where NNODES is a range.
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
NNODES=${NNODES:-1}
LEAST=${NNODES%%:*}
MOST=${NNODES##*:}
if [[ $NNODES == *:* ]]; then
    count LEAST 1 100000
    count MOST "$LEAST" 100000
else
    count NNODES 1 100000
fi
count MAX_RESTARTS 0 1000000
count NODE_RANK 0 99999
count PORT 1 65535
CORES=$(( $(nproc 2>/dev/null || sysctl -n hw.ncpu) / GPUS ))

# A process on CPU computes with its share of the cores (torchrun would give it one).
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(( CORES > 0 ? CORES : 1 ))}
RESTARTS=${MAX_RESTARTS:-0}
if [[ $NNODES == *:* ]]; then
    MEETING=(--nnodes="$NNODES" --rdzv_backend=c10d --rdzv_id=cae_mm
             --rdzv_endpoint="${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}")
elif [ "$NNODES" = 1 ]; then  # at a free port: a machine may have several runs
    MEETING=(--rdzv_backend=c10d --rdzv_endpoint="127.0.0.1:${PORT:-0}" --rdzv_conf=is_host=1 --local_addr=127.0.0.1)
else
    RESTARTS=0
    MEETING=(--nnodes="$NNODES" --node_rank="${NODE_RANK:-0}"
             --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
fi
exec bash "$TOOLS/python.sh" "$TOOLS/torchrun.py" "${MEETING[@]}" --nproc_per_node="$GPUS" \
    --max_restarts="$RESTARTS" "$TOOL" "${@:3}"
