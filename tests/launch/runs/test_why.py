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
    monkeypatch.setenv("PATH", queue(tmp_path, ""))
    assert "job         4711, which SLURM no longer knows\n" in why_of(listed[3])


def test_why_agrees_with_status_about_a_run_whose_job_has_just_ended(listed: list[RunDir], tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """It may still be writing down how it ended; `status` does not ask SLURM before it has been silent for a while."""
    monkeypatch.setenv("PATH", queue(tmp_path, "touch asked"))
    write_heartbeat(listed[2], step=600)
    view = with_final_state(View.read(listed[2]))
    assert "state           running\n" in status_text(view)
    assert not (tmp_path / "asked").exists()
    told = " ".join(why(view).split())
    assert "state running job 4710, which SLURM no longer knows why its job has ended, and" in told
    assert "fix Check again in two minutes; or resume the run: " in told
    write_heartbeat(listed[2], step=600, ago=121)
    view = with_final_state(View.read(listed[2]))
    assert "state           failed\n" in status_text(view)
    assert "state       failed\nwhy         its launcher was killed, or" in why(view)


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
