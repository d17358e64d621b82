"""The product on one GPU, against a bare loop, torch's own checkpoints, and what the hardware allows."""
