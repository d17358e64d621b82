"""Drumbeat trains PyTorch models from one config file, on a laptop, on many GPUs, or on a SLURM cluster.

Importing it costs nothing: each part is imported when it is used.
"""

__version__ = "0.1.0"
