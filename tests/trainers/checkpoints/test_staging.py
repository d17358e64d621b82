"""Staging from a GPU: which pages are locked when, and that a step waits for its copy, once. On a machine without a GPU
a stand-in takes the place of cudart, and records what it is asked for; test_writer.py has the rest."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from drumbeat.trainers.checkpoints.staging import Staging

CUDA = torch.device("cuda", 0)
SMALL = {"a": {"x": torch.arange(5.0), "count": torch.tensor(7)}}
LARGE = {"a": {"x": torch.arange(5.0)}, "b": {"y": torch.ones(5000, dtype=torch.bfloat16)}}


def content(staging: Staging) -> dict[str, bytes]:
    """The files in a staging's memory."""
    return {file: os.pread(staging.fd, size, start) for file, (start, size) in staging.parts.items()}


def plain(files: dict[str, dict[str, Tensor]]) -> dict[str, bytes]:
    """What staging from the CPU makes of these."""
    staging = Staging()
    staging.fill({file: {name: value.cpu() for name, value in tensors.items()} for file, tensors in files.items()})
    return content(staging)


class Recorder:
    """Stands in for cudart and the current stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, result: int = 0) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.result = result
        self.staging = Staging(CUDA)
        cudart = SimpleNamespace(cudaHostRegister=self.register, cudaHostUnregister=self.unregister,
                                 cudaGetErrorString=lambda result: f"error {result}")
        monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
        monkeypatch.setattr(torch.cuda, "current_stream", self.stream)

    def register(self, address: int, size: int, flags: int) -> int:
        self.events.append(("register", address, size, flags, self.mapped(address)))
        return self.result

    def unregister(self, address: int) -> int:
        self.events.append(("unregister", address, self.mapped(address)))
        return 0

    def stream(self, device: torch.device) -> Any:
        return SimpleNamespace(synchronize=lambda: self.events.append(("wait", device, content(self.staging))))

    @staticmethod
    def mapped(address: int) -> bool:
        return f"\n{address:x}-" in "\n" + Path("/proc/self/maps").read_text()


def test_pages_are_locked_after_laying_out_and_freed_before_the_memory_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    for files in (SMALL, SMALL, LARGE):
        recorder.staging.fill(files)
    recorder.staging.close()
    first, second = (event[1] for event in recorder.events if event[0] == "register")
    assert recorder.events == [
        ("register", first, 4096, 0, True), ("wait", CUDA, plain(SMALL)), ("wait", CUDA, plain(SMALL)),
        ("unregister", first, True), ("register", second, 16384, 0, True), ("wait", CUDA, plain(LARGE)),
        ("unregister", second, True)]
    assert not recorder.mapped(second)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch is built without CUDA")
def test_a_refusal_is_reported_once_and_the_copies_are_the_same(monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(monkeypatch, result=2)
    for files in (SMALL, LARGE):
        recorder.staging.fill(files)
        assert content(recorder.staging) == plain(files)
    recorder.staging.close()
    assert [event[0] for event in recorder.events] == ["register", "wait", "register", "wait"]
    assert capsys.readouterr().out == (
        "note: checkpoints are copied to pageable memory, which is slower: cudaHostRegister: error 2\n")


def test_on_the_cpu_nothing_is_asked_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    plain(SMALL)
    assert recorder.events == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_real_gpu_writes_the_same_bytes() -> None:
    """Channels-last weights, all widths, a count on the CPU; in the memory of an earlier step, and in new memory."""
    torch.manual_seed(0)
    weight = torch.randn(64, 32, 3, 3, device=CUDA).to(memory_format=torch.channels_last)
    files = {"model": {"weight": weight, "half": torch.randn(1000, device=CUDA).bfloat16(),
                       "flags": torch.randn(77, device=CUDA) > 0, "none": torch.empty(0, 4, device=CUDA),
                       "large": torch.randn(50_000_000, device=CUDA)}, "optimizer": {"step": torch.tensor(3.0)}}
    staging = Staging(CUDA)
    for _ in range(3):
        for value in files["model"].values():
            if value.is_floating_point():
                value.mul_(1.5)
        expected = plain(files)
        staging.fill(files)
        files["model"]["large"].zero_().add_(torch.randn(1, device=CUDA))  # the next step changes what was copied
        assert content(staging) == expected
        assert staging._views["model"]["large"].is_pinned()
    files["model"]["more"] = torch.ones(5000, device=CUDA)
    staging.fill(files)
    assert content(staging) == plain(files)
    staging.close()
