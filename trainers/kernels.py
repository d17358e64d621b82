"""Which kernels torch chooses: deterministic ones or the fastest, and how much they may round."""

from __future__ import annotations

import warnings
from typing import Literal

import torch


def prefer_determinism(*, deterministic: bool, threads: int) -> None:
    """Sets the number of threads and, with `deterministic`, chooses kernels that give the same bits each time."""
    torch.set_num_threads(threads)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time and is not needed
    torch.backends.cudnn.benchmark = not deterministic


def set_precision(precision: Literal["auto", "bf16", "fp16", "tf32", "fp32"]) -> None:
    """Sets where a GPU rounds fp32 to TF32, which has 10 bits of mantissa instead of 23: with tf32 in matrix products,
    convolutions and recurrent layers; with fp32 nowhere; otherwise, as torch does by default, in the latter two.

    These are torch's older settings. Setting them also sets the newer ones (fp32_precision); if only the newer ones are
    set, code that reads the older ones (torch.backends.cudnn.flags, torch.compile) fails: aten/src/ATen/Context.cpp,
    read in torch 2.9 to 2.14. Some of these versions warn that the older settings will be removed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Please use the new API settings to control TF32")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
