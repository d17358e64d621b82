"""`drumbeat verify`: a correct ledger agrees with the order, and each kind of error in a ledger is named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from drumbeat.configs.load import build_config, file_layers, read
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress, Span
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result, Status
from drumbeat.data.loader import BatchFetcher, batches
from drumbeat.data.order import Stream
from drumbeat.trainers.build import build_batch_sampler, build_stream
from drumbeat.trainers.commands.verify import main, report_text, verify
from drumbeat.trainers.position import build_schedules
from drumbeat.trainers.sample_counts import SampleCounts, describe_training_set
from drumbeat.trainers.world import World
from tests.tiny import Pictures, drumbeat, latest, write_config
from tests.warm import run_python

CONFIG = """
name: small
batch_size: 6
model: {_target_: x}
data: {train: {_target_: tests.trainers.commands.test_verify.Texts}}
phases:
  first: {epochs: 2, optimizer: {_target_: x}}
  second: {epochs: 0.7, batch_size: 5, optimizer: {_target_: x}}
"""


class Texts:
    """Numbers in two classes, of differing lengths."""

    classes = ("rare", "many")
    labels = (np.arange(23) > 4).astype(np.int64)
    lengths = np.arange(23) * 7 % 11

    def __init__(self, *, n: int = 23) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor(index), int(self.labels[index])


class Others(World):
    """A rank whose sums are given what the other ranks hold."""

    accounts: list[SampleCounts]

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.tensor([one.digest % 2**32, one.digest // 2**32, one.samples, one.replaced])
                            for one in self.accounts]).sum(0)


def train(run: RunDir, attempts: list[tuple[int, int]], data: str = "") -> Progress:
    """As much of a run as its ledger sees: attempts of so many ranks, each of so many steps over both phases, with a
    checkpoint every third step and at each phase's end. The last checkpoint is written down."""
    run.path.mkdir(parents=True)
    run.config.write_text(CONFIG.replace("Texts}}", f"Texts}}{data}}}"))
    config = build_config(file_layers(run.config))
    samples = Texts()
    progress = Progress(data=describe_training_set(samples))
    tables = build_schedules(config, len(samples))
    for number, (ranks, steps) in enumerate(attempts):
        for phase, table in enumerate(tables):
            done = phase < progress.phase or (phase == progress.phase and progress.phase_step == table.steps)
            if done or steps == 0:
                continue
            if phase > progress.phase:
                progress = replace(progress, phase=phase, phase_step=0)
            stream = build_stream(config, samples, phase)
            fetch = BatchFetcher(samples, indices=stream.indices)
            accounts = [SampleCounts(number) for _ in range(ranks)]
            world = Others(rank=0, local_rank=0, size=ranks, device=torch.device("cpu"))
            object.__setattr__(world, "accounts", accounts)
            shares = [batches(fetch, build_batch_sampler(config, samples, table, stream, rank=rank, world_size=ranks,
                                                  first=progress.phase_step), workers=0, pin_memory=False)
                      for rank in range(ranks)]
            for step in zip(*shares, strict=True):
                if steps == 0:
                    break
                steps -= 1
                for counts, batch in zip(accounts, step, strict=True):
                    counts.add([batch])
                progress = progress.advanced(table.batch_size)
                if progress.step % 3 == 0 or progress.phase_step == table.steps or steps == 0:
                    for counts in accounts:
                        counts.count()
                    progress = accounts[0].close(progress, phase, world)
                    for counts in accounts[1:]:
                        counts.close(progress, phase, world)
    write_state(run, progress)
    return progress


def write_state(run: RunDir, progress: Progress) -> None:
    folder = run.checkpoints / "step-1"
    folder.mkdir(parents=True, exist_ok=True)
    CheckpointState(progress=progress).write(folder / "state.json")
    if not (run.checkpoints / "last").exists():
        (run.checkpoints / "last").symlink_to("step-1")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs" / "small" / "20261122-030405-abcde")


