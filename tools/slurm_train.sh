#!/usr/bin/env bash
# Train on a Slurm cluster.
#     GPUS=32 GPUS_PER_NODE=8 tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
# With REQUEUE=1 it is a batch job that Slurm starts again, to go on where it was, after a node has failed, the
# job has been preempted, a process was killed, or SIGTERM came, which Slurm sends 120 s, or GRACE, before the
# time is up.
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
count REQUEUE 0 1
count GRACE 1 65535

TYPED=$(printf '%q ' "$0" "$@")
export CAE_MM_COMMAND="GPUS=$GPUS GPUS_PER_NODE=$GPUS_PER_NODE ${CAE_MM_COMMAND:-$TYPED}"  # to go on with
if [ -n "${PORT:-}" ]; then
    export MASTER_PORT=$PORT
fi
STEP=(bash "$TOOLS/python.sh" -u "$TOOLS/train.py" "$CONFIG" --work-dir "$WORK_DIR" --launcher slurm "${@:5}")
JOB=(-p "$PARTITION"
     --job-name="$JOB_NAME"
     --gres=gpu:"$GPUS_PER_NODE"
     --ntasks="$GPUS"
     --ntasks-per-node="$GPUS_PER_NODE"
     --cpus-per-task="$CPUS_PER_TASK")
# SRUN_ARGS is several words.
if [ "${REQUEUE:-0}" = 0 ]; then
    # shellcheck disable=SC2086
    exec srun "${JOB[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} "${STEP[@]}"
fi
mkdir -p "$WORK_DIR"
# shellcheck disable=SC2086
exec sbatch "${JOB[@]}" --requeue --open-mode=append --signal=TERM@"${GRACE:-120}" \
    --output="$WORK_DIR/slurm_%j.log" ${SRUN_ARGS:-} <<END
#!/usr/bin/env bash
code=0
srun --cpus-per-task=$CPUS_PER_TASK --kill-on-bad-exit=1 $(printf '%q ' "${STEP[@]}") --resume || code=\$?
# 143: ended by SIGTERM, with a checkpoint. 137: a process was killed.
case \$code in 143 | 137) exec scontrol requeue "\$SLURM_JOB_ID" ;; esac
exit \$code
END
