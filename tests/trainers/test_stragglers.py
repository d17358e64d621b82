"""Which rank is called slow: the rule on made-up times, and real ranks of which one is slow."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.bad_nodes import remembered
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.rank_records import RankTimes, SlowRank
from drumbeat.configs.run.records import AttemptStart
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.runs.status import status_text
from drumbeat.trainers.step_times import Times
from drumbeat.trainers.stragglers import LEAST_INTERVALS, REMEMBER_SECONDS, WINDOW_SECONDS, Stragglers, slowest
from drumbeat.trainers.tracking import Tracker
from drumbeat.trainers.world import World
from tests.processes import names_of, until
from tests.tiny import Pictures, drumbeat, latest, write_config


def interval(own: list[float], *, data: list[float] | None = None, samples: list[float] | None = None) -> Tensor:
    """The times of ranks that compute for `own` seconds, and then wait for the slowest."""
    data = data or [0.0] * len(own)
    longest = max(map(sum, zip(own, data, strict=True)))
    return torch.tensor([Times(wait, one, 0.0, longest - wait - one, count) for one, wait, count in zip(
        own, data, samples or [100.0] * len(own), strict=True)], dtype=torch.float64)


def late(*intervals: Tensor) -> tuple[int, str, float]:
    """The slowest rank, its part, and in which part of the intervals it is late."""
    found = slowest(intervals)
    return found.rank, found.part, found.late


def test_a_rank_that_is_stopped_for_half_of_the_time() -> None:
    assert late(*[interval([1.0, 2.0])] * 10) == (1, "compute", 1.0)
    assert slowest([interval([1.0, 2.0])] * 10).share == pytest.approx(0.5)
    assert late(*[interval([1.0, 1.0, 2.0, 1.0])] * 10) == (2, "compute", 1.0)


def test_a_rank_that_waits_for_data() -> None:
    assert late(*[interval([1.0] * 4, data=[0.1, 1.1, 0.1, 0.1])] * 10) == (1, "data", 1.0)


def test_the_larger_part_is_named() -> None:
    assert late(*[interval([1.0, 1.2], data=[0.1, 1.1])] * 10) == (1, "data", 1.0)
    assert late(*[interval([1.0, 2.2], data=[0.1, 0.5])] * 10) == (1, "compute", 1.0)


def test_ranks_that_are_all_slow_are_not_late() -> None:
    assert late(*[interval([9.0] * 4, data=[5.0] * 4)] * 10)[2] == 0.0


def test_noise_is_not_late() -> None:
    generator = torch.Generator().manual_seed(0)
    for ranks in (2, 3, 8, 4096):
        noisy = [interval((1 + 0.15 * torch.rand(ranks, generator=generator)).tolist()) for _ in range(10)]
        assert late(*noisy)[2] == 0.0


def test_a_disturbance_now_of_one_and_now_of_the_other() -> None:
    found = slowest([interval([1.0, 2.0]), interval([2.0, 1.0])] * 5)
    assert found.late == 0.5


def test_one_long_step_counts_for_one_interval() -> None:
    assert late(*[interval([1.0, 1.0])] * 9, interval([1.0, 30.0])) == (1, "compute", 0.1)


def test_one_of_4096_ranks_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    own = 1 + 0.1 * torch.rand(10, 4096, generator=generator)
    own[:, 3217] *= 1.8
    assert late(*[interval(row.tolist()) for row in own]) == (3217, "compute", 1.0)


def test_a_slow_node_is_found_though_half_of_the_ranks_are_slow() -> None:
    rank, _, part = late(*[interval([1.0] * 4 + [2.0] * 4)] * 10)
    assert (rank >= 4, part) == (True, 1.0)


def test_a_rank_with_more_samples_may_take_longer() -> None:
    """Five samples on four ranks: one has two of them. A rank with fewer may not."""
    assert late(*[interval([1.0, 1.0, 1.0, 2.0], samples=[10, 10, 10, 20])] * 10)[2] == 0.0
    assert late(*[interval([2.0, 2.0, 2.0, 1.0], samples=[20, 20, 20, 10])] * 10)[2] == 0.0
    assert late(*[interval([1.0, 1.0, 1.0, 4.0], samples=[10, 10, 10, 20])] * 10) == (3, "compute", 1.0)


def test_a_collective_that_takes_long_makes_no_rank_slow() -> None:
    """The own time of rank 1 is twice that of rank 0, and the others wait for it for a tenth of the time."""
    table = torch.tensor([Times(0.0, 0.1, 0.0, 0.9, 1), Times(0.0, 0.2, 0.0, 0.8, 1)], dtype=torch.float64)
    assert late(*[table] * 10)[2] == 0.0


def test_empty_intervals_have_no_slow_rank() -> None:
    assert late(*[torch.zeros(3, 5)] * 3)[2] == 0.0


class Ranks(World):
    """Rank 0 of several, which are made up by the test."""

    table: Tensor

    def gather(self, values: Tensor) -> list[Tensor]:
        if values.dtype == torch.uint8:
            return [torch.tensor(list(f"gpu{rank}\0\0".encode()), dtype=torch.uint8) for rank in range(self.size)]
        return list(self.table)


class Told:
    """An attempt of ranks with made-up times, and what it tells."""

    def __init__(self, attempt: Attempt, clock: pytest.MonkeyPatch, size: int = 2) -> None:
        self.now = 1000.0
        clock.setattr(time, "monotonic", lambda: self.now)
        self.world = Ranks(rank=0, local_rank=0, size=size, device=torch.device("cpu"))
        self.tracker = Tracker(RunDir(attempt.path.parent.parent), attempt, step=0, config_text="")
        self.stragglers = Stragglers(self.world, attempt, self.tracker)
        self.attempt, self.file = attempt, attempt.ranks
        self.step = 0

    def exchange(self, table: Tensor, seconds: float = 2.0) -> tuple[SlowRank, ...]:
        self.now += seconds
        self.step += 1
        object.__setattr__(self.world, "table", table)
        self.stragglers.exchange(Times(0, 0, 0, 0, 0), self.step)
        return RankTimes.require(self.file).slow


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(RunDir(tmp_path / "tiny" / "run").claim_attempt(), monkeypatch)


SLOW, EQUAL = interval([1.0, 2.0]), interval([1.0, 1.0])


def test_a_slow_rank_is_told_once_when_it_begins_and_once_when_it_ends(told: Told, capsys: pytest.CaptureFixture[str]
                                                                       ) -> None:
    for _ in range(20):
        assert told.exchange(EQUAL) == ()
    began = told.now
    while not (slow := told.exchange(SLOW)):
        assert told.now - began < WINDOW_SECONDS
    for _ in range(20):
        assert told.exchange(SLOW) == slow
    while told.exchange(EQUAL)[0].until is None:
        assert told.now - began < 4 * WINDOW_SECONDS
    for _ in range(20):
        told.exchange(EQUAL)
    assert capsys.readouterr().out.splitlines() == [
        "slow       rank 1 on gpu1 computes more slowly than the others, which wait for it 50% of the time",
        "slow       rank 1 on gpu1 is as fast as the others again"]


def test_a_new_run_takes_a_whole_window_until_it_names_a_rank(told: Told) -> None:
    while not told.exchange(SLOW):
        assert told.now < 1000 + WINDOW_SECONDS
    assert told.now == 1000 + WINDOW_SECONDS


def test_steps_of_twenty_seconds_take_a_minute(told: Told) -> None:
    named = [bool(told.exchange(SLOW, seconds=20.0)) for _ in range(LEAST_INTERVALS)]
    assert named == [False, False, True]
    assert told.now == 1060


def test_the_slow_rank_stays_the_same_while_others_are_as_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(RunDir(tmp_path / "four").claim_attempt(), monkeypatch, size=5)
    two = [interval([1.0, 2.0, 1.0, 2.1, 1.0]), interval([1.0, 2.1, 1.0, 2.0, 1.0])]
    for number in range(40):
        slow = told.exchange(two[number % 2])
    assert len(slow) == 1
    for _ in range(20):
        slow = told.exchange(interval([1.0, 1.0, 1.0, 2.0, 1.0]))
    assert [one.rank for one in slow if one.until is None] == [3]


def test_the_record_has_the_times_of_each_rank_in_the_last_window(told: Told) -> None:
    for _ in range(30):
        told.exchange(interval([1.0, 2.0], data=[0.5, 0.25]))
    record = RankTimes.require(told.file)
    intervals = WINDOW_SECONDS / 2 + 1
    assert record.compute == (intervals, 2 * intervals)
    assert record.data == (0.5 * intervals, 0.25 * intervals)
    assert record.wait == (0.75 * intervals, 0.0)
    assert record.step == 30


def test_the_curves_show_the_slowest_rank_and_how_long_the_others_wait(told: Told) -> None:
    for _ in range(11):
        told.exchange(SLOW)
    told.tracker.close()
    events = EventAccumulator(str(told.file.parent.parent.parent / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("speed/slowest_rank")] == [(10, 1.0)]
    assert [(one.step, one.value) for one in events.Scalars("speed/wait_for_slowest_rank")] == [(10, 0.5)]


WITHOUT_CORES = SLOW.clone()
WITHOUT_CORES[1, 1], WITHOUT_CORES[1, 2] = 1.0, 1.0


@pytest.mark.parametrize(("table", "slurm", "nodes"), [
    (SLOW, True, ["gpu1"]), (SLOW, False, []), (interval([1.0, 1.0], data=[0.0, 1.0]), True, []),
    (WITHOUT_CORES, True, [])],
    ids=["compute", "without SLURM", "data", "cores"])
def test_a_node_that_is_slow_for_ten_minutes_is_left_out_by_the_next_jobs(
        told: Told, monkeypatch: pytest.MonkeyPatch, table: Tensor, slurm: bool, nodes: list[str]) -> None:
    """On SLURM, as the launcher says: a shell in a job has SLURM's variables, too."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    AttemptStart(job="7.0.0", address="n1", port=1, on_slurm=slurm).write(told.attempt.launch)
    monkeypatch.setattr(time, "time", lambda: 10**9 + told.now)
    runs = told.file.parents[3].parent
    while told.now < 1000 + WINDOW_SECONDS + REMEMBER_SECONDS:
        assert remembered(runs) == []
        told.exchange(table)
    told.exchange(table)
    found = remembered(runs)
    assert [node.node for node in found] == nodes
    assert all(node.reason.startswith("rank 1 on gpu1 computes more slowly than the others") for node in found)


