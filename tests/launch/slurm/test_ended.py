"""How a job has ended, from the controller, or from the accounting once the controller has forgotten it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.launch.slurm.ended import JobEnd, job_end
from tests.launch.fake_slurm import programs

FORGOTTEN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


@pytest.mark.parametrize(("end", "message"), [
    (JobEnd("FAILED", code=3), "its script ended with code 3 (FAILED)"),
    (JobEnd("FAILED", signal=9), "its script was killed (SIGKILL) (FAILED)"),
    (JobEnd("FAILED", signal=53), "its log file could not be opened (FAILED); check that the nodes see the run folder"),
    (JobEnd("CANCELLED"), "it was cancelled (CANCELLED)"),
    (JobEnd("CANCELLED", user="mary"), "it was cancelled by mary (CANCELLED)"),
    (JobEnd("TIMEOUT"), "its time limit was reached (TIMEOUT); give it more time_minutes in the profile"),
    (JobEnd("OUT_OF_MEMORY", code=0, signal=125),
     "it used more memory than it requested (OUT_OF_MEMORY); request more memory in the profile"),
    (JobEnd("NODE_FAIL"), "one of its nodes failed (NODE_FAIL)"),
])
def test_what_happened(end: JobEnd, message: str) -> None:
    assert end.message == message


def test_the_controller_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, sacct="exit 7", scontrol=(
        "echo 'JobId=7 JobState=FAILED Reason=NonZeroExitCode Restarts=0 ExitCode=3:0 RunTime=00:00:01'")))
    assert job_end("7") == JobEnd("FAILED", code=3)
    monkeypatch.setenv("PATH", programs(tmp_path, scontrol="echo 'JobId=7 JobState=RUNNING ExitCode=0:0'"))
    assert job_end("7") is None


@pytest.mark.parametrize(("line", "end"), [
    ("FAILED|3:0", JobEnd("FAILED", code=3)),
    ("CANCELLED by 0|0:0", JobEnd("CANCELLED", user="root")),
    ("CANCELLED by 4294967|0:15", JobEnd("CANCELLED", signal=15, user="user 4294967")),
    ("RUNNING|0:0", None),
    ("", None),
])
def test_the_accounting_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, end: JobEnd | None
                                 ) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, scontrol=FORGOTTEN, sacct=f"echo '{line}'"))
    assert job_end("7") == end


def test_nobody_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, scontrol=FORGOTTEN, sacct="echo 'Slurm accounting storage is "
                                                                           "disabled' >&2; exit 1"))
    assert job_end("7") is None
