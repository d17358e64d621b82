"""Drumbeat on one GPU, compared with a bare loop, torch's checkpoints, and the limits of the hardware."""
