"""Commands that change a run at the same time, and commands that are killed while they start one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.files import write_json
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import changing
from drumbeat.configs.run.records import Change, Job, Status
from drumbeat.configs.run.view import View
from drumbeat.launch.commands.main import main
from drumbeat.launch.start.preparing import Termination, preparing, remove_abandoned
from tests.launch import fake_slurm
from tests.launch.start.submitted import SUBMIT, only_run
from tests.processes import until, wait_for_file
from tests.runs import write_job, write_state

SLOW = f"echo > asked; while [ ! -e go ]; do sleep 0.02; done; {'{answer}'}"
ACCEPTS = SLOW.format(answer="echo Submitted batch job 4711")
REFUSES = SLOW.format(answer="echo 'sbatch: error: invalid account' >&2; exit 1")
QUEUE = "[ -e cancelled ] || [ ! -e go ] || echo \"4711|PENDING|None|N/A|gpu|$(ls runs/small | head -n 1)|x\""
"""squeue, which lists the job until it is cancelled."""

Type = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def typed(cluster: Path) -> Iterator[Type]:
    """Starts `drumbeat WORDS` beside the test. What is left of it is killed after the test."""
    with ExitStack() as stack:
        def start(*words: str) -> subprocess.Popen[str]:
            process = stack.enter_context(subprocess.Popen(
                [sys.executable, "-m", "drumbeat", *words], cwd=cluster, text=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
            stack.callback(process.kill)
            return process

        yield start


def submitting(cluster: Path, typed: Type, *words: str, sbatch: str = ACCEPTS) -> subprocess.Popen[str]:
    """A command that is starting a run and waits for sbatch."""
    fake_slurm.programs(cluster, sbatch=sbatch, squeue=QUEUE, scancel="echo $@ > cancelled")
    process = typed(*words, "--no-preflight")
    wait_for_file(cluster / "asked", process)
    return process


def go(cluster: Path) -> None:
    (cluster / "go").touch()


def text_of(process: subprocess.Popen[str]) -> str:
    return " ".join(process.communicate(timeout=60)[0].split())


@pytest.fixture
def stopped(cluster: Path) -> RunDir:
    """A run that can be resumed."""
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    write_state(run, "stopped", "stopped at step 7")
    return run


def test_cancelling_a_run_that_is_being_started(cluster: Path, typed: Type) -> None:
    """It waits for sbatch, and then cancels the job: without it, it would say "cancelled", and the job would run."""
    start = submitting(cluster, typed, *SUBMIT)
    cancel = typed("cancel", "small")
    assert cancel.stdout and cancel.stdout.readline().startswith("waiting    for another command on this run: ")
    go(cluster)
    assert "SLURM job 4711" in text_of(start)
    assert "SLURM job 4711 cancelled" in text_of(cancel)
    assert (cluster / "cancelled").read_text() == "4711\n"
    assert Status.require(only_run(cluster).status).state == "cancelled"


def test_cancelling_a_run_that_is_being_checked(cluster: Path, typed: Type) -> None:
    """Its folder has no plan yet, and `ls` does not show it. This one has no model, so it is not started at all."""
    asks = "[ -e checked ] || { echo > checking; while [ ! -e checked ]; do sleep 0.02; done; }; hostname"
    fake_slurm.programs(cluster, sinfo=asks)
    start = typed(*SUBMIT)
    wait_for_file(cluster / "checking", start)
    cancel = typed("cancel", "small")
    assert cancel.stdout and cancel.stdout.readline().startswith("waiting    for another command on this run: ")
    (cluster / "checked").touch()
    assert "nets" in text_of(start)
    assert " was not started where " in text_of(cancel)
    assert (start.returncode, cancel.returncode) == (2, 2)


@pytest.mark.parametrize("sbatch", [ACCEPTS, REFUSES], ids=["accepted", "refused"])
def test_two_resumes_at_once(cluster: Path, typed: Type, stopped: RunDir, sbatch: str) -> None:
    """The second one is refused, and takes nothing away from the first."""
    before = {path: path.read_text() for path in (stopped.plan, stopped.status, stopped.job, stopped.config)}
    first = submitting(cluster, typed, "resume", "small", "--new-code", sbatch=sbatch)
    second = typed("resume", "small", "--new-code", "--no-preflight")
    assert f"error: run {stopped.id} is being changed by another command" in text_of(second)
    assert second.returncode == 2
    assert (stopped.path / "code-2").is_dir()
    go(cluster)
    text_of(first)
    if sbatch == ACCEPTS:
        assert (first.returncode, Job.require(stopped.job).id) == (0, "4711")
        assert (stopped.path / "code-2" / "snapshot.json").exists()
    else:
        assert first.returncode == 2
        assert {path: path.read_text() for path in before} == before
        assert not (stopped.path / "code-2").exists()


def test_a_run_that_was_resumed_since_it_was_read(stopped: RunDir) -> None:
    before = View.read(stopped)
    write_job(stopped, "slurm", id="4712")
    with (pytest.raises(RunError, match="has been started by another command meanwhile"),
          preparing(stopped, "resume", previous=before, code=None)):
        pass
    assert Job.require(stopped.job).id == "4712"


def test_a_run_of_an_older_version_can_be_resumed(stopped: RunDir) -> None:
    """Its job.json has neither a time nor the boot and PID namespace, and it has no lock.json."""
    write_json(stopped.job, {"backend": "slurm", "id": "4711", "host": "login"})
    stopped.lock.unlink()
    with preparing(stopped, "resume", previous=View.read(stopped), code=None):
        assert stopped.lock.exists()


def test_a_link_that_cannot_be_made_is_a_note(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where somebody has copied `latest` as a folder: the job has been submitted, and its run stays."""
    (cluster / "runs" / "small" / "latest" / "x").mkdir(parents=True)
    assert main(SUBMIT) == 0
    (run,) = cluster.glob("runs/small/2*")
    assert Job.require(RunDir(run).job).id == "4711"
    assert "note       runs/small/latest does not lead to this run: Is a directory\n" in capsys.readouterr().out
    assert not [*cluster.glob("runs/small/.latest*")]


