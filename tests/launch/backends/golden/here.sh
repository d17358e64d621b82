#!/bin/bash

# setup
module load cuda
export NCCL_DEBUG=WARN
export SRUN_CPUS_PER_TASK=8
unset SLURM_CLUSTERS SBATCH_CLUSTERS  # the launchers ask the cluster that they are on
export PYTHONPATH=/drumbeat/src
export PYTHONSAFEPATH=1
srun() {  # if a node's launcher is killed, srun ends those of all nodes; then all are started again
  local code again nodes
  for again in "" {1..20}; do
    code=0; command srun ${again:+--immediate=60} "$@" || code=$?
    if [ $code -le 128 ]; then break; fi
  done
  return $code
}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/small/RUN/submitit/%j_%t_log.out --error /runs/small/RUN/submitit/%j_%t_log.err --jobid=7 --job-name=RUN --chdir=/home/me --open-mode=append --nodes=2 --ntasks=2 --ntasks-per-node=1 --exact --mem=0 --gres=gpu:4 --kill-on-bad-exit=1 --wait=60 --cpus-per-task=8 /venv/bin/python -u -m submitit.core._submit /runs/small/RUN/submitit
