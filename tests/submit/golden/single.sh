#!/bin/bash
# Stage dataset of run demo-cluster, attempt 1: task 0 of 1.
# Written by rdtl for one sbatch.

# what this is
#SBATCH --job-name=rdtl-0a1b2c3d-dataset-a1

# where it may run
#SBATCH --partition=a100

# what it gets
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2000M
#SBATCH --time=30

# warned before its time is over; started again after a preemption
#SBATCH --signal=USR2@90
#SBATCH --requeue
#SBATCH --open-mode=append

# Slurm's own log; what the stage prints is in the run's logs/
#SBATCH --output=/scratch/me/runs/demo-cluster/slurm/dataset/attempt_1/%j.log

# The run's own copy of the code is the only source of jobs and launcher.
export PYTHONPATH=/scratch/me/runs/demo-cluster/code PYTHONSAFEPATH=1 SUBMITIT_EXECUTOR=slurm

# One process a node. It starts the stage's command, in its container if it has one.
srun --unbuffered --kill-on-bad-exit=1 --cpus-per-task=1 \
  --output /scratch/me/runs/demo-cluster/slurm/dataset/attempt_1/%j.n%t.log \
  /home/me/venv/bin/python -u -P -m jobs.slurm_task /scratch/me/runs/demo-cluster/slurm/dataset/attempt_1
