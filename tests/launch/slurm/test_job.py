"""What SLURM 22.05's texts about a job mean. Each text below was recorded on a real cluster (tests/slurm)."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from drumbeat.launch.slurm import client
from drumbeat.launch.slurm import job as slurm_job
from drumbeat.launch.slurm.job import SlurmJob, job_name

SHOW = """JobId=7 JobName=tiny UserId=root(0) Priority=4294901755 QOS=(null) JobState={state} Reason={reason} \
Dependency=(null) Requeue={requeue} Restarts={restarts} BatchFlag={batch} ExitCode=0:0 RunTime=00:00:12 \
TimeLimit=00:10:00 StartTime=2026-11-22T01:54:32 EndTime={end} PreemptTime={preempted} \
Deadline=N/A Command=/home/me/a b.sh"""

JOB = SlurmJob(job="7", restarts=1)


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a scontrol that prints `answer` and exits with the code in `code`; it records its arguments."""
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\ncd "$(dirname "$0")"\necho "$@" >> calls\ncat answer\nexit $(cat code)\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    answer(tmp_path)
    return tmp_path


def answer(folder: Path, text: str | None = None, *, code: int = 0, state: str = "RUNNING", reason: str = "None",
           restarts: int = 1, end: str = "2026-11-22T02:04:32", preempted: str = "None", requeue: int = 1,
           batch: int = 1) -> None:
    shown = SHOW.format(state=state, reason=reason, restarts=restarts, end=end, preempted=preempted, requeue=requeue,
                       batch=batch)
    (folder / "answer").write_text(shown if text is None else text)
    (folder / "code").write_text(str(code))


def test_the_current_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert SlurmJob.current() == SlurmJob("7", 0)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert SlurmJob.current() == SlurmJob("7", 2)


@pytest.mark.parametrize(("state", "reason", "restarts", "fate"), [
    ("RUNNING", "None", 1, "terminated"),  # only its step
    ("COMPLETING", "None", 2, "requeued"),
    ("PENDING", "BeginTime", 2, "requeued"),
    ("COMPLETING", "TimeLimit", 1, "time limit"),
    ("TIMEOUT", "TimeLimit", 1, "time limit"),
    ("COMPLETING", "NodeDown", 1, "node failure"),
    ("NODE_FAIL", "NodeDown", 1, "node failure"),
    ("COMPLETING", "None", 1, "cancelled"),
    ("CANCELLED", "None", 1, "cancelled"),
])
def test_why_the_job_is_ended(scontrol: Path, state: str, reason: str, restarts: int, fate: str) -> None:
    answer(scontrol, state=state, reason=reason, restarts=restarts)
    assert JOB.why_terminated() == fate
    assert (scontrol / "calls").read_text() == "--oneliner show job 7\n"


def test_a_preempted_job_whether_or_not_it_has_a_grace_time(scontrol: Path) -> None:
    """Preemption by cancelling looks like a user's scancel, except for the grace time."""
    for state in ("RUNNING", "COMPLETING"):
        answer(scontrol, state=state, preempted="2026-11-22T02:00:00")
        assert JOB.why_terminated() == "preempted"


@pytest.mark.parametrize(("requeue", "batch", "needs"), [(1, 1, False), (0, 1, True), (0, 0, False)])
def test_a_job_that_is_not_requeued_needs_a_successor(scontrol: Path, requeue: int, batch: int,
                                                          needs: bool) -> None:
    """Except an interactive allocation (BatchFlag=0), which its owner ends."""
    answer(scontrol, requeue=requeue, batch=batch)
    assert JOB.needs_next_job() == needs


def test_without_scontrol_a_successor_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert JOB.needs_next_job()


def test_the_job_it_follows(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_JOB_DEPENDENCY", "afternotok:7")
    assert SlurmJob.current().previous_job == "7"
    answer(scontrol, state="CANCELLED")
    assert SlurmJob.current().previous_job_was_cancelled()
    assert not JOB.previous_job_was_cancelled(), "it follows none"
    answer(scontrol, state="PREEMPTED")
    assert not SlurmJob.current().previous_job_was_cancelled()


def test_the_end_of_its_time(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert JOB.end_time() == datetime(2026, 11, 22, 2, 4, 32).timestamp()
    answer(scontrol, end="Unknown")
    assert JOB.end_time() == float("inf")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1795314000")
    answer(scontrol, end="2026-11-22T02:34:32")
    assert JOB.end_time(1.0) == datetime(2026, 11, 22, 2, 34, 32).timestamp(), "it was extended"
    answer(scontrol, "Unable to contact slurm controller", code=1)
    assert (JOB.end_time(), JOB.end_time(1.0)) == (1795314000.0, 1.0)


def test_an_unknown_end_sets_no_time_limit(scontrol: Path) -> None:
    answer(scontrol, "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert (JOB.why_terminated(), JOB.end_time()) == ("preempted", float("inf"))


def test_a_job_is_requeued(scontrol: Path) -> None:
    answer(scontrol, "")
    assert JOB.requeue() == ""
    assert (scontrol / "calls").read_text() == "requeue 7\n"


def test_a_job_that_is_already_requeued(scontrol: Path) -> None:
    answer(scontrol, "Job is pending execution for job 7", code=1)
    assert JOB.requeue() == ""


def test_requeueing_waits_for_a_restarting_controller(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(scontrol, "Unable to contact slurm controller (connect failure)", code=1)
    monkeypatch.setattr(slurm_job.time, "sleep", lambda seconds: answer(scontrol, ""))
    assert JOB.requeue() == ""
    assert (scontrol / "calls").read_text().count("requeue") == 2


def test_a_refusal_is_reported(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(scontrol, "Requested operation is presently disabled for job 7", code=1)
    assert JOB.requeue() == "Requested operation is presently disabled for job 7"
    monkeypatch.setenv("PATH", "/nowhere")
    assert JOB.requeue() == "there is no scontrol on PATH"
    assert JOB.why_terminated() == "preempted"


def test_a_controller_that_never_answers(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scontrol / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(client, "TIMEOUT", 0.2)
    monkeypatch.setattr(slurm_job, "REQUEUE_TIMEOUT", 0.1)
    assert JOB.requeue() == "scontrol does not answer within 0.2 s"


@pytest.mark.parametrize("text", ["Restarts= JobState=RUNNING", "Restarts=\u00b2 EndTime=x", "Restarts=-1", "=", ""])
def test_an_answer_that_is_damaged(scontrol: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(scontrol, text)
    assert JOB.why_terminated() in ("terminated", "preempted")
    assert JOB.end_time() == float("inf")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "soon")
    assert JOB.end_time() == float("inf")


def test_a_task_of_an_array_has_its_own_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last task has the number of the whole array. An allocation keeps its number."""
    for name, value in (("JOB_ID", "12"), ("ARRAY_JOB_ID", "12"), ("ARRAY_TASK_ID", "3"),
                        ("JOB_DEPENDENCY", "afternotok:10_3(unfulfilled)")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    job = SlurmJob.current()
    assert (job.job, job.previous_job, job_name()) == ("12_3", "10_3", "12_3")
    assert SlurmJob.current(is_allocation=True).job == "12"
