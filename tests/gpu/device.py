"""The device that tests marked `gpu` run on: a GPU, or what DRUMBEAT_TEST_DEVICE names.

    DRUMBEAT_TEST_DEVICE=cpu python -m pytest -m gpu tests/gpu      tries the tests' own code on a machine without a GPU
"""

from __future__ import annotations

import os

import torch

DEVICE = os.environ.get("DRUMBEAT_TEST_DEVICE", "cuda")


def lacking() -> str:
    """Why these tests cannot run on this machine; "" where they can."""
    if DEVICE == "cpu" or torch.cuda.is_available():
        return ""
    return f"torch {torch.__version__} finds no CUDA device"
