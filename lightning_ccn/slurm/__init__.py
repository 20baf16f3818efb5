"""Runs on a SLURM cluster: checked and submitted, watched over inside the job, stopped and continued."""
