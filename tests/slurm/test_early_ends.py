"""Jobs that end before their launcher starts, which can record nothing: SLURM and the job's own log tell why."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from drumbeat.configs.run.records import Status
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.listing import cells, damaged_cells, describe_each
from drumbeat.launch.runs.logs import log_lines
from drumbeat.launch.runs.status import status_text, with_final_state
from drumbeat.launch.runs.why import why
from tests.processes import until
from tests.runs import write_state
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submit
from tests.slurm.kinds import on
from tests.slurm.runs import NO_REQUEUE, SubmittedRun

pytestmark = pytest.mark.slurm


def shown(job: SubmittedRun) -> tuple[str, str, str]:
    """The state in `ls`; the verdict in `status`; and the last line of `logs -f`, which ends."""
    (row,) = describe_each([job.run], cells, damaged_cells)
    view = with_final_state(View.read(job.run))
    (verdict,) = (line for line in _unwrapped(status_text(view)) if line.startswith("verdict"))
    (reason,) = (line for line in _unwrapped(why(view)) if line.startswith("why"))
    assert verdict.split(maxsplit=1)[1] == reason.split(maxsplit=1)[1] == Status.require(job.run.status).verdict
    followed = list(log_lines(View.read(job.run), rank=0, follow=True))
    return row[2], verdict.split(maxsplit=1)[1], followed[-1]


def _unwrapped(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(" "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return lines


@on("cgroup", "linuxproc-accounts")
@pytest.mark.parametrize(("site", "state", "reason"), [
    ({"setup": ["echo 'no module cuda/13' >&2", "exit 3"]}, "FAILED",
     "its script ended with code 3 (FAILED); its log: no module cuda/13"),
    ({"prefix": "apptainer-is-missing exec image.sif"}, "FAILED",
     "its script ended with code 2 (FAILED); its log: slurmstepd-n1: error: execve(): apptainer-is-missing: No such "
     "file or directory"),
], ids=["setup", "prefix"])
def test_a_script_that_fails(submitted: Submit, site: dict[str, str], state: str, reason: str) -> None:
    job = submitted(**site)
    job.cluster.wait(job.job_id, state)
    verdict = f"SLURM job {job.job_id} ended before its launcher started: {reason}; there is no checkpoint"
    assert shown(job) == ("failed", verdict, f"--- failed: {verdict}")


def held(submit: Submit, before: Callable[[SubmittedRun], object] = lambda job: None) -> SubmittedRun:
    """A job that is held in the queue until `before` is done."""
    job = submit(sbatch={"hold": True})
    job.cluster.wait(job.job_id, "PENDING")
    assert [row[2] for row in describe_each([job.run], cells, damaged_cells)] == ["pending"]
    before(job)
    return job


@on("cgroup", "linuxproc-accounts")
def test_cancelled_in_the_queue(submitted: Submit) -> None:
    """Also after the controller has forgotten it, because its end is recorded."""
    job = held(submitted, lambda job: job.cluster.run("scancel", job.job_id))
    job.cluster.wait(job.job_id, "CANCELLED")
    verdict = (f"SLURM job {job.job_id} ended before its launcher started: it was cancelled (CANCELLED); there is no "
               "checkpoint")
    assert shown(job) == ("cancelled", verdict, f"--- cancelled: {verdict}")


@on("cgroup")
def test_a_node_that_does_not_see_the_run_folder(submitted: Submit) -> None:
    job = held(submitted, lambda job: job.run.submitit.rename(job.run.path / "elsewhere"))
    job.cluster.run("scontrol", "release", job.job_id)
    job.cluster.wait(job.job_id, "FAILED")
    verdict = (f"SLURM job {job.job_id} ended before its launcher started: its log file could not be opened (FAILED); "
               "check that the nodes see the run folder; there is no checkpoint")
    assert shown(job) == ("failed", verdict, f"--- failed: {verdict}")


@on("cgroup")
def test_following_a_job_that_is_cancelled_in_the_queue(submitted: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    job = held(submitted)
    monkeypatch.setattr("drumbeat.launch.runs.logs.CHECK_SECONDS", 1.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: job.cluster.run("scancel", job.job_id))
    (line,) = log_lines(View.read(job.run), rank=0, follow=True)
    assert line.startswith(f"--- cancelled: SLURM job {job.job_id} ended before its launcher started: it was cancelled")


@on("cgroup")
def test_a_suspended_run_is_neither_hung_nor_failed(submitted: Submit) -> None:
    job = submitted()
    job.up()
    job.cluster.run("scontrol", "suspend", job.job_id)
    job.cluster.wait(job.job_id, "SUSPENDED")
    write_state(job.run, "running", ago=3600)
    assert with_final_state(View.read(job.run)).state == "running"
    assert [row[2] for row in describe_each([job.run], cells, damaged_cells)] == ["suspended 1:00:00"]
    text = " ".join(why(with_final_state(View.read(job.run))).split())
    assert "why SUSPENDED: SLURM has suspended it: its processes are stopped, and its nodes may run other jobs" in text
    job.cluster.run("scontrol", "resume", job.job_id)
    job.finish()


@on("cgroup")
def test_a_requeued_run_that_is_held(submitted: Submit) -> None:
    job = submitted()
    job.up()
    job.cluster.run("scontrol", "requeuehold", job.job_id)
    job.cluster.wait(job.job_id, "PENDING")
    text = " ".join(why(with_final_state(View.read(job.run))).split())
    assert "why job requeued in held state: it was requeued and held, by a user or by its exit code" in text
    assert f"fix Release it: scontrol release {job.job_id}" in text
    job.cluster.run("scancel", job.job_id)
    job.cluster.wait(job.job_id, "CANCELLED")
    view = with_final_state(View.read(job.run))
    assert (view.state, view.verdict.partition(":")[0]) == (
        "cancelled", f"SLURM job {job.job_id} ended before its launcher started")


@on("cgroup")
def test_a_deadline_that_cannot_be_met(cluster: Cluster, submitted: Submit) -> None:
    cluster.fill()
    job = submitted(sbatch={"deadline": "now+65"}, time_minutes=1, signal_seconds=5)
    job.cluster.wait(job.job_id, "DEADLINE")
    verdict = (f"SLURM job {job.job_id} ended before its launcher started: it could not start before its deadline "
               "(DEADLINE); remove deadline from the profile; there is no checkpoint")
    assert shown(job) == ("failed", verdict, f"--- failed: {verdict}")


@pytest.mark.matrix  # until SLURM notices
@on("cgroup")
def test_a_node_that_fails_before_the_launcher_starts(cluster: Cluster, submitted: Submit) -> None:
    with cluster.reconfigured(SlurmdTimeout=10):
        job = submitted(setup=["echo copying the data", "sleep 600"], sbatch=NO_REQUEUE)
        until(lambda: "copying" in "".join(path.read_text() for path in job.run.submitit.glob("*_log.out")))
        cluster.kill_daemon("n1")
        cluster.wait(job.job_id, "NODE_FAIL")
    verdict = (f"SLURM job {job.job_id} ended before its launcher started: one of its nodes failed (NODE_FAIL); its "
               "log: copying the data; there is no checkpoint")
    assert shown(job) == ("failed", verdict, f"--- failed: {verdict}")
    cluster.start_daemon("n1")
    cluster.await_nodes()


@on("cgroup")
def test_a_prolog_that_fails(cluster: Cluster, submitted: Submit) -> None:
    """SLURM drains the node, and holds the job."""
    with cluster.reconfigured(Prolog="/bin/false"):
        job = submitted()
        until(lambda: "JobHold" in cluster.run("squeue", "--noheader", "--format=%r") or "held" in cluster.run(
            "squeue", "--noheader", "--format=%r"))
        text = " ".join(why(with_final_state(View.read(job.run))).split())
        assert "it could not be started on its node, and SLURM holds it" in text
        assert f"fix Release it: scontrol release {job.job_id}" in text
        assert [row[2] for row in describe_each([job.run], cells, damaged_cells)] == ["pending"]
    drained = cluster.run("sinfo", "--noheader", "--Node", "--states=drain", "--partition=main", "--format=%n").split()
    cluster.run("scontrol", "update", f"nodename={','.join(drained)}", "state=resume")
    cluster.run("scontrol", "release", job.job_id)
    cluster.start_again(job.job_id)
    job.up()
    job.finish()