def test_a_run_on_several_numbers_of_ranks_agrees(run: RunDir) -> None:
    train(run, [(1, 4), (3, 2), (2, 100)])
    assert report_text(run, verify(run)) == """\
run        small/20261122-030405-abcde

phase      first: 23 samples, batches of 6; every sample once an epoch
steps      8 of 8 in 4 spans, attempt 0 on 1 rank, attempt 1 on 3 ranks, attempt 2 on 2 ranks
samples    48: 2 epochs and 2 samples past the last epoch boundary
uses       21 samples twice, 2 samples 3 times

phase      second: 23 samples, batches of 5; every sample once an epoch
steps      4 of 4 in 2 spans, attempt 2 on 2 ranks
samples    20: 0.73913 epochs and 3 samples past the last epoch boundary
uses       3 samples never, 20 samples once

verdict    the ledger agrees with the order of samples in every span"""


def test_an_unfinished_run_agrees_so_far(run: RunDir) -> None:
    progress = train(run, [(2, 4)])
    write_state(run, replace(progress, skipped=3))
    assert report_text(run, verify(run)) == """\
run        small/20261122-030405-abcde

phase      first: 23 samples, batches of 6; every sample once an epoch
steps      4 of 8 in 2 spans, attempt 0 on 2 ranks
samples    24: 1.04348 epochs
uses       22 samples once, 1 sample twice

skipped    3 of these could not be read and were replaced by others

verdict    the ledger agrees with the order of samples in every span"""


@pytest.mark.parametrize(("data", "rule"), [
    (", sampling: {_target_: drumbeat.data.ClassBalanced}",
     "2 classes alternate; within a class, each sample is read once before any is read again"),
    (", sampling: {_target_: drumbeat.data.Weighted, class_weights: {rare: 3, many: 1}}",
     "each position draws a sample by its weight, with replacement: how often each is read is random"),
    (", bucket_batches: 3",
     "every sample once an epoch; each position is read once per phase, within 3 steps of its own step"),
    (", shuffle: false", "every sample once an epoch"),
    (", bucket_batches: 2, sampling: {_target_: drumbeat.data.ClassBalanced}",
     "2 classes alternate; within a class, each sample is read once before any is read again; each "
     "position is read once per phase, within 2 steps of its own step"),
])
def test_other_orders_agree_too(run: RunDir, data: str, rule: str) -> None:
    progress = train(run, [(1, 4), (3, 1), (2, 100)], data)
    report = verify(run)
    assert report.faults == 0
    assert [phase.rule for phase in report.phases] == [rule, rule]
    assert [phase.steps for phase in report.phases] == [8, 4]
    assert progress.samples == sum(int(phase.uses.sum()) for phase in report.phases if phase.uses is not None) == 68


def test_balanced_classes_are_used_alike(run: RunDir) -> None:
    """Which the plain order would not do, so it is told apart."""
    train(run, [(2, 100)], ", sampling: {_target_: drumbeat.data.ClassBalanced}")
    uses = verify(run).phases[0].uses
    assert uses is not None
    assert uses[:5].sum() == uses[5:].sum() == 24
    run.config.write_text(CONFIG)
    assert verify(run).faults == 5  # every one of the spans


def lose(spans: list[Span]) -> None:
    spans.pop(1)


def lose_the_last(spans: list[Span]) -> None:
    spans.pop()


def lose_a_phase(spans: list[Span]) -> None:
    del spans[:3]


def double(spans: list[Span]) -> None:
    spans.insert(1, spans[1])


def forge(spans: list[Span]) -> None:
    spans[1] = replace(spans[1], digest=f"{int(spans[1].digest, 16) ^ 1:016x}")


def forge_a_count(spans: list[Span]) -> None:
    spans[2] = replace(spans[2], samples=spans[2].samples - 1)


def move(spans: list[Span]) -> None:
    spans[0], spans[3] = replace(spans[0], digest=spans[3].digest), replace(spans[3], digest=spans[0].digest)


def go_on(spans: list[Span]) -> None:
    spans[-1] = replace(spans[-1], steps=spans[-1].steps + 2)


