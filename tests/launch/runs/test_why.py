"""Why a run is not running, and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.status import status_text, with_final_state
from drumbeat.launch.runs.why import why
from tests.launch.fake_slurm import programs
from tests.launch.made import IDS
from tests.runs import write_heartbeat, write_job, write_state


def why_of(run: RunDir) -> str:
    return why(with_final_state(View.read(run)))


def queue(folder: Path, script: str) -> str:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "squeue").chmod(0o755)
    return f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"


def test_why_a_job_waits(listed: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own job, and the one that is to follow it, found by the run's id in their comments; not those of others."""
    monkeypatch.setenv("PATH", queue(tmp_path, f"""\
echo '4711|PENDING|Resources|2026-01-05T06:07:08|gpu|{IDS[3]}'
echo '4712|PENDING|PartitionTimeLimit|N/A|gpu|{IDS[3]}'
echo '99|PENDING|Priority|N/A|gpu|other'"""))
    monkeypatch.setattr("drumbeat.launch.backends.typed.program", lambda name: name)
    assert why_of(listed[3]) == f"""\
run         {IDS[3]}
state       pending
job         4711, pending in partition gpu
why         Resources: it is next, and waits for free nodes
start       expected at 2026-01-05 06:07:08
fix         Wait; or request less: fewer --nodes or --gpus, a shorter
            time_minutes.
job         4712, pending in partition gpu
why         PartitionTimeLimit: it requests more time than its partition allows
            for a job
fix         drumbeat cancel {IDS[3]}, then lower time_minutes in
            the profile. A run that needs longer is requeued by itself. sinfo -o
            '%P %l' shows the limits."""


def test_why_if_slurm_says_nothing(listed: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", queue(tmp_path, "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; "
                                               "exit 1"))
    assert "why         SLURM does not answer: slurm_load_jobs error: Unable to contact" in why_of(listed[3])


def test_a_job_that_ended_before_its_launcher_started(listed: list[RunDir], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is recorded, because SLURM soon forgets it."""
    run = listed[3]
    gone = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    monkeypatch.setenv("PATH", programs(tmp_path, squeue=gone, scontrol="echo JobState=FAILED ExitCode=3:0"))
    monkeypatch.setattr("drumbeat.launch.backends.typed.program", lambda name: name)
    run.submitit.mkdir()
    (run.submitit / "4711_0_log.err").write_text(
        "setup.sh: line 2: module: command not found\nsrun: error: n1: task 0: Exited with exit code 3\n")
    expected = f"""\
run         {IDS[3]}
state       failed
why         SLURM job 4711 ended before its launcher started: its script ended
            with code 3 (FAILED); its log: setup.sh: line 2: module: command not
            found; there is no checkpoint
log         runs/other/{IDS[3]}/submitit/4711_0_log.err
            setup.sh: line 2: module: command not found
fix         Resume it: drumbeat resume {IDS[3]}"""
    assert why_of(run) == expected
    monkeypatch.setenv("PATH", programs(tmp_path, squeue=gone, scontrol=gone))
    assert why_of(run) == expected


def test_a_job_of_which_slurm_knows_nothing(listed: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                            ) -> None:
    gone = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    monkeypatch.setenv("PATH", programs(tmp_path, squeue=gone, scontrol=gone, sacct="exit 1"))
    text = " ".join(why_of(listed[3]).split())
    assert "SLURM job 4711 ended before its launcher started: SLURM no longer knows why; there is no" in text


def test_a_job_cancelled_in_the_queue(listed: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which only the accounting still knows. A run that waits to be resumed is noticed, too."""
    monkeypatch.setenv("PATH", programs(tmp_path, squeue="true", scontrol="exit 1", sacct="echo 'CANCELLED by 0|0:0'"))
    for state in ("pending", "preempted"):
        write_state(listed[3], state)  # type: ignore[arg-type]
        text = " ".join(why_of(listed[3]).split())
        assert "state cancelled why SLURM job 4711 ended before its launcher started: it was cancelled by root " in text


def test_a_suspended_job_is_neither_hung_nor_failed(listed: list[RunDir], tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", queue(tmp_path, f"""case "$*" in *"%k"*) echo '4710|SUSPENDED|None|N/A|gpu|{IDS[2]}';;
*) echo SUSPENDED;; esac"""))
    text = " ".join(why_of(listed[2]).split())
    assert "state running job 4710, suspended in partition gpu why SUSPENDED: SLURM has suspended it: its " in text
    assert "fix Wait: it continues where it was as soon as SLURM or an administrator resumes it." in text


def test_why_agrees_with_status_about_a_run_whose_job_has_just_ended(listed: list[RunDir], tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """It may still be writing down how it ended; `status` does not ask SLURM before ten seconds of silence."""
    monkeypatch.setenv("PATH", queue(tmp_path, "touch asked"))
    write_heartbeat(listed[2], step=600)
    view = with_final_state(View.read(listed[2]))
    assert "state           running\n" in status_text(view)
    assert not (tmp_path / "asked").exists()
    told = " ".join(why(view).split())
    assert "state running job 4710, which SLURM no longer knows why its job has ended, and" in told
    assert "fix Check again in ten seconds; or resume the run: " in told
    write_heartbeat(listed[2], step=600, ago=11)
    view = with_final_state(View.read(listed[2]))
    assert "state           failed\n" in status_text(view)
    assert "state       failed\nwhy         SLURM job 4710 ended: SLURM no longer knows why; " in why(view)


def test_why_of_a_run_that_waits_for_its_disk(listed: list[RunDir]) -> None:
    write_job(listed[2], id="17", host="elsewhere")
    write_heartbeat(listed[2], pause_reason="the disk is full")
    assert why_of(listed[2]).splitlines()[3:] == [
        "why         the disk is full", "fix         Free some space, or bring the disk back: the run continues by",
        "            itself."]


def test_why_of_runs_that_are_no_jobs(listed: list[RunDir], debug_here: Callable[[RunDir], None]) -> None:
    assert "why         it has finished" in why_of(listed[0])
    write_state(listed[1], "failed", "rank 1 on n1 was killed")
    assert "why         rank 1 on n1 was killed\nfix         Resume it: " in why_of(listed[1])
    debug_here(listed[2])
    assert "no heartbeat for 10:0" in why_of(listed[2])
