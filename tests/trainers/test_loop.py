"""Steps whose gradient is not finite: that the host learns of them late changes nothing in a run or in what it says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.build import build_sets
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.gradients import Gradients
from drumbeat.trainers.guards import IN_A_ROW, FiniteCheck, NotFiniteError
from drumbeat.trainers.loop import Training
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.worker import build
from drumbeat.trainers.world import World
from tests.ranks import on_ranks

CONFIG = """
name: rows
batch_size: 4
precision: fp32
model: {_target_: tests.trainers.test_loop.Net, poisoned: POISONED}
data:
  train: {_target_: tests.trainers.test_loop.Rows, n: 24}
  validation: {_target_: tests.trainers.test_loop.Rows, n: 6}
  workers: 0
on_nonfinite: POLICY
phases:
  only:
    epochs: EPOCHS
    clip_norm: 0.5
    optimizer: OPTIMIZER
    scheduler: {_target_: torch.optim.lr_scheduler.StepLR, step_size: 2, gamma: 0.9}
checkpoints: {every_steps: 4}
tracking: {every_steps: 3, images: 0}
watchdog: {desync_check_steps: 5}
launch: {gpus: 0, cpus_per_rank: 1}
"""
STEPS, SAVED, EPOCH = 12, 4, 6
"""Steps there are; every how many there is a checkpoint, and an evaluation with another one."""

OPTIMIZERS = {
    "SGD": "lr: 0.1, momentum: 0.9",
    "Adam": "lr: 0.01, amsgrad: true",
    "AdamW": "lr: 0.01",
    "Adagrad": "lr: 0.1",
}

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


class Rows:
    """Four numbers and one of three classes."""

    classes = ("a", "b", "c")

    def __init__(self, *, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.randn(4, generator=torch.Generator().manual_seed(index)), index % 3


class Net(nn.Module):
    """A network with BatchNorm and dropout that reads NaN on the last rank in some of its training steps. Before the
    first comes a pass that is discarded. It counts them in a buffer that it replaces each time."""

    def __init__(self, *, poisoned: list[int]) -> None:
        super().__init__()
        self.poisoned = poisoned
        self.calls = -1
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.last = int(os.environ.get("WORLD_SIZE", "1")) - 1 == int(os.environ.get("RANK", "0"))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, rows: Tensor) -> Tensor:
        if self.training:
            rows = rows * float("nan") if self.calls in self.poisoned and self.last else rows
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * rows.mean(0)
        return self.layers(rows)  # type: ignore[no-any-return]


class SGD(torch.optim.SGD):
    """These do what torch's own do, but the host waits for each step, because they could do more."""


class Adam(torch.optim.Adam): ...


class AdamW(torch.optim.AdamW): ...


class Adagrad(torch.optim.Adagrad): ...


LATE, AT_ONCE = "torch.optim", "tests.trainers.test_loop"
"""Where the optimizers come from of which the host learns late whether they took a step, and at once."""


