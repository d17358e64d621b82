"""How long saving a GPU's tensors blocks a training step: ours, torch's asynchronous save, one pinned copy."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from itertools import count
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import async_save

from benchmarks.gpu.figure import Figure
from benchmarks.gpu.scale import Scale
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.checkpoints.manager import Checkpoints

TENSORS = 480
"""About the number of tensors of a ResNet-50 and its Adam."""
READINGS = 2
"""Readings of each method, after a first one that allocates memory."""

Tensors = dict[str, Tensor]


def figures(scale: Scale) -> Iterator[Figure]:
    """The stall of a save, for each size."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    for megabytes in scale.megabytes:
        items = megabytes * 10**6 // 4 // TENSORS
        tensors = {str(number): torch.zeros(items, device=scale.device) for number in range(TENSORS)}
        with tempfile.TemporaryDirectory(dir=roomy(8 * megabytes * 10**6)) as folder:
            yield from _of_one_size(scale, megabytes, tensors, Path(folder))
    dist.destroy_process_group()


def roomy(size: int) -> str | None:
    """/dev/shm if it has `size` bytes free, so that a slow disk does not affect the measurement; otherwise None."""
    return "/dev/shm" if shutil.disk_usage("/dev/shm").free > size else None


def _of_one_size(scale: Scale, megabytes: int, tensors: Tensors, home: Path) -> Iterator[Figure]:
    run = RunDir(home / "run")
    checkpoints = Checkpoints(run, run.claim_attempt(), keep=1, device=scale.device)
    laid_out = scale.seconds(lambda: checkpoints.lay_out(tensors, {}))
    yield Figure(part="save", name=f"memory for {megabytes} MB, made before the first step", unit="s", ours=laid_out)
    steps = count(1)

    def ours() -> Callable[[], object]:
        checkpoints.save(Progress(step=next(steps)), tensors, {}, {})
        return checkpoints.wait

    stall = median(scale, ours)
    checkpoints.close()
    with closing(kept_stager(scale)) as stager:
        for name, peer in (("one pinned copy, the limit", pinned_copy(scale, tensors)),
                           ("DCP async_save", dcp(tensors, home, None)),
                           ("DCP async_save, its pinned memory kept", dcp(tensors, home, stager))):
            yield Figure(part="save", name=f"stall of a step by a save of {megabytes} MB", unit="s", ours=stall,
                         peer=median(scale, peer), peer_name=name)


def median(scale: Scale, begin: Callable[[], Callable[[], object]]) -> float:
    """The median of the seconds until a save has begun and the device is idle. `begin` returns a function that
    waits for the end of the save, whose time is not measured."""
    readings = []
    for _ in range(1 + READINGS):
        scale.synchronize()
        began = time.perf_counter()
        end = begin()
        scale.synchronize()
        readings.append(time.perf_counter() - began)
        end()
    return statistics.median(readings[1:])


def pinned_copy(scale: Scale, tensors: Tensors) -> Callable[[], Callable[[], object]]:
    """A copy of all tensors into one block of pinned memory, allocated before."""
    whole = torch.zeros(sum(value.numel() for value in tensors.values()), pin_memory=scale.on_gpu)
    places = whole.split([value.numel() for value in tensors.values()])

    def copy() -> Callable[[], object]:
        for place, value in zip(places, tensors.values(), strict=True):
            place.copy_(value, non_blocking=True)
        return lambda: None

    return copy


def dcp(tensors: Tensors, home: Path, stager: DefaultStager | None) -> Callable[[], Callable[[], object]]:
    """torch.distributed.checkpoint's asynchronous save."""
    def save() -> Callable[[], object]:
        folder = home / f"dcp-{time.monotonic_ns()}"
        future = async_save({"tensors": tensors}, checkpoint_id=str(folder), async_stager=stager)
        assert isinstance(future, Future)

        def end() -> None:
            future.result()
            shutil.rmtree(folder)

        return end

    return save


def kept_stager(scale: Scale) -> DefaultStager:
    """DCP's stager, with the options that are fastest on a GPU, by torch 2.14's distributed/checkpoint/staging.py."""
    return DefaultStager(StagingOptions(use_pinned_memory=scale.on_gpu, use_shared_memory=False,
                                        use_async_staging=False, use_non_blocking_copy=scale.on_gpu))
