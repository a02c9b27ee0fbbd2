#!/usr/bin/env bash
# Training on several machines under SLURM: sbatch slurm.sh recipe.yaml
#SBATCH --job-name=skillweave
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
# SIGTERM two minutes before the end: training writes a checkpoint and ends with status 143
#SBATCH --signal=TERM@120
#SBATCH --output=%x-%j.log

set -euo pipefail
recipe=${1:?sbatch slurm.sh RECIPE OUTPUT}
# all machines must see the data and this folder under the same paths
output=${2:?sbatch slurm.sh RECIPE OUTPUT}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# a job that SLURM has queued again continues the run
resume=()
if compgen -G "$output/checkpoints/step-*" > /dev/null; then resume=(--resume); fi

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" \
    --nproc-per-node 8 \
    --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$head:29500" \
    -m skillweave train "$recipe" "output=$output" "${resume[@]}"
