"""A copy of the training's tensors in shared memory, in the layout of the safetensors files to write.

A training step waits only for this copy. A tensor whose items have another order in memory than in the file, such as a
channels_last one, is copied in the order that it has, which takes half the time, and the writer reorders it. The memory
is touched once, when it is laid out, because the first access while copying would take many times as long. For tensors
on a GPU, its pages are also locked (cudaHostRegister), and the GPU writes all tensors into them at the speed of the
bus. The GPU part is not tested.
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

from drumbeat.trainers.checkpoints.writer import Reordered

NAMES = {torch.float64: "F64", torch.int64: "I64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
         torch.float16: "F16", torch.int16: "I16", torch.uint8: "U8", torch.int8: "I8", torch.bool: "BOOL",
         torch.complex64: "C64", torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16",
         torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
         torch.float8_e5m2fnuz: "F8_E5M2FNUZ"}
"""The types of tensors that a checkpoint can contain, and their names in safetensors."""

PAGE = 4096

CPU = torch.device("cpu")

Files = Mapping[str, Mapping[str, Tensor]]
"""The tensors of each file by name."""


class Staging:
    """The shared memory, laid out for the tensors of a state."""

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        """The device of the tensors; some of them may be on the CPU all the same."""
        self.fd = os.memfd_create("checkpoint")
        os.set_inheritable(self.fd, True)
        self.parts: dict[str, tuple[int, int]] = {}
        """The offset and the number of bytes of each file."""
        self.reordered: list[Reordered] = []
        """The tensors that are not in the order of their file."""
        self._layout: object = None
        self._map: mmap.mmap | None = None
        self._views: dict[str, dict[str, Tensor]] = {}
        self._locked: int | None = None
        """The address of the memory whose pages CUDA has locked."""
        self._refused = False
        """Whether CUDA has refused to lock pages, which is reported once."""

    def lay_out(self, files: Files) -> None:
        """Allocates the memory for these tensors, unless names, shapes and types are the same as before."""
        layout = {(file, name): (value.dtype, value.shape) for file, tensors in files.items()
                  for name, value in tensors.items()}
        if layout == self._layout:
            return
        headers = {file: _header(tensors) for file, tensors in files.items()}
        self.parts, self.reordered, end = {}, [], 0
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
                place = memory[start:start + value.nbytes].view(value.dtype)
                if order := _order_in_memory(value):
                    shape = [value.shape[axis] for axis in order]
                    axes = [order.index(axis) for axis in range(value.dim())]
                    self._views[file][name] = place.view(shape).permute(axes)
                    self.reordered.append(Reordered(start=start, item_size=value.itemsize, shape=(*shape,),
                                                    axes=(*axes,)))
                else:
                    self._views[file][name] = place.view(value.shape)
                start += value.nbytes
        self._layout = layout

    def fill(self, files: Files) -> None:
        """Copies the tensors, after laying them out if necessary. On a GPU the copies run after the work that is
        already queued on the current stream, such as an optimizer step; this returns when they are done."""
        self.lay_out(files)
        on_gpu = self.device.type == "cuda"
        with torch.no_grad():
            for file, tensors in files.items():
                for name, view in self._views[file].items():
                    view.copy_(tensors[name], non_blocking=on_gpu)
        if on_gpu:
            torch.cuda.current_stream(self.device).synchronize()

    def views(self) -> dict[str, dict[str, Tensor]]:
        """The copies, by file and name, as they are read from the files. They outlive `close`."""
        return {file: {name: view.contiguous() for name, view in tensors.items()}
                for file, tensors in self._views.items()}

    def close(self) -> None:
        """Frees the memory, when nothing refers to it any more."""
        self._unlock()
        self._views, self._map, self._layout = {}, None, None
        os.close(self.fd)

    def _lock(self, memory: Tensor) -> None:
        """Locks the memory's pages with CUDA. If it refuses, as it may in WSL or under a limit on locked memory, copies
        go through CUDA's own buffers: slower, but correct."""
        if self.device.type != "cuda":
            return
        cudart = torch.cuda.cudart()
        result = cudart.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)
        if int(result) == 0:
            self._locked = memory.data_ptr()
            return
        with suppress(RuntimeError):
            torch.zeros(1, device=self.device)  # clears the error, which the next kernel launch would raise
        if not self._refused:
            print(f"note: checkpoints are copied to pageable memory, which is slower: cudaHostRegister: "
                  f"{cudart.cudaGetErrorString(result)}", flush=True)
        self._refused = True

    def _unlock(self) -> None:
        """Must be called before the memory is freed; otherwise the driver keeps its pages."""
        if self._locked is not None:
            torch.cuda.cudart().cudaHostUnregister(self._locked)
            self._locked = None


def _in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tensors with large items first, so that each tensor begins at a multiple of its item size."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _order_in_memory(value: Tensor) -> list[int]:
    """The dimensions from the slowest to the fastest, if the tensor is dense in memory and in another order than that
    of its dimensions; otherwise empty."""
    if value.is_contiguous():
        return []
    order = sorted(range(value.dim()), key=value.stride().__getitem__, reverse=True)
    return order if value.permute(order).is_contiguous() else []


def _header(tensors: Mapping[str, Tensor]) -> tuple[bytes, int]:
    """The header of a safetensors file, and the number of bytes of the tensors after it.

    The format: the length of a JSON object (8 bytes, little-endian), the object, and the tensors
    (github.com/huggingface/safetensors).
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
