"""Runs that exist: found by what a person calls them, told from their folders alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.status import status_text
from tests.launch.made import FIRST, OTHER, SECOND, evidence
from tests.runs import write_heartbeat, write_job, write_state


@pytest.mark.parametrize(("text", "found"), [
    ("tiny", SECOND), ("other", OTHER), (FIRST, FIRST), ("20260101", FIRST), ("aaaaa", FIRST),
    (f"runs/tiny/{FIRST}", FIRST), ("runs/tiny/latest", SECOND), ("runs/tiny", SECOND), (f"tiny/{FIRST}", FIRST),
    ("tiny/", SECOND), ("tiny/latest", SECOND), ("tiny/aaaaa", FIRST),
])
def test_finding_a_run(runs: Path, text: str, found: str) -> None:
    run = find_run(text, Path("runs"))
    assert (run.id, run.path.is_absolute(), run.path.is_symlink()) == (found, True, False)


def test_a_name_finds_the_run_to_which_latest_leads(runs: Path) -> None:
    """Also if another id is greater: the clock of another machine was ahead, or an older run was resumed."""
    latest = runs / "tiny" / "latest"
    for target, found in ((FIRST, FIRST), (SECOND, SECOND), ("gone", SECOND), ("../other", SECOND)):
        latest.unlink()
        latest.symlink_to(target)
        assert find_run("tiny", runs).id == found


def test_ids_are_in_order_when_clocks_are_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of daylight saving time in New York, and on machines in two time zones."""
    end = 1793509200.0  # 2026-11-01 01:00 there, 05:00 UTC, for the first time
    ids = []
    for zone, moment in (("America/New_York", end + 1800), ("America/New_York", end + 3600), ("Asia/Tokyo", end + 5400),
                         ("America/New_York", end + 7200)):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        ids.append(RunDir.new(tmp_path, "x", moment).id)
    monkeypatch.undo()
    time.tzset()
    assert sorted(ids) == ids


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_name_means_no_run(runs: Path, text: str) -> None:
    """As in `drumbeat stop "$RUN"` where RUN is not set."""
    with pytest.raises(RunError, match=r"no run given"):
        find_run(text, runs)


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
job             17 (process on elsewhere)
folder          {run.path}"""


def test_status_of_a_run_that_ended_or_never_began(runs: Path) -> None:
    run = find_run("tiny", runs)
    assert status_text(View.read(run)).splitlines() == [
        f"run             {SECOND}", "state           unknown", f"folder          {run.path}"]
    write_state(run, "failed", "rank 1 on n1 was killed")
    assert "verdict         rank 1 on n1 was killed\n" in status_text(View.read(run))
    assert "heartbeat" not in status_text(View.read(run))


def test_the_verbs_print(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = find_run("tiny", runs)
    write_state(run, "stopped")
    run.claim_attempt().log(0).write_text("line\n")
    assert [main(["status", "tiny"]), main(["logs", "tiny"]), main(["stop", "tiny"])] == [0, 0, 0]
    out = capsys.readouterr().out
    assert out.endswith(f"folder          {run.path}\nline\n{SECOND} is stopped already\n")
