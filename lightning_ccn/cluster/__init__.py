"""SLURM, from the login node: checks a command, submits it."""
