"""All calls of SLURM's programs, and the meaning of their answers."""
