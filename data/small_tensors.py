"""How a loader worker sends small tensors to its rank: through the pipe, as bytes.

torch puts each tensor into a file of shared memory and sends the file's descriptor. That takes 300 us on the rank, and
as much again in the worker: for a batch of small samples several times as long as to copy it.
"""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

LARGEST = 2**19
"""The largest tensor, in bytes, that is sent through the pipe."""


def send_small_tensors() -> None:
    """Makes this process, a loader worker, send small tensors as bytes."""
    ForkingPickler.register(Tensor, _reduced)


def _reduced(tensor: Tensor) -> Any:
    """What pickle writes for a tensor. What torch sends differently than other tensors is left to torch."""
    if (tensor.device.type != "cpu" or tensor.layout is not torch.strided or tensor.nbytes > LARGEST
            or tensor.requires_grad or tensor.is_quantized or tensor.is_complex() or tensor.is_nested):
        return reduce_tensor(tensor)
    flat = tensor.resolve_neg().contiguous().as_strided((tensor.numel(),), (1,))  # that of one item has any stride
    return _received, (flat.view(torch.uint8).numpy(), tensor.dtype, tensor.shape)


def _received(data: Any, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    return torch.from_numpy(data).view(dtype).view(shape)
