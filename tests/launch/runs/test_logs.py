"""The logs and errors of the ranks of a run."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import RankError, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs import logs
from drumbeat.launch.runs.find import find_run, find_view
from drumbeat.launch.runs.logs import CHUNK, Tail, log_lines
from tests.launch.fake_slurm import programs
from tests.launch.made import SECOND
from tests.runs import write_job, write_state


def test_logs_of_an_attempt(runs: Path) -> None:
    run = find_run("tiny", runs)
    for text in ("old\n", "first\nsecond\nunfinished"):
        run.claim_attempt().log(0).write_text(text)
    assert list(log_lines(View.read(run), rank=0, follow=False)) == ["first", "second", "unfinished"]
    assert list(log_lines(View.read(run), rank=0, follow=False, attempt=0)) == ["old"]
    with pytest.raises(RunError, match=r"rank 3 has no log(.|\n)*Ranks with one: 0"):
        list(log_lines(View.read(run), rank=3, follow=False))
    with pytest.raises(RunError, match=r"there is no attempt 2(.|\n)*numbered from 0 to 1"):
        list(log_lines(View.read(run), rank=0, follow=False, attempt=2))


def test_logs_of_everybody(runs: Path) -> None:
    attempt = find_run("tiny", runs).claim_attempt()
    for rank in (0, 1, 10):
        attempt.log(rank).write_text(f"of {rank}\n")
    attempt.node_log(0).write_text("torchrun\n")
    assert list(log_lines(find_view("tiny", runs), rank=None, follow=False)) == [
        " rank 0 | of 0", " rank 1 | of 1", "rank 10 | of 10", " node 0 | torchrun"]


def test_an_empty_log_says_so(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = find_run("tiny", runs)
    run.claim_attempt().log(0).touch()
    assert main(["logs", "tiny"]) == 0
    assert capsys.readouterr() == ("", "note: rank 0 has printed nothing in attempt 0: "
                                       f"runs/tiny/{SECOND}/attempts/000/rank0.log is empty\n")
    assert main(["logs", "tiny", "--all"]) == 0
    assert capsys.readouterr() == ("", "note: no rank has printed anything in attempt 0\n")


def test_errors_the_earliest_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the newest attempt that has any: the one after it may have begun already."""
    run = find_run("tiny", runs)
    attempt = run.claim_attempt()
    for rank, moment in ((0, 2.0), (1, 1.0)):
        RankError(rank=rank, node="n1", type="ValueError", message="m", step=7, time=moment,
                  traceback=f"Traceback\nValueError: {rank}\n").write(attempt.error(rank))
    Verdict(outcome="failed", next="restart", message="rank 1 on n1 failed", step=-1).write(attempt.verdict)
    run.claim_attempt()
    assert main(["logs", "tiny", "--errors"]) == 0
    assert capsys.readouterr().out == """\
--- rank 1 on n1, attempt 0, step 7
Traceback
ValueError: 1

--- rank 0 on n1, attempt 0, step 7
Traceback
ValueError: 0

--- attempt 0: rank 1 on n1 failed
"""


def test_a_healthy_run_has_no_errors(runs: Path, debug_here: Callable[[RunDir], None],
                                     capsys: pytest.CaptureFixture[str]) -> None:
    run = find_run("tiny", runs)
    debug_here(run)
    write_state(run, "running")
    assert main(["logs", "tiny", "--errors"]) == 0
    assert capsys.readouterr() == ("no rank has reported an error yet; the run is running\n", "")
    run.claim_attempt()
    assert main(["logs", "tiny", "--errors", "--attempt", "0"]) == 0
    assert capsys.readouterr() == ("no rank has reported an error in attempt 0; the run is running\n", "")
    write_state(run, "failed", "the nodes did not meet")
    assert main(["logs", "tiny", "--errors"]) == 0
    output = capsys.readouterr().out
    assert "in any attempt; the run is failed\nthe nodes did not meet\nThe log of torchrun: " in output


