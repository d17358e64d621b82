"""Reads the tensors of a checkpoint, which may be anybody's."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.layers import short


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises `RunError` if it is missing, not a regular file or not in this
    format: the library checks that all tensors lie within the file, and that none overlap."""
    try:
        if not file.is_file():
            raise FileNotFoundError("there is no such file")
        return load_file(file)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(Fault(what=f"the tensors cannot be read: {error}", where=short(file),
                             remedy="Use another checkpoint: drumbeat checkpoints RUN")) from None
