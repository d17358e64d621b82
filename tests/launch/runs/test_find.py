"""Finding a run by a name or a prefix; status, logs, stop and cancel from its folder alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import RankError, State, Status, StopRequest, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import running_evidence
from drumbeat.launch.backends.processes import LAUNCHERS, processes_of
from drumbeat.launch.backends.typed import handle, program
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.find import find_run, find_view
from drumbeat.launch.runs.logs import Tail, log_lines
from drumbeat.launch.runs.status import status_text
from drumbeat.launch.runs.stop import cancel, request_stop
from tests.runs import write_heartbeat, write_job, write_plan, write_state

FIRST, SECOND, OTHER = "20260101-100000-aaaaa", "20260102-100000-bbbbb", "20260103-100000-ccccc"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/tiny with two runs, runs/other with one."""
    monkeypatch.chdir(tmp_path)
    for name, number in (("tiny", FIRST), ("tiny", SECOND), ("other", OTHER)):
        write_plan(RunDir(tmp_path / "runs" / name / number))
    (tmp_path / "runs" / "tiny" / "latest").symlink_to(SECOND)
    return tmp_path / "runs"


@pytest.mark.parametrize(("text", "found"), [
    ("tiny", SECOND), ("other", OTHER), (FIRST, FIRST), ("20260101", FIRST), ("aaaaa", FIRST),
    (f"runs/tiny/{FIRST}", FIRST), ("runs/tiny/latest", SECOND), ("runs/tiny", SECOND), (f"tiny/{FIRST}", FIRST),
    ("tiny/", SECOND), ("tiny/latest", SECOND), ("tiny/aaaaa", FIRST),
])
def test_finding_a_run(runs: Path, text: str, found: str) -> None:
    run = find_run(text, Path("runs"))
    assert (run.id, run.path.is_absolute(), run.path.is_symlink()) == (found, True, False)


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_name_means_no_run(runs: Path, text: str) -> None:
    """As in `drumbeat stop "$RUN"` where RUN is not set."""
    with pytest.raises(RunError, match=r"no run given"):
        find_run(text, runs)


def test_the_command_for_a_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = find_run("tiny", runs)
    assert handle(run) == SECOND
    monkeypatch.chdir(runs)
    assert handle(run) == f"tiny/{SECOND}"
    assert find_run(handle(run), Path("runs")) == run
    monkeypatch.chdir("/")
    assert find_run(handle(run), Path("runs")) == run


def test_the_command_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    beside = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(beside))
    assert program("drumbeat") == "drumbeat"
    monkeypatch.setenv("PATH", "/nowhere")
    assert program("drumbeat").endswith("/drumbeat")
    assert program("unheard-of") == "unheard-of"


