"""This rank's place among all ranks, and their process group."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn

from drumbeat.configs.patience import SHORTEST, gloo_seconds, nccl_seconds
from drumbeat.configs.run.processes import die_with_parent
from drumbeat.data.loader import seed_generators
from drumbeat.trainers.checkpoints import extra_state
from drumbeat.trainers.gpu_check import check_visible
from drumbeat.trainers.numa import bind_near

SENT = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8, torch.uint8,
        torch.bool, torch.complex64, torch.complex128)
"""The types of tensors that gloo and NCCL broadcast: not int16, unsigned integers of more than a byte, and float8."""


@dataclass(frozen=True, kw_only=True)
class World:
    """A rank as a value, which is passed to all code that needs it."""

    rank: int
    local_rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes all files and curves."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no other ranks to communicate with."""
        return self.size == 1

    def seed(self, seed: int) -> None:
        """Seeds the generators of this rank: those of torch, numpy and Python on the host, and its device's.
        torch.manual_seed tries all kinds of devices, and takes 200 us."""
        seed_generators(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(seed)

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all ranks, in place."""
        if not self.is_alone:
            dist.all_reduce(values)
        return values

    def broadcast(self, values: torch.Tensor) -> torch.Tensor:
        """Rank 0's values on every rank, in place."""
        if not self.is_alone:
            dist.broadcast(values if values.dtype in SENT else _as_bytes(values), src=0)
        return values

    def broadcast_each(self, tensors: Iterable[torch.Tensor]) -> None:
        """Rank 0's values of several tensors on every rank, in place."""
        with torch.no_grad():
            for tensor in tensors:
                self.broadcast(tensor)

    def broadcast_model(self, model: nn.Module) -> None:
        """Rank 0's parameters, buffers and extra state on every rank, in place."""
        self.broadcast_each(chain(model.parameters(), model.buffers()))
        self.broadcast_extra_state(model)

    def broadcast_extra_state(self, model: nn.Module) -> None:
        """Rank 0's extra state on every rank."""
        if not self.is_alone and any(map(extra_state.has_extra_state, model.modules())):
            text = self.share(extra_state.as_text(model) if self.is_main else "")
            if not self.is_main:
                extra_state.load_text(model, text)

    def share(self, value: Any) -> Any:
        """Rank 0's value, of what JSON has, on every rank."""
        if self.is_alone:
            return value
        text = json.dumps(value).encode() if self.is_main else b""
        data = torch.zeros(int(self.broadcast(torch.tensor(len(text)))), dtype=torch.uint8)
        if self.is_main:
            data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return json.loads(self.broadcast(data).numpy().tobytes())

    def send(self, data: torch.Tensor) -> None:
        """Sends bytes, uint8 [n] on the CPU, to rank 0, and waits until it receives them."""
        for part in (torch.tensor([len(data)]), data):
            work = dist.isend(part, dst=0)
            assert work is not None
            work.wait(_gloo_timeout())

    def receive(self, rank: int) -> torch.Tensor:
        """The bytes that a rank sends to rank 0, uint8 [n]."""
        size = self._received(torch.zeros(1, dtype=torch.int64), rank)
        return self._received(torch.empty(int(size), dtype=torch.uint8), rank)

    def _received(self, data: torch.Tensor, rank: int) -> torch.Tensor:
        work = dist.irecv(data, src=rank)
        assert work is not None
        work.wait(_gloo_timeout())
        return data

    def all_gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Every rank's tensor, by rank, on the CPU; all have the same shape."""
        values = values.cpu().contiguous()
        if self.is_alone:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values)
        return parts

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Every rank's tensor on the CPU, by rank, for rank 0; empty for the others, which do not wait for it."""
        if self.is_alone:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.size)] if self.is_main else []
        dist.gather(values, parts or None, dst=0)
        return parts


@contextmanager
def join(device: Literal["cuda", "cpu"], patience: float = SHORTEST) -> Iterator[World]:
    """This rank's World. The process group exists within the context.

    Under torchrun the rank is in the environment; otherwise this is the only process and needs no group. CUDA ranks get
    gloo beside NCCL, so that small broadcasts between processes do not wait for the GPU. With `device_id`, NCCL
    connects the ranks here, so a broken network or GPU is an error here and not at the first collective; a group of
    some of the ranks, which Drumbeat never creates, would then have to be split off by all of them. The CUDA part is
    not tested. Ranks may arrive up to `patience` seconds apart, and at least `SHORTEST`.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    own_device = torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu")
    if device == "cuda":
        check_visible(local_rank)
        bind_near(own_device, threads=torch.get_num_threads())  # before CUDA and NCCL start threads
        torch.cuda.set_device(own_device)
    if size > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
                                device_id=own_device if device == "cuda" else None,
                                timeout=timedelta(seconds=max(patience, SHORTEST)))
    yield World(rank=rank, local_rank=local_rank, size=size, device=own_device)
    if dist.is_initialized():  # not after an error: NCCL could wait forever for ranks that have ended
        dist.destroy_process_group()


def _as_bytes(values: torch.Tensor) -> torch.Tensor:
    """uint8 [n]: the memory of a dense tensor, which is shared."""
    return values.detach().as_strided((values.numel(),), (1,)).view(torch.uint8)


def limit_waits(patience: float) -> None:
    """Sets the timeouts of collectives to fit a watchdog with a timeout of `patience` seconds (`configs/patience.py`
    says why NCCL and gloo differ). The setters of a group's backends are internal to torch, read in 2.9.0 and 2.14.1;
    `torch.distributed.set_timeout` of 2.14 sets one timeout for all backends."""
    if not dist.is_initialized():
        return
    group = dist.group.WORLD
    assert group is not None
    for device in group._device_types:
        backend = group._get_backend(device)
        seconds = nccl_seconds(patience) if backend.name() == "nccl" else gloo_seconds(patience)
        backend._set_default_timeout(timedelta(seconds=seconds))


def _gloo_timeout() -> timedelta:
    """The timeout that `limit_waits` has set for gloo. Sending and receiving would wait as long as the group was told
    when it was made (torch 2.14.1). Internal to torch, as there."""
    assert dist.group.WORLD is not None
    timeout: timedelta = dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout
    return timeout


def die_with_agent() -> None:
    """Asks the kernel to kill this rank when torchrun's agent, its parent, ends.

    The agent may have ended already: then the parent is not a child of the fork server or of the process that started
    torchrun.
    """
    agent = os.getppid()
    die_with_parent(agent)
    try:
        grandparent = Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        grandparent = ""
    if os.environ.get("DRUMBEAT_PARENT", grandparent) != grandparent:
        os.kill(os.getpid(), signal.SIGKILL)
