"""How one run is put together: options, folder, preflight, fine-tuning, and its ranks in a SLURM job."""