def test_processes_of_a_run_are_found_by_their_command_lines(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    write_plan(run)
    view = View.read(run)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (subprocess.Popen([*sleep, "submitit.core._submit", str(run.submitit)]) as launcher,
          subprocess.Popen([*sleep, "drumbeat.trainers.worker", str(run.path), "0"]) as rank,
          subprocess.Popen([*sleep, "tensorboard", "--logdir", str(run.path)]) as unrelated,
          subprocess.Popen([*sleep, "drumbeat.trainers.worker", f"{run.path}2", "0"]) as other):
        assert sorted(processes_of(view)) == sorted([launcher.pid, rank.pid])
        assert processes_of(view, LAUNCHERS) == [launcher.pid]
        assert running_evidence(view) in (f"process {launcher.pid}", f"process {rank.pid}")
        for process in (launcher, rank, unrelated, other):
            process.kill()
    assert running_evidence(view) == ""


def evidence(run: RunDir) -> str:
    """The evidence that the run is running now."""
    return running_evidence(View.read(run))


def squeue(folder: Path, answer: str) -> str:
    (folder / "squeue").write_text(f"#!/bin/sh\necho $@ > {folder}/asked\n{answer}\n")
    (folder / "squeue").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_slurm_is_asked_only_about_jobs_that_may_run(runs: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    run = find_run("tiny", runs)
    write_job(run, "slurm", id="4711")
    monkeypatch.setenv("PATH", squeue(tmp_path, "echo RUNNING"))
    write_state(run, "stopped")
    assert evidence(run) == ""
    assert not (tmp_path / "asked").exists()
    write_state(run, "running")
    assert evidence(run) == "SLURM job 4711 is running"
    assert (tmp_path / "asked").read_text() == "--noheader --jobs 4711 --format %T\n"
    monkeypatch.setenv("PATH", squeue(tmp_path, "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"))
    assert evidence(run) == ""
    monkeypatch.setenv("PATH", squeue(tmp_path, "echo 'Unable to contact slurm controller' >&2; exit 1"))
    assert evidence(run) == "SLURM job 4711, state unknown: Unable to contact slurm controller"
    monkeypatch.setenv("PATH", "/nowhere")
    assert evidence(run) == "SLURM job 4711, state unknown: there is no squeue on PATH"


def test_a_run_on_another_machine_is_running_while_its_heartbeat_is_recent(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_job(run, id="1", host="elsewhere")
    write_state(run, "running")
    assert evidence(run).startswith("on elsewhere, last heartbeat ")
    write_state(run, "running", ago=121)
    assert evidence(run) == ""
    write_heartbeat(run, ago=60)
    assert evidence(run).startswith("on elsewhere, last heartbeat ")


def test_a_debug_run_is_running_while_its_process_exists(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, "debug", host=socket.gethostname(), pid=os.getpid())
    assert evidence(run) == f"process {os.getpid()}, in --debug"
    with subprocess.Popen(["true"]) as over:
        pass
    write_job(run, "debug", host=socket.gethostname(), pid=over.pid)
    assert evidence(run) == ""


def test_status_in_full(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_heartbeat(run, phase="head", step=1234, steps=5000, loss=0.12345, validation={"loss": 0.5, "accuracy": 0.75},
                    samples_per_second=99.94, eta_seconds=3725.0)
    write_job(run, id="17", host="elsewhere")
    assert status_text(View.read(run)) == f"""\
run             {SECOND}
state           running
step            1,234 of 5,000, phase head
train loss      0.1235
validation      loss 0.5000, accuracy 0.7500
speed           99.9 samples/s, 1:02:05 left
last heartbeat  0 s ago
job             17 (process on this machine)
folder          {run.path}"""


def test_status_of_a_run_that_ended_or_never_began(runs: Path) -> None:
    run = find_run("tiny", runs)
    assert status_text(View.read(run)).splitlines() == [
        f"run             {SECOND}", "state           unknown", f"folder          {run.path}"]
    write_state(run, "failed", "rank 1 on n1 was killed")
    assert "verdict         rank 1 on n1 was killed\n" in status_text(View.read(run))
    assert "heartbeat" not in status_text(View.read(run))


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


def test_logs_of_all_ranks(runs: Path) -> None:
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
    """Errors of the newest attempt that has any: the next attempt may have started already."""
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


def test_a_healthy_run_has_no_errors(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = find_run("tiny", runs)
    write_job(run, "debug", host=socket.gethostname(), pid=os.getpid())
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


def test_following_continues_with_the_next_attempt_until_the_run_ends(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    run.claim_attempt().log(0).write_text("a\nunfin")
    lines = log_lines(View.read(run), rank=0, follow=True)
    assert next(lines) == "a"
    with open(run.attempt(0).log(0), "a") as log:
        log.write("ished\n")
    assert next(lines) == "unfinished"
    run.claim_attempt().log(0).write_text("b\nlast line")
    assert next(lines) == "b"
    write_state(run, "finished")
    assert list(lines) == ["last line"]


def test_a_tail_survives_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "log")
    assert tail.lines() == []
    (tmp_path / "log").write_bytes(b"\xff\xfe\nrest")
    assert tail.lines() == ["\ufffd\ufffd"]
    assert tail.lines(unfinished=True) == ["rest"]
    assert tail.lines(unfinished=True) == []


def test_stopping(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    attempt = run.claim_attempt()
    with pytest.raises(RunError, match="no process of this run is running"):
        request_stop(View.read(run))
    write_job(run, "debug", host=socket.gethostname(), pid=os.getpid())
    assert request_stop(View.read(run)).startswith(
        f"{SECOND} saves a checkpoint after its current step and exits. To resume it:\n")
    assert request_stop(View.read(run)).endswith(f"drumbeat resume {SECOND}")
    assert StopRequest.require(attempt.stop).reason == "stopped"
    write_state(run, "stopped")
    assert request_stop(View.read(run)) == f"{SECOND} is stopped already"


@pytest.mark.parametrize("state", ["pending", "preempted"])
def test_a_run_in_the_queue_cannot_be_stopped(runs: Path, state: State) -> None:
    run = find_run("tiny", runs)
    run.claim_attempt()
    write_job(run, "slurm", id="4711")
    write_state(run, state)
    with pytest.raises(RunError, match=rf"drumbeat cancel\s+{SECOND}"):
        request_stop(View.read(run))
    assert not run.attempt(0).stop.exists()


def test_cancelling_a_run_on_this_machine(runs: Path) -> None:
    """All of its processes end, whatever signals they ignore, and nothing else does."""
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, id="1", host=socket.gethostname())
    ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    with (subprocess.Popen([sys.executable, "-c", ignores, "drumbeat.trainers.worker", str(run.path), "0"]) as rank,
          subprocess.Popen([sys.executable, "-c", ignores, "tensorboard", str(run.path)]) as unrelated):
        assert cancel(View.read(run)).startswith(f"{SECOND} ended; there is no checkpoint. To resume it:\n")
        assert (rank.wait(), unrelated.poll()) == (-signal.SIGKILL, None)
        unrelated.kill()
    assert Status.require(run.status).state == "cancelled"
    assert cancel(View.read(run)) == f"{SECOND} is cancelled already"


def test_cancelling_a_run_in_debug_ends_no_other_process(runs: Path) -> None:
    """Another process may have the process id of the run by now."""
    run = find_run("tiny", runs)
    write_state(run, "running")
    for options, ended in ((["--debug"], True), ([], False)):
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *options]) as process:
            write_job(run, "debug", host=socket.gethostname(), pid=process.pid)
            write_state(run, "running")
            cancel(View.read(run))
            if not ended:
                assert process.poll() is None
                process.kill()
            assert process.wait(10) == -signal.SIGKILL


def test_cancelling_a_run_on_another_machine(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, id="1", host="elsewhere")
    with pytest.raises(RunError, match="the run is on another machine, elsewhere"):
        cancel(View.read(run))


def test_the_commands_print(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = find_run("tiny", runs)
    write_state(run, "stopped")
    run.claim_attempt().log(0).write_text("line\n")
    assert [main(["status", "tiny"]), main(["logs", "tiny"]), main(["stop", "tiny"])] == [0, 0, 0]
    out = capsys.readouterr().out
    assert out.endswith(f"folder          {run.path}\nline\n{SECOND} is stopped already\n")
