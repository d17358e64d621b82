"""A profile measures the steps that it was asked for, and changes nothing in the run."""

from __future__ import annotations

import gzip
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.profile_records import PARTS, Profile, ProfileRequest
from drumbeat.data.loader import Batch
from drumbeat.trainers import profiling
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.evaluate import evaluation_mode
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.micro_batches import MicroBatches
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.profiling import Profiling, mean_times
from drumbeat.trainers.step_times import Step
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.trainers.in_process import ALONE, attempted, new_run

SLEEP = 0.03




def events(file: Path) -> set[str]:
    with gzip.open(file) as opened:
        return {event.get("name", "") for event in json.load(opened)["traceEvents"]}


def test_a_profile_of_a_run_changes_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is asked after its first checkpoint; the phase ends before the second profile has all of its steps."""
    plain, _ = attempted(new_run(tmp_path / "plain"))
    run = new_run(tmp_path / "profiled")
    claim = RunDir.claim_attempt

    def claimed(self: RunDir) -> Any:
        attempt = claim(self)
        ProfileRequest(id="one", steps=2, ranks=(0,)).write(attempt.profile)
        return attempt

    monkeypatch.setattr(RunDir, "claim_attempt", claimed)
    profiled, _ = attempted(run)
    attempt = run.attempt(0)
    assert weights_sha256(profiled.model.state_dict()) == weights_sha256(plain.model.state_dict())
    assert not attempt.profile.exists()
    found = Profile.require(attempt.profiled(1))
    assert (found.id, found.step, found.steps, found.samples) == ("one", 1, 2, (4.0,))
    assert all(getattr(found, part)[0] > 0 for part in PARTS if part not in ("communication", "data"))
    assert found.communication == (0.0,)
    assert {"aten::addmm", "ProfilerStep#1", "ProfilerStep#2"} <= events(attempt.trace(1, 0))


def batch(number: int = 4) -> Batch:
    return Batch(torch.ones(number, 4), torch.zeros(number, dtype=torch.int64), torch.arange(number),
                 torch.arange(number), torch.zeros(number, dtype=torch.bool))


class Sleeps(nn.Module):
    """A linear layer; the forward pass of rank 1 takes longer, and the backward pass of rank 0."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.rank = rank

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.layer(inputs.requires_grad_(torch.is_grad_enabled()))
        time.sleep(SLEEP * self.rank)
        if outputs.requires_grad:
            outputs.register_hook(lambda _: time.sleep(SLEEP / 2 * (1 - self.rank)))
        return outputs  # type: ignore[no-any-return]


def trained(world: World, run: RunDir, *, steps: int, request: ProfileRequest, evaluates: bool = False) -> PhaseRunner:
    runner = PhaseRunner(
        name="only", number=0, seed=0, model=Sleeps(world.rank), frozen=[], task=Classification(), world=world,
        batch_size=4 * world.size, micro_batches=MicroBatches(2, world), forward=Forward(
            device=world.device, transforms=nn.Identity(), channels_last=False, bf16=False),
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    runner.start([batch()], None)
    for step in range(steps):
        if step == 1:
            Profiling(request, runner, run.attempt(0), step).start()
        runner.times.waited = 0.0
        runner.backward([batch()], step)
        runner.settle(runner.update())
        if evaluates:
            with evaluation_mode(runner.model):
                runner.model(torch.ones(4, 4))
            runner.train_mode()
    runner.times.close()
    return runner


def test_a_phase_that_ends_at_once_leaves_a_profile_of_no_step(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    trained(ALONE, RunDir(tmp_path), steps=2, request=ProfileRequest(id="a", steps=5, ranks=()))
    found = Profile.require(attempt.profiled(2))
    assert (found.steps, found.forward, found.samples) == (0, (0.0,), (0.0,))


def test_the_forward_passes_of_an_evaluation_are_not_those_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                     ) -> None:
    """With one rank, both call the same module."""
    RunDir(tmp_path).claim_attempt()
    moments: list[int] = []

    def noted(steps: list[Step], forward: list[list[float]]) -> Tensor:
        moments.extend(map(len, forward))
        return mean_times(steps, forward)  # type: ignore[arg-type]

    monkeypatch.setattr(profiling, "mean_times", noted)
    trained(ALONE, RunDir(tmp_path), steps=4, request=ProfileRequest(id="a", steps=2, ranks=()), evaluates=True)
    assert moments == [4, 4, 4, 0], "the beginnings and ends of two micro-batches"


def rank(world: World, folder: str) -> None:
    request = ProfileRequest(id="two", steps=5, ranks=(1,))
    trained(world, RunDir(Path(folder)), steps=5, request=request)


@pytest.mark.slow
def test_the_times_of_two_ranks_tell_what_is_slow_on_each(tmp_path: Path) -> None:
    """Two micro-batches; the phase ends after three of the five steps, and rank 1 alone writes a trace."""
    attempt = RunDir(tmp_path).claim_attempt()
    on_ranks(2, rank, tmp_path)
    found = Profile.require(attempt.profiled(2))
    assert (found.steps, found.traces, found.samples) == (3, (1,), (4.0, 4.0))
    assert not attempt.trace(2, 0).exists()
    assert {"DistributedDataParallel.forward", "aten::addmm"} <= events(attempt.trace(2, 1))
    assert found.forward[1] > 2 * SLEEP > found.forward[0]
    assert found.backward[0] > SLEEP > found.backward[1]
    assert found.communication[0] > SLEEP / 2


def test_the_parts_of_a_step_are_the_whole_step() -> None:
    steps = [Step(0.0, 4, 0.0, 1.0, 2.0, 3.0, 0.0), Step(0.25, 4, 3.5, 6.0, 6.5, 7.0, 0.0),
             Step(1.5, 8, 8.0, 10.0, 10.5, 11.0, 0.0)]
    assert mean_times(steps, [[0.0, 1.0], [3.5, 4.0, 4.5, 5.0], [8.0, 9.0], []]).tolist() == [
        (0.25 + 1.0) / 2, 1.0, (1.5 + 1.0) / 2, 0.5, 0.5, 0.25 / 2, 6.0]
    assert math.isnan(mean_times(steps, [[], [], []])[1])


def test_a_trace_that_cannot_be_written_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                             ) -> None:
    from drumbeat.trainers.profiling import write_trace

    class Full:
        def export_chrome_trace(self, path: str) -> None:
            raise OSError(28, "No space left on device")

    write_trace(tmp_path / "trace.json.gz", Full())  # type: ignore[arg-type]
    assert "could not be written: [Errno 28] No space left on device" in capsys.readouterr().out
    assert [*tmp_path.iterdir()] == []
