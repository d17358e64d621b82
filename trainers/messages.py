"""Values as bytes, and back, so that ranks can send them to each other: tensors and plain values, without pickle."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from drumbeat.trainers.checkpoints.codec import Encoder, decode
from drumbeat.trainers.checkpoints.staging import NAMES

TYPES = {name: dtype for dtype, name in NAMES.items()}


def packed(value: Any) -> Tensor:
    """uint8 [n]: the length of a text in eight bytes, the text, which is JSON, and the tensors. Raises `TypeError` for
    what is neither a tensor on the CPU nor a plain value."""
    encoder = Encoder()
    body = encoder.encode(value, "value")
    tensors = [[name, NAMES[one.dtype], list(one.shape)] for name, one in encoder.tensors.items()]
    text = json.dumps([body, tensors]).encode()
    return torch.cat([torch.frombuffer(bytearray(len(text).to_bytes(8, "little") + text), dtype=torch.uint8),
                      *(_as_bytes(one) for one in encoder.tensors.values())])


def unpacked(data: Tensor) -> Any:
    """The value that was packed."""
    text = 8 + int.from_bytes(data[:8].numpy().tobytes(), "little")
    body, tensors = json.loads(data[8:text].numpy().tobytes())
    found, start = {}, text
    for name, kind, shape in tensors:
        like = torch.empty(shape, dtype=TYPES[kind], device="meta")
        found[name] = data[start:start + like.nbytes].clone().view(like.dtype).view(shape)
        start += like.nbytes
    return decode(body, found)


def _as_bytes(value: Tensor) -> Tensor:
    return value.contiguous().view(-1).view(torch.uint8)
