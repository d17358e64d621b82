"""What a run says about a slow rank, and when it is one at present."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.rank_records import Part, RankTimes, SlowRank
from drumbeat.configs.run.view import View
from tests.runs import write_plan, write_state

SLOW = SlowRank(rank=3, node="gpu07", part="compute", share=0.41, step=120, time=1000.0)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "tiny" / "20260101-100000-aaaaa")
    write_plan(run)
    run.claim_attempt()
    write_state(run, "running")
    return run


def write_slow(run: RunDir, *slow: SlowRank) -> None:
    attempt = run.newest_attempt()
    assert attempt
    RankTimes(step=200, data=(0.1,), compute=(1.0,), cores=(0.0,), wait=(0.5,), slow=slow).write(attempt.ranks)


@pytest.mark.parametrize(("part", "words"), [
    ("compute", "computes more slowly than the others"),
    ("data", "waits longer for its data than the others"),
    ("cores", "shares its cores with other programs, and is slower than the others"),
])
def test_one_line_names_the_rank_its_node_and_the_part(part: Part, words: str) -> None:
    assert replace(SLOW, part=part).message == f"rank 3 on gpu07 {words}, which wait for it 41% of the time"


def test_the_last_slow_rank_is_slow_until_it_is_not(run: RunDir) -> None:
    assert View.read(run).slow_rank is None
    write_slow(run)
    assert View.read(run).slow_rank is None
    write_slow(run, replace(SLOW, rank=1, until=900.0), SLOW)
    assert View.read(run).slow_rank == SLOW
    write_slow(run, replace(SLOW, until=1100.0))
    assert View.read(run).slow_rank is None


def test_no_rank_is_slow_after_the_attempt(run: RunDir) -> None:
    write_slow(run, SLOW)
    write_state(run, "stopped")
    assert View.read(run).slow_rank is None
    run.claim_attempt()
    write_state(run, "running")
    assert View.read(run).slow_rank is None
