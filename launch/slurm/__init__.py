"""Everything that is asked of SLURM, and what its answers mean."""