@dataclass(frozen=True)
class Outcome:
    """What a run has become, and what it has printed."""

    error: str
    reports: list[str]
    """What it has printed of skipped steps."""
    weights: str
    optimizer: dict[str, list[float]]
    scheduler: dict[str, Any]
    progress: dict[str, Any]
    saved: tuple[str, dict[str, Any]] | None
    """The weights of the last checkpoint, and what it holds beside the tensors."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(folder: Path, optimizer: str, policy: str, poisoned: list[int], *, epochs: float = 2,
            world: World = ALONE, output: Callable[[], str] = str, batches: int | None = None) -> Outcome:
    """A run in this process, or a rank of one, with NaN in the steps `poisoned`, and of whose data only so many
    `batches` can be read."""
    name = optimizer.rpartition(".")[2]
    text = CONFIG.replace("POLICY", policy).replace("POISONED", str(poisoned)).replace(
        "EPOCHS", str(epochs)).replace("OPTIMIZER", f"{{_target_: {optimizer}, fused: true, {OPTIMIZERS[name]}}}")
    run = RunDir(folder / optimizer / policy / "-".join(map(str, poisoned)))
    if world.is_main:
        run.path.mkdir(parents=True)
        (run.path / "rows.yaml").write_text(text)
        run.config.touch()
        run.claim_attempt()
    world.all_reduce(torch.zeros(1))  # all that is there
    attempt = run.newest_attempt()
    assert attempt is not None
    config = load(run.path / "rows.yaml").config
    training = build(run, attempt, config, build_sets(config), world, threads=1, debug=True)
    runners: list[PhaseRunner] = []
    training = replace(training, phases=[
        replace(phase, make_runner=partial(_kept, phase.make_runner, runners),
                make_batches=lambda first, make=phase.make_batches: islice(make(first), batches))
        for phase in training.phases])
    error = ""
    try:
        training.run()
    except (NotFiniteError, RuntimeError) as raised:
        error = str(raised)
    training.checkpoints.close()
    training.saver.tracker.close()
    training.watchdog.close()
    world.all_reduce(torch.zeros(1))  # all that is saved
    return outcome(training, runners[-1], error, [line for line in output().splitlines() if line.startswith("skipped")])


def _kept(make: Callable[[], PhaseRunner], runners: list[PhaseRunner]) -> PhaseRunner:
    """A phase's runner, which is also appended to the list."""
    runners.append(make())
    return runners[-1]


def outcome(training: Training, runner: PhaseRunner, error: str, reports: list[str]) -> Outcome:
    saved = training.checkpoints.newest()
    return Outcome(
        error=error, reports=reports, weights=weights_sha256(training.model.state_dict()),
        optimizer={name: value.flatten().tolist() for name, value in runner.state()[0].items()},
        scheduler=runner.state()[1]["scheduler"], progress=replace(training.progress, seconds={}).as_json(),
        saved=saved and (weights_sha256(saved.model()), saved.state.as_json() | {
            "config": {}, "progress": replace(saved.progress, seconds={}).as_json()}))


