"""The times of a step: on real ranks of which one is slow, and on a GPU whose events the test makes pass."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.data.loader import Batch
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.micro_batches import MicroBatches
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.step_times import StepTimes, Times
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.world import World
from tests.ranks import on_ranks

STEPS, SLEEP = 6, 0.05


class Sleeps(nn.Module):
    """A linear layer; the forward pass of rank 1 takes longer, and so does its backward pass."""

    def __init__(self, rank: int, *, backward: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.pause = SLEEP * rank
        self.backward = backward

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.layer(inputs.requires_grad_())
        if self.backward:
            outputs.register_hook(lambda _: time.sleep(self.pause))
        else:
            time.sleep(self.pause)
        return outputs


def runner(world: World, *, backward: bool, weighted: bool = False) -> PhaseRunner:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]) if weighted else None, reduction="none")
    return PhaseRunner(
        name="only", number=0, seed=0, model=Sleeps(world.rank, backward=backward), frozen=[],
        task=Classification(loss=loss), world=world, batch_size=8, micro_batches=MicroBatches(2, world),
        forward=Forward(
            device=world.device, transforms=nn.Identity(), channels_last=False, bf16=False),
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))


def batch(number: int = 4) -> Batch:
    return Batch(torch.ones(number, 4), torch.zeros(number, dtype=torch.int64), torch.arange(number),
                 torch.arange(number), torch.zeros(number, dtype=torch.bool))


def train(phase: PhaseRunner, waited: float = 0.0) -> Times:
    phase.start([batch()], None)  # whose pass is discarded, and not counted
    for step in range(STEPS):
        time.sleep(waited)
        phase.times.waited = waited
        phase.backward([batch()], step)
        phase.update()
    return phase.times.read()


def slow_pass(world: World, backward: str) -> None:
    """Two micro-batches for each step; the second communicates."""
    phase = runner(world, backward=bool(int(backward)))
    times = train(phase)
    slept = 2 * STEPS * SLEEP
    assert times.samples == STEPS * 4
    assert times.data == 0.0
    if world.rank == 1:
        assert times.compute + times.cores > slept > times.wait
    else:
        assert times.wait > 0.7 * slept > times.compute
    assert phase.times.read() == Times(0.0, 0.0, 0.0, 0.0, 0.0)


def slow_data(world: World, weighted: str) -> None:
    """With weights, the ranks meet before the forward pass already."""
    times = train(runner(world, backward=False, weighted=bool(int(weighted))), waited=SLEEP * (1 - world.rank))
    if world.rank == 0:
        assert times.data > 0.7 * STEPS * SLEEP
    else:
        assert times.data == 0.0
    assert times.compute + times.cores >= STEPS * 2 * SLEEP * world.rank


@pytest.mark.slow
@pytest.mark.parametrize("backward", [0, 1])
def test_the_others_wait_for_the_gradients_of_a_slow_rank(backward: int) -> None:
    on_ranks(2, slow_pass, backward)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [0, 1])
def test_a_rank_that_waits_for_data(weighted: int) -> None:
    on_ranks(2, slow_data, weighted)


def test_one_rank_measures_nothing() -> None:
    alone = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
    assert train(runner(alone, backward=False)) == Times(0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_kernel_without_schedstat(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise FileNotFoundError(path)

    monkeypatch.setattr("os.open", refuse)
    times = StepTimes(World(rank=0, local_rank=0, size=2, device=torch.device("cpu")), [])
    step(times)
    assert times.read().cores == 0.0


def step(times: StepTimes, waited: float = 0.0) -> None:
    times.waited = waited
    times.begin(3)
    times.own_gradients(torch.zeros(()))  # as autograd does
    times.reduced()
    times.end()


@dataclass
class Gpu:
    """Events of one stream: each is passed at the time that the test has given it, unless the GPU is behind."""

    moments: list[float]
    passed: float = math.inf
    recorded: list[Any] = field(default_factory=list)

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        made = SimpleNamespace(moment=self.moments[len(self.recorded)])
        made.record = lambda stream: None
        made.query = lambda: made.moment <= self.passed
        made.elapsed_time = lambda later: 1e3 * (later.moment - made.moment)
        self.recorded.append(made)
        return made


def on_gpu(monkeypatch: pytest.MonkeyPatch, *moments: float) -> tuple[Gpu, StepTimes]:
    gpu = Gpu([*moments])
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    return gpu, StepTimes(World(rank=0, local_rank=0, size=2, device=torch.device("cuda", 0)), [])


def test_steps_that_the_gpu_has_not_ended_are_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The events have no `synchronize`, so that a wait for them would raise."""
    gpu, times = on_gpu(monkeypatch, 10, 14, 15, 17, 20, 22, 28, 29)
    step(times)
    step(times)
    gpu.passed = 28
    assert times.read() == Times(data=0.0, compute=6.0, cores=0.0, wait=1.0, samples=3)
    gpu.passed = 29
    assert times.read() == Times(data=0.0, compute=3.0, cores=0.0, wait=6.0, samples=3)


def test_a_wait_of_the_host_counts_as_far_as_the_gpu_was_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host runs ahead: it waits for the next batch while the GPU still computes."""
    _, times = on_gpu(monkeypatch, 10, 11, 12, 13, 13.5, 14, 15, 16, 26, 27, 28, 29)
    step(times)
    step(times, waited=3.0)
    step(times, waited=3.0)
    assert times.read().data == 0.5 + 3.0