def test_a_job_that_cannot_be_recorded_is_cancelled(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = "[ -e cancelled ] || [ ! -e submitted ] || echo \"4711|PENDING|None|N/A|gpu|$(ls runs/small)|x\""
    fake_slurm.programs(cluster, squeue=queue, scancel="echo $@ > cancelled", sbatch="echo > submitted; echo 4711")
    write = Job.write

    def full(job: Job, path: Path, **options: Any) -> None:
        if job.id:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(job, path, **options)

    monkeypatch.setattr(Job, "write", full)
    assert main([*SUBMIT, "--no-preflight"]) == 2
    assert (cluster / "cancelled").exists()
    assert not (cluster / "runs").exists()


def test_under_nohup_a_closed_terminal_ends_nothing(stopped: RunDir) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with preparing(stopped, "resume", previous=View.read(stopped), code=None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_new_run_keeps_the_link_to_the_newest_if_it_cannot_be_started(cluster: Path, stopped: RunDir) -> None:
    fake_slurm.programs(cluster, sbatch="exit 1")
    assert main(SUBMIT) == 2
    assert (cluster / "runs" / "small" / "latest").readlink() == Path(stopped.id)


def test_sigterm_while_preparing_leaves_nothing(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def preflight(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", preflight)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        main(SUBMIT)
    assert not (cluster / "runs").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_waits_for_sbatch(cluster: Path, typed: Type) -> None:
    """A job that has been submitted is recorded before the command ends."""
    start = submitting(cluster, typed, *SUBMIT)
    start.terminate()
    go(cluster)
    text_of(start)
    assert start.returncode == -signal.SIGTERM
    assert Job.require(only_run(cluster).job).id == "4711"


def test_the_handler_of_sigterm() -> None:
    termination = Termination(deferred=True)
    termination(signal.SIGHUP, None)
    assert termination.received is signal.SIGHUP
    termination.deferred = False
    with pytest.raises(SystemExit):
        termination(signal.SIGTERM, None)


def test_what_a_killed_command_leaves_is_removed_by_the_next(cluster: Path, stopped: RunDir) -> None:
    """But not a run that is being started, nor one on another machine, nor anything else."""
    folder = stopped.path.parent
    left, starting, elsewhere, other = (RunDir(folder / f"20260101-10000{number}-aaaaa") for number in range(4))
    for run in (left, starting, elsewhere, other):
        (run.path / "code").mkdir(parents=True)
    with changing(left, "run"), changing(starting, "run"):
        pass
    Change(command="run", space="another boot").write(elsewhere.lock)
    with changing(starting, "run"):
        remove_abandoned(folder)
    assert sorted(path.name for path in folder.iterdir() if not path.is_symlink()) == sorted(
        run.id for run in (stopped, starting, elsewhere, other))


def test_a_start_that_is_killed_is_forgotten(cluster: Path, typed: Type) -> None:
    fake_slurm.programs(cluster, sinfo="echo > asked; sleep 60")  # SLURM is asked by the preflight check
    start = typed(*SUBMIT)
    until(lambda: list(cluster.glob("runs/small/*/code/snapshot.json")) or start.poll() is not None)
    start.kill()
    start.wait()
    (left,) = cluster.glob("runs/small/2*")
    fake_slurm.programs(cluster, sinfo="hostname")
    assert main(SUBMIT) == 0
    assert not left.exists()
