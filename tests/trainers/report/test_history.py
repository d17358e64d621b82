"""The history of a run in its report: attempts, errors, logs and checkpoints."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress, Span
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, RankError, Saved, Verdict
from drumbeat.configs.run.view import View
from drumbeat.trainers.report.history import LOG_LINES, attempts, checkpoints, duration, errors_and_log, moment
from tests.runs import write_plan, write_state


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "tiny" / "run")
    write_plan(run)
    return run


def rows(part: str) -> list[list[str]]:
    """The texts of a table's cells, by row, without the headings."""
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in part.split("<tr")]
    return [[unescape(text) for text in row] for row in found if row]


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (119.4, "119 s"), (120, "2 minutes"), (7199, "120 minutes"), (7200, "2 hours"), (172799, "48 hours"),
    (172800, "2 days"), (10 * 86400, "10 days"),
])
def test_a_duration_is_in_the_largest_unit_that_fits_twice(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def error(rank: int, *, at: float) -> RankError:
    return RankError(rank=rank, node="here", type="ValueError", message="x" * 400, step=1200, time=at,
                     traceback=f"Traceback of {rank}\n")


ENDS: dict[str, Callable[[Attempt], object]] = {
    "12 nodes left; restart": lambda attempt: Verdict(outcome="failed", next="restart", message="12 nodes left",
                                                      step=1).write(attempt.verdict),
    "out of memory": lambda attempt: Verdict(outcome="failed", next="give up", message="out of memory",
                                             step=1).write(attempt.verdict),
    "stopped at step 1,200": lambda attempt: Saved(state="stopped", step=1200).write(attempt.saved),
    f"failed at step 1,200: ValueError: {'x' * 300}": lambda attempt: error(1, at=1.0).write(attempt.error(1)),
    "unknown": lambda attempt: None,
}


@pytest.mark.parametrize("text", ENDS)
def test_how_an_attempt_ended(run: RunDir, text: str) -> None:
    """By its verdict; or, if its launcher was killed, by what its ranks have written."""
    ENDS[text](run.claim_attempt())
    assert rows(attempts(View.read(run), Progress()))[0][-1] == text


def test_attempts_have_the_steps_that_were_saved(run: RunDir) -> None:
    """Two spans of attempt 0; attempt 1 has saved none yet, and has the state of the run."""
    assert attempts(View.read(run), Progress()) == ""
    start = AttemptStart(job="1", address="here", port=1, time=1.0e9)
    start.write(run.claim_attempt().launch)
    Saved(state="stopped", step=1300).write(run.attempt(0).saved)
    run.claim_attempt()
    write_state(run, "running")
    ledger = tuple(Span(phase=0, first_step=first, steps=steps, samples=1, digest="0", attempt=0, world_size=4)
                   for first, steps in ((0, 1000), (1000, 300)))
    assert rows(attempts(View.read(run), Progress(ledger=ledger))) == [
        ["0", moment(1.0e9), "4", "1,300", "stopped at step 1,300"], ["1", "", "", "0", "running"]]
    assert moment(1.0e9) == time.strftime("%Y-%m-%d %H:%M", time.localtime(1.0e9))


def test_the_traceback_is_that_of_the_rank_in_the_verdict(run: RunDir) -> None:
    """Or of the first rank that failed. Its log is shown, or that of rank 0 if it has none."""
    assert list(errors_and_log(View.read(run))) == []
    attempt = run.claim_attempt()
    for rank, at in ((0, 3.0), (1, 1.0), (2, 2.0)):
        error(rank, at=at).write(attempt.error(rank))
    attempt.log(0).write_text("log of 0\n")
    write_state(run, "failed")
    traceback, log = errors_and_log(View.read(run))
    assert "<summary>traceback of rank 1</summary>" in traceback
    assert "Traceback of 1" in traceback
    assert "<details open" in traceback
    assert "log of 0" in log
    attempt.log(2).write_text("log of 2\n")
    Verdict(outcome="failed", next="give up", message="x", step=1, rank=2).write(attempt.verdict)
    traceback, log = errors_and_log(View.read(run))
    assert "Traceback of 2" in traceback
    assert "log of 2" in log


def test_of_a_long_log_the_last_lines_are_shown(run: RunDir) -> None:
    log = run.claim_attempt().log(0)
    log.write_text("".join(f"line {number}\n" for number in range(5000)))
    (part,) = errors_and_log(View.read(run))
    assert re.findall(r"line (\d+)", part) == [str(number) for number in range(5000 - LOG_LINES, 5000)]
    assert f"<summary>{log.parent.name}/{log.name}, the last lines</summary>" in part
    log.write_text("line\n")
    assert f"<summary>{log.parent.name}/{log.name}</summary>" in next(errors_and_log(View.read(run)))


def test_checkpoints_are_listed_newest_first(run: RunDir) -> None:
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 5, "model": {"_target_": "x"},
        "phases": {"head": {"epochs": 1, "optimizer": {"_target_": "x"}}}})])
    assert checkpoints(run, config) == ""
    for step in (3, 1200):
        path = run.checkpoints / f"step-{step:08d}"
        path.mkdir(parents=True)
        CheckpointState(progress=Progress(step=step)).write(path / "state.json")
        (path / "model.safetensors").write_bytes(bytes(2_500_000))
    (run.checkpoints / "step-00000003" / "manifest.json").write_text("{}")
    for name in ("best", "last"):
        (run.checkpoints / name).symlink_to("step-00000003")
    (run.checkpoints / "quarantined-step-00000002").mkdir()
    found = rows(checkpoints(run, config))
    assert [[*row[:3], row[4]] for row in found] == [["1,200", "head", "2.5 MB", "incomplete"],
                                                      ["3", "head", "2.5 MB", "last, best"]]