def test_all_attempts_one_after_the_other(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = find_run("tiny", runs)
    for text in ("first\n", "second\n"):
        run.claim_attempt().log(0).write_text(text)
    assert main(["logs", "tiny", "--attempt", "all"]) == 0
    assert capsys.readouterr() == ("--- attempt 0\nfirst\n--- attempt 1\nsecond\n", "")
    assert main(["logs", "tiny", "--all", "--attempt", "all"]) == 0
    assert capsys.readouterr().out == "--- attempt 0\n rank 0 | first\n--- attempt 1\n rank 0 | second\n"
    assert main(["logs", "tiny"]) == 0
    assert capsys.readouterr() == (
        "second\n", "note: this is attempt 1; earlier ones: --attempt K or --attempt all\n")


def test_following_continues_with_the_next_attempt_until_the_run_ends(
        runs: Path, debug_here: Callable[[RunDir], None]) -> None:
    run = find_run("tiny", runs)
    debug_here(run)
    write_state(run, "running")
    run.claim_attempt().log(0).write_text("a\nunfin")
    lines = log_lines(View.read(run), rank=0, follow=True)
    assert next(lines) == "a"
    with open(run.attempt(0).log(0), "a") as log:
        log.write("ished\n")
    assert next(lines) == "unfinished"
    run.claim_attempt().log(0).write_text("b\nlast words")
    assert next(lines) == "b"
    write_state(run, "finished")
    assert list(lines) == ["last words"]


@pytest.fixture
def dead_job(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose job has ended before its launcher started."""
    run = find_run("tiny", runs)
    write_state(run, "pending")
    write_job(run, "slurm", id="12")
    run.submitit.mkdir()
    (run.submitit / "12_0_log.err").write_text("no such container\n")
    monkeypatch.setenv("PATH", programs(tmp_path, squeue="true", scontrol="echo JobState=FAILED ExitCode=3:0"))
    return run


@pytest.mark.parametrize("options", [(), ("-f",), ("--all",)])
def test_the_log_of_a_job_that_ended_before_its_launcher_started(dead_job: RunDir, options: tuple[str, ...],
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "tiny", *options]) == 0
    assert capsys.readouterr().out == (
        f"--- runs/tiny/{dead_job.id}/submitit/12_0_log.err\nno such container\n--- failed: SLURM job 12 ended before "
        "its launcher started: its script ended with code 3 (FAILED); its log: no such container; there is no "
        "checkpoint\n")


def test_following_ends_with_a_job_that_ends_while_it_waits(dead_job: RunDir, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.0)
    waits = "cd $(dirname $0); test -e over || echo PENDING; touch over"
    monkeypatch.setenv("PATH", programs(tmp_path, squeue=waits, scontrol="echo JobState=TIMEOUT ExitCode=0:0"))
    assert list(log_lines(View.read(dead_job), rank=0, follow=True))[-1].startswith(
        "--- failed: SLURM job 12 ended before its launcher started: its time limit was reached (TIMEOUT); give it ")


def test_a_tail_survives_bytes_that_are_no_text(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "log")
    assert list(tail.lines()) == []
    (tmp_path / "log").write_bytes(b"\xff\xfe\nrest")
    assert list(tail.lines()) == ["\ufffd\ufffd"]
    assert list(tail.lines(unfinished=True)) == ["rest"]
    assert list(tail.lines(unfinished=True)) == []


def test_a_large_log_takes_little_memory(tmp_path: Path) -> None:
    """64 MB in lines, and 16 MB without a line break."""
    with open(tmp_path / "log", "wb") as log:
        for _ in range(64):
            log.write(b"a line of the log, sixty-four characters long with its line end\n" * 2**14)
        log.write(b"x" * 2**24)
    tail = Tail(tmp_path / "log")
    tracemalloc.start()
    try:
        lines = sum(1 for _ in tail.lines(unfinished=True))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lines == 64 * 2**14 + 2**24 // CHUNK
    assert most < 16 * CHUNK


def test_a_log_that_is_a_pipe_is_not_waited_for(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attempt = find_run("tiny", runs).claim_attempt()
    os.mkfifo(attempt.log(0))
    attempt.path.joinpath("rank\u00b2.log").write_text("a copy")
    assert main(["logs", "tiny", "--all"]) == 2
    assert "it is not a regular file" in capsys.readouterr().err


def test_colours_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\x1b[1;32mgreen\x1b[0m\n")
    assert list(Tail(tmp_path / "log").lines()) == ["green"]