def both(folder: Path, optimizer: str, policy: str, poisoned: list[int], **options: Any) -> tuple[Outcome, Outcome]:
    """With an optimizer of torch's, and with one of ours."""
    late, at_once = (trained(folder, f"{module}.{optimizer}", policy, poisoned, **options)
                     for module in (LATE, AT_ONCE))
    return late, at_once


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_that_are_skipped(tmp_path: Path, optimizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The first one, before there is a state; the last before a save; at both epochs' ends, and the one after that."""
    poisoned = [0, SAVED - 1, EPOCH - 1, EPOCH, STEPS - 1]
    late, at_once = both(tmp_path, optimizer, "skip", poisoned, output=lambda: capsys.readouterr().out)
    assert late == at_once
    steps = [report.removeprefix("skipped    NaN or Inf loss at step ").split()[0] for report in late.reports]
    assert steps == [*map(str, poisoned)]
    assert (late.progress["step"], late.progress["steps_skipped"]) == (STEPS, len(poisoned))
    assert late.scheduler["state"]["last_epoch"] == STEPS - len(poisoned)
    assert all(value == STEPS - len(poisoned) for name, (value, *_) in late.optimizer.items() if name.endswith("step"))


@pytest.mark.parametrize("at", [0, 2, SAVED - 1, SAVED, EPOCH - 1, EPOCH, STEPS - 1])
def test_a_step_that_ends_the_run(tmp_path: Path, at: int) -> None:
    """With the state before it: in the middle, before a point of the curves, a save, an epoch's end and the run's."""
    late, at_once = both(tmp_path, "SGD", "stop", [at])
    assert late == at_once
    assert late.error.startswith(
        f"NaN or Inf loss at step {at} on rank 0: the loss is nan; positions {4 * at} (sample ")
    assert late.progress["step"] == late.progress["phase_step"] == late.scheduler["state"]["last_epoch"] == at
    assert sum(span["samples"] for span in late.progress["ledger"]) == late.progress["samples"] == 4 * at
    assert late.saved is None if at == 0 else late.saved is not None and (
        late.saved[0] == late.weights and late.saved[1]["progress"]["step"] == at)


def test_a_run_that_skips_too_many_steps_in_a_row_ends(tmp_path: Path) -> None:
    """With the state before the last of them; those that were skipped earlier do not count."""
    late, at_once = both(tmp_path, "SGD", "skip", [1, *range(3, 3 + IN_A_ROW)], epochs=5)
    assert late == at_once
    assert late.error.startswith(f"NaN or Inf loss at step {2 + IN_A_ROW} on rank 0: the loss is nan; positions ")
    assert late.error.endswith("; 20 steps in a row are like this")
    assert (late.progress["step"], late.progress["steps_skipped"]) == (2 + IN_A_ROW, IN_A_ROW)
    assert late.saved is not None and late.saved[0] == late.weights


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_a_step_is_not_skipped_if_that_does_not_help(tmp_path: Path, policy: str,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Because the weights are Inf after the steps before it."""
    with monkeypatch.context() as patch:
        patch.setitem(OPTIMIZERS, "SGD", "lr: 1e38, momentum: 0.9, weight_decay: 1e38")
        found = trained(tmp_path, "torch.optim.SGD", policy, [])
    assert found.error.endswith("; the weights are NaN or Inf already")


def test_data_that_end_early_are_no_finished_run(tmp_path: Path) -> None:
    outcome = trained(tmp_path, "torch.optim.SGD", "stop", [], batches=3)
    assert outcome.error == f"the data ended after 3 of {STEPS:,} steps of phase only"


def test_that_state_is_the_one_of_a_run_that_is_no_longer(tmp_path: Path) -> None:
    """Although the next step's forward pass has changed the buffers when the host learns of the step."""
    stopped = trained(tmp_path / "stopped", "torch.optim.SGD", "stop", [EPOCH])
    shorter = trained(tmp_path / "shorter", "torch.optim.SGD", "stop", [], epochs=1)
    assert stopped.error
    assert (stopped.weights, stopped.optimizer, stopped.scheduler) == (
        shorter.weights, shorter.optimizer, shorter.scheduler)


def test_the_host_checks_a_step_when_the_next_one_is_running(tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Except before something reads the state: here a point of the curves after three steps, a save after four, a
    comparison of the ranks after five, an epoch's end after six. The seventh is not taken, which is known
    in the eighth."""
    acts: list[str] = []
    for kind, name, act in ((Gradients, "compute", "pass"), (PhaseRunner, "update", "update"),
                            (FiniteCheck, "passed", "ask")):
        real = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *given, real=real, act=act, **named: (
            acts.append(act), real(*given, **named))[1])
    trained(tmp_path, "torch.optim.Adam", "stop", [EPOCH])
    step, late = ["pass", "update"], ["pass", "ask", "update"]
    assert acts == ["pass", *step, *late, *late, "ask", *step, "ask", *step, "ask", *step, "ask", *step, "pass", "ask"]


def rank(world: World, folder: str) -> None:
    cases = [("SGD", "skip", [0, SAVED - 1, EPOCH - 1, EPOCH, STEPS - 1]), ("Adam", "stop", [0]),
             ("SGD", "stop", [EPOCH - 1]), ("SGD", "stop", [EPOCH])]
    torch.save([both(Path(folder), *case, world=world) for case in cases], Path(folder, str(world.rank)))


@pytest.mark.slow
def test_two_ranks(tmp_path: Path) -> None:
    """Of which only one reads NaN; the other learns of it from the average of the gradients."""
    on_ranks(2, rank, tmp_path)
    first, second = (torch.load(tmp_path / str(rank), weights_only=False) for rank in range(2))
    for late, at_once in (*first, *second):
        assert late == at_once
    for (one, _), (other, _) in zip(first, second, strict=True):
        assert one.optimizer == other.optimizer
        if one.error:
            at = one.progress["step"]
            assert one.error == f"NaN or Inf gradient at step {at}; the loss of rank 0 is finite"
            assert other.error.startswith(
                f"NaN or Inf loss at step {at} on rank 1: the loss is nan; positions {4 * at + 2} (sample ")
