"""The backends: in this process, on this machine, in the user's SLURM allocation, in a SLURM job of its own."""