@pytest.mark.parametrize(("tamper", "messages"), [
    (lose, ["steps 4 to 6 missing from the ledger"]),
    (lose_the_last, ["4 steps were taken, but the ledger ends with step 1"]),
    (lose_a_phase, ["8 steps were taken, but the ledger ends with step 0"]),
    (double, ["steps 4 to 6 twice in the ledger"]),
    (forge, ["steps 4 to 6 (attempt 0 on 2 ranks): the digest differs from that of the order"]),
    (forge_a_count, ["steps 7 to 8 (attempt 0 on 2 ranks): 11 samples, but the order has 12"]),
    (move, ["steps 1 to 3 (attempt 0 on 2 ranks): the digest differs from that of the order",
            "step 1 (attempt 0 on 2 ranks): the digest differs from that of the order"]),
    (go_on, ["steps 2 to 6 (attempt 0 on 2 ranks): 15 samples, but the order has 25",
             "6 steps were taken, but the phase has 4", "4 steps were taken, but the ledger ends with step 6"]),
], ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_with_a_ledger_is_named(run: RunDir, capsys: pytest.CaptureFixture[str], messages: list[str],
                                              tamper: Callable[[list[Span]], None]) -> None:
    progress = train(run, [(2, 100)])
    assert main(str(run.path)) == 0
    spans = list(progress.ledger)
    tamper(spans)
    write_state(run, replace(progress, ledger=tuple(spans)))
    capsys.readouterr()
    assert main(str(run.path)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix("ERROR      ") for line in lines if line.startswith("ERROR")] == messages
    errors = f"{len(messages)} error{'s' * (len(messages) > 1)}"
    assert lines[-1] == f"verdict    the ledger differs from the order of samples: {errors}"


@pytest.mark.parametrize(("data", "wrong"), [("seed: 1", 5), ("batch_size: 6", 0)])
def test_another_seed_is_another_order(run: RunDir, data: str, wrong: int) -> None:
    train(run, [(1, 100)])
    run.config.write_text(CONFIG.replace("batch_size: 6", data) + ("\nbatch_size: 6" if "seed" in data else ""))
    assert verify(run).faults == wrong


def test_an_order_that_follows_from_a_set_needs_that_set(run: RunDir) -> None:
    train(run, [(1, 100)], ", bucket_batches: 3")
    run.config.write_text(run.config.read_text().replace("Texts}", "Texts, n: 22}"))
    assert main(str(run.path)) == 2


def test_progress_is_told_up_to_the_whole(run: RunDir) -> None:
    train(run, [(2, 100)])
    calls: list[tuple[int, int]] = []
    verify(run, lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert calls[-1] == (68, 68)


def test_without_a_checkpoint_there_is_no_ledger(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.path.mkdir(parents=True)
    run.config.write_text(CONFIG)
    assert main(str(run.path)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"""\
error: the run has no ledger yet
  where  {run.checkpoints}
  fix    It is saved with the first checkpoint.
"""


UNREADABLE = (7, 47, 87)


class Flawed(Pictures):
    """Pictures of which some cannot be read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index in UNREADABLE:
            raise ValueError(f"picture {index} is damaged")
        return super().__getitem__(index)


FLAWED = [*(f"data.{name}._target_={__name__}.Flawed" for name in ("train", "validation", "test")),
          "data.train.n=100", "data.validation.n=30", "data.validation.first=1000", "data.test.n=17",
          "data.test.first=2000", "data.on_error=skip"]

MIXED = [*FLAWED, "data.max_skipped=0.1", "data.mix._target_=drumbeat.data.Mixup", "data.mix.alpha=1.0",
         "model._target_=tests.tiny.Linear", "phases.head.freeze=[]"]


@pytest.mark.slow
def test_killed_and_resumed_on_other_ranks_and_workers_a_run_used_what_it_should(tmp_path: Path) -> None:
    """With mixed samples, and some that cannot be read: the same curve, counts and rest as in one process."""
    (straight := tmp_path / "straight").mkdir()
    (killed := tmp_path / "killed").mkdir()
    config = str(write_config(tmp_path))
    drumbeat(straight, config, "--debug", *MIXED)
    drumbeat(killed, config, "--procs", "2", *MIXED, "data.workers=1", "launch.restarts=0",
             "task._target_=tests.tiny.Fuse", f"task.folder={killed}", "task.at=[45]", "task.rank=1", expect=1)
    drumbeat(killed, "--resume", "tiny", "--procs", "3", "data.workers=2")
    run = latest(killed)

    alone, result = Result.require(latest(straight).result), Result.require(run.result)
    calendar = enumerate(build_schedules(read(run.config), 100))
    positions = {phase: np.arange(table.steps * table.batch_size) for phase, table in calendar}
    skipped = sum(np.isin(Stream(100, 0, phase).indices(read), UNREADABLE).sum() for phase, read in positions.items())
    assert alone.samples_skipped == result.samples_skipped == skipped
    assert result.samples_seen == 17 * 12 + 25 * 10
    for mine, theirs in ((result.last, alone.last), (result.test, alone.test)):
        assert mine["accuracy"] == theirs["accuracy"]
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    one, other = (EventAccumulator(str(latest(folder).tensorboard)).Reload().Scalars("train/loss")
                  for folder in (straight, killed))
    assert [point.step for point in one] == [point.step for point in other] == list(range(2, 43, 2))
    assert [point.value for point in other] == pytest.approx([point.value for point in one], rel=1e-4)

    log = run.attempt(1).log(0).read_text()
    assert "note: 1 of the 30 samples of the validation set could not be read and are left out\n" in log
    assert "note: 1 of the 17 samples of the test set could not be read and are left out\n" in log

    done = run_python([sys.executable, "-m", "drumbeat", "verify", "tiny"], cwd=killed, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == f"""\
run        tiny/{run.id}

phase      head: 100 samples, batches of 12; every sample once an epoch
steps      17 of 17 in 6 spans, attempt 0 on 2 ranks, attempt 1 on 3 ranks
samples    204: 2 epochs and 4 samples past the last epoch boundary
uses       96 samples twice, 4 samples 3 times

phase      finetune: 100 samples, batches of 10; every sample once an epoch
steps      25 of 25 in 10 spans, attempt 1 on 3 ranks
samples    250: 2.5 epochs
uses       50 samples twice, 50 samples 3 times

skipped    {skipped} of these could not be read and were replaced by others

verdict    the ledger agrees with the order of samples in every span
"""
    assert done.returncode == 0

    state = run.checkpoints / "last" / "state.json"
    span = CheckpointState.require(state).progress.ledger[3]
    assert (span.first_step, span.steps, span.attempt, span.world_size) == (9, 3, 1, 3)
    state.write_text(state.read_text().replace(span.digest, f"{int(span.digest, 16) - 1:016x}"))
    report = verify(run)
    assert [phase.faults for phase in report.phases] == [
        ["steps 10 to 12 (attempt 1 on 3 ranks): the digest differs from that of the order"], []]
    assert main(str(run.path)) == 1


@pytest.mark.slow
def test_too_many_samples_that_cannot_be_read_end_a_run_for_good(tmp_path: Path) -> None:
    """At the first look at which more than one in a hundred was skipped, over both ranks."""
    done = drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", *FLAWED, "tracking.every_steps=1",
                    "checkpoints.every_steps=null", expect=1)
    unreadable = np.isin(Stream(100, 0, 0).indices(np.arange(204)), UNREADABLE)
    seen = next(step * 12 for step in range(1, 18) if unreadable[:step * 12].sum() > 1)
    text = (f"{unreadable[:seen].sum()} of {seen} samples could not be read; there is no checkpoint; not retried: "
             "it would fail the same way")
    assert text in " ".join(done.stdout.split())
    run = latest(tmp_path)
    assert Status.require(run.status).verdict == text
    assert [attempt.name for attempt in run.attempts.iterdir()] == ["000"]
