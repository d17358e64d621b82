"""A copy of the training's tensors in shared memory, laid out as the safetensors files that are to be written.

Copying is all that a training step waits for. The memory is touched once, when it is laid out; to touch it while
copying would take many times as long. Where the tensors are on a GPU, its pages are locked as well (cudaHostRegister),
and the GPU writes into them itself, at the speed of the bus and all tensors in one go. The GPU half is not tested.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

NAMES = {torch.float64: "F64", torch.int64: "I64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
         torch.float16: "F16", torch.int16: "I16", torch.uint8: "U8", torch.int8: "I8", torch.bool: "BOOL"}
"""The types of tensors that a checkpoint can hold, as safetensors calls them."""

PAGE = 4096

CPU = torch.device("cpu")

Files = Mapping[str, Mapping[str, Tensor]]
"""For each file its tensors by name."""


class Staging:
    """The shared memory, as large as the largest state so far."""

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        """Where the tensors are that are copied; some of them may be on the CPU all the same."""
        self.fd = os.memfd_create("checkpoint")
        os.set_inheritable(self.fd, True)
        self.parts: dict[str, tuple[int, int]] = {}
        """For each file, where it begins and its bytes."""
        self._layout: object = None
        self._map: mmap.mmap | None = None
        self._views: dict[str, dict[str, Tensor]] = {}
        self._locked: int | None = None
        """The address of the memory whose pages CUDA has locked."""
        self._refused = False
        """Whether CUDA has refused to lock pages, which is reported once."""

    def lay_out(self, files: Files) -> None:
        """Makes room for these tensors. Nothing happens where names, shapes and types are as before."""
        layout = [(file, name, value.dtype, tuple(value.shape)) for file, tensors in files.items()
                  for name, value in tensors.items()]
        if layout == self._layout:
            return
        headers = {file: _header(tensors) for file, tensors in files.items()}
        self.parts, end = {}, 0
        for file, (header, size) in headers.items():
            self.parts[file] = (end, len(header) + size)
            end += -(-(len(header) + size) // PAGE) * PAGE
        self._unlock()
        os.ftruncate(self.fd, max(end, PAGE))
        self._views = {}  # the old map lives as long as they do
        self._map = mmap.mmap(self.fd, max(end, PAGE))
        memory = torch.frombuffer(self._map, dtype=torch.uint8)
        memory[::PAGE] = 0
        self._lock(memory)
        for file, (header, _) in headers.items():
            start, _ = self.parts[file]
            memory[start:start + len(header)] = torch.from_numpy(np.frombuffer(header, np.uint8).copy())
            self._views[file], start = {}, start + len(header)
            for name in _in_order(files[file]):
                value = files[file][name]
                place = memory[start:start + value.nbytes]
                self._views[file][name] = place.view(value.dtype).view(value.shape)
                start += value.nbytes
        self._layout = layout

    def fill(self, files: Files) -> None:
        """Copies the tensors, after laying them out if need be. On a GPU the copies follow what is already queued on
        the current stream, an optimizer step for example, and this returns when they are done."""
        self.lay_out(files)
        on_gpu = self.device.type == "cuda"
        with torch.no_grad():
            for file, tensors in files.items():
                for name, view in self._views[file].items():
                    view.copy_(tensors[name], non_blocking=on_gpu)
        if on_gpu:
            torch.cuda.current_stream(self.device).synchronize()

    def close(self) -> None:
        """Gives the memory back."""
        self._unlock()
        self._views, self._map, self._layout = {}, None, None
        os.close(self.fd)

    def _lock(self, memory: Tensor) -> None:
        """Has CUDA lock the memory's pages. Where it refuses, as it may in WSL or under a limit on locked memory,
        copies go through CUDA's own buffers: slower, and just as right."""
        if self.device.type != "cuda":
            return
        cudart = torch.cuda.cudart()
        result = cudart.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)
        if int(result) == 0:
            self._locked = memory.data_ptr()
            return
        with suppress(RuntimeError):
            torch.zeros(1, device=self.device)  # CUDA keeps the error for whoever launches the next kernel
        if not self._refused:
            print(f"note: saving copies into pageable memory, which takes longer: cudaHostRegister says "
                  f"'{cudart.cudaGetErrorString(result)}'", flush=True)
        self._refused = True

    def _unlock(self) -> None:
        """Before the memory goes, or the driver would keep its pages."""
        if self._locked is not None:
            torch.cuda.cudart().cudaHostUnregister(self._locked)
            self._locked = None


def _in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Large items first, so that each tensor begins at a multiple of its items' size."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _header(tensors: Mapping[str, Tensor]) -> tuple[bytes, int]:
    """The beginning of a safetensors file, and the bytes of the tensors that follow it.

    The format: 8 bytes with the length of a JSON object, little end first, the object, the tensors one behind the
    other (github.com/huggingface/safetensors).
    """
    entries, end = {}, 0
    for name in _in_order(tensors):
        value = tensors[name]
        entries[name] = {"dtype": NAMES[value.dtype], "shape": list(value.shape),
                         "data_offsets": [end, end + value.nbytes]}
        end += value.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end
