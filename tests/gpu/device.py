"""The device that tests marked `gpu` run on: a GPU, or what DRUMBEAT_TEST_DEVICE names.

    DRUMBEAT_TEST_DEVICE=cpu python -m pytest -m gpu tests/gpu      tests the tests on a machine without a GPU
"""

from __future__ import annotations

import os

import torch

DEVICE = os.environ.get("DRUMBEAT_TEST_DEVICE", "cuda")


def no_device() -> str:
    """Why these tests cannot run on this machine; "" if they can."""
    if DEVICE == "cpu" or torch.cuda.is_available():
        return ""
    return f"torch {torch.__version__} finds no CUDA device"