def test_the_time_of_an_evaluation_is_not_slow(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """No times are exchanged in it."""
    AttemptStart(job="7.0.0", address="n1", port=1, on_slurm=True).write(told.attempt.launch)
    monkeypatch.setattr(time, "time", lambda: 10**9 + told.now)
    while not told.exchange(SLOW):
        pass
    told.exchange(SLOW)
    told.now += 2 * REMEMBER_SECONDS
    told.exchange(SLOW)
    while told.exchange(EQUAL)[-1].until is None:
        pass
    told.now += REMEMBER_SECONDS
    while told.exchange(SLOW)[-1].until is not None:
        pass
    assert remembered(told.attempt.path.parents[3]) == []


class SlowOnRank1(Pictures):
    """Pictures that rank 1 takes long to read."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if os.environ.get("RANK") == "1":
            time.sleep(0.01)
        return super().__getitem__(index)


@contextmanager
def training(folder: Path, *changes: str) -> Iterator[RunDir]:
    """A run on two ranks that has taken its first step, and that is stopped in the end."""
    drumbeat(folder, str(write_config(folder)), "--procs", "2", "--detach", "model.width=64", "phases.head.epochs=1e6",
             "batch_size=64", "checkpoints.every_steps=1000000", *changes, warm=False)
    run = latest(folder)
    try:
        until(run.attempt(0).first_step.exists)
        yield run
    finally:
        run.attempt(0).request_stop("stopped")
        until(lambda: not processes_of(View.read(run)))


def slow_rank(run: RunDir) -> SlowRank:
    """The rank that a run names within a minute."""
    until(lambda: View.read(run).slow_rank, seconds=60)
    found = View.read(run).slow_rank
    assert found is not None
    return found


@pytest.mark.slow
def test_a_rank_under_sigstop_is_named_within_a_minute(tmp_path: Path) -> None:
    with training(tmp_path) as run:
        rank = next(process for process, name in names_of(processes_of(View.read(run))).items() if name == "rank1")
        named = threading.Event()

        def stop_half_the_time() -> None:
            while not named.wait(0.3):
                os.kill(rank, signal.SIGSTOP)
                time.sleep(0.3)
                os.kill(rank, signal.SIGCONT)

        stopping = threading.Thread(target=stop_half_the_time)
        stopping.start()
        try:
            found = slow_rank(run)
            text = status_text(View.read(run))
        finally:
            named.set()
            stopping.join()
        assert (found.rank, found.part, found.node) == (1, "compute", os.uname().nodename)
        assert f"slow rank       rank 1 on {found.node} computes more slowly than the others" in text
        assert f"slow       {found.message}\n" in run.attempt(0).log(0).read_text()


@pytest.mark.slow
def test_a_rank_with_slow_data_is_named_within_a_minute(tmp_path: Path) -> None:
    with training(tmp_path, "data.train={_target_: tests.trainers.test_stragglers.SlowOnRank1, n: 100}") as run:
        found = slow_rank(run)
        assert (found.rank, found.part) == (1, "data")
