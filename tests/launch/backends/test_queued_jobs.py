"""What SLURM says about the jobs of a run. tests/launch/runs/test_why.py shows what the user reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Topology
from drumbeat.configs.run.records import AttemptStart, NodeUp, State
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Evidence
from drumbeat.launch.backends.queued_jobs import explain, jobs_of, unrecorded_end
from tests.launch.fake_slurm import programs
from tests.runs import write_job, write_plan, write_state


@pytest.fixture
def view(tmp_path: Path) -> View:
    """A run whose job is 12 of cluster gpu, and waits."""
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-000000-abcde")
    write_plan(run)
    write_state(run, "pending")
    write_job(run, "slurm", id="12;gpu", next_job="13;gpu")
    return View.read(run)


def slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    monkeypatch.setenv("PATH", programs(folder, **scripts))


@pytest.mark.parametrize(("state", "reason", "text", "fix"), [
    ("CONFIGURING", "None", "CONFIGURING: its nodes are booting, or their prolog is running", "Wait some minutes."),
    ("EXPEDITING", "None", "EXPEDITING: a node failed, and it starts again before all other jobs", "Wait: "),
    ("SPECIAL_EXIT", "None", "SPECIAL_EXIT: it was requeued because of its exit code, and SLURM holds it",
     "Release it: scontrol -M gpu release 12"),
    ("PENDING", "JobHeldUser", "JobHeldUser: you hold it", "Release it: scontrol -M gpu release 12"),
])
def test_a_job_that_does_not_run(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, reason: str,
                                 text: str, fix: str) -> None:
    slurm(tmp_path, monkeypatch, squeue=f'echo "12|{state}|{reason}|N/A|long|20260101-000000-abcde|x"')
    rows = dict(explain(view))
    assert (rows["job"], rows["why"]) == (f"12;gpu, {state.lower()} in partition long", text)
    assert rows["fix"].startswith(fix)


def test_slurm_is_asked_once_about_many_runs(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(tmp_path, monkeypatch, squeue=f'echo "$SLURM_CLUSTERS $*" >> {tmp_path}/asked; echo "13|PENDING"')
    assert backend_of("slurm").evidence_of([view] * 9) == [Evidence("SLURM job 13;gpu is pending")] * 9
    assert (tmp_path / "asked").read_text() in {
        f"gpu --noheader --jobs {jobs} --format %i|%T\n" for jobs in ("12,13", "13,12")}


def test_a_suspended_job(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(tmp_path, monkeypatch, squeue="echo '12|SUSPENDED'")
    assert backend_of("slurm").evidence_of([view]) == [Evidence("SLURM job 12;gpu is suspended", suspended=True)]


def test_runs_whose_state_slurm_does_not_tell(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(tmp_path, monkeypatch, squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    assert backend_of("slurm").evidence_of([view]) == [
        Evidence("state unknown: Unable to contact slurm controller")]


def test_a_job_whose_id_is_not_recorded_is_found_by_its_comment(view: View, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    write_job(view.run, "slurm")
    found = View.read(view.run)
    slurm(tmp_path, monkeypatch, squeue=f"echo '12|PENDING|Priority|N/A|long|{view.run.id}'")
    assert backend_of("slurm").running_evidence(found) == "SLURM job 12 is pending"


def told(view: View) -> tuple[str, str]:
    end = unrecorded_end(view)
    return end.state, end.reason


def test_how_a_job_ended(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(tmp_path, monkeypatch, scontrol='echo "JobState=$SLURM_CLUSTERS"', sacct="exit 1")
    assert told(view) == (
        "failed", "SLURM job 12;gpu ended before its launcher started: SLURM no longer knows why")
    slurm(tmp_path, monkeypatch, scontrol='echo "JobState=CANCELLED ExitCode=0:0"')
    assert told(view) == (
        "cancelled", "SLURM job 12;gpu ended before its launcher started: it was cancelled (CANCELLED)")


def test_the_job_of_the_original_is_not_that_of_a_copy(view: View, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy has the same id, which is the comment of the job; but the job's script is in the original."""
    script = view.run.submitit / "12_submission.sh"
    slurm(tmp_path, monkeypatch, squeue=f'echo "12|RUNNING|None|N/A|long|{view.run.id}|{script}"')
    copy = RunDir(shutil.copytree(view.run.path, tmp_path / "copies" / view.run.id))
    assert (jobs_of(view), jobs_of(View.read(copy))) == (["12;gpu"], [])
    slurm(tmp_path, monkeypatch, squeue="echo RUNNING")
    backend = backend_of("slurm")
    assert backend.running_evidence(view) == "SLURM job 12;gpu is running"
    assert backend.running_evidence(View.read(copy)) == ""


SCONTROL = "echo 'JobId=12 JobState={state} ExitCode=0:127 NodeList=n[1-3] Requeue=1'"


@pytest.mark.parametrize(("state", "bad"), [
    ("NODE_FAIL", {"n2": "SLURM lost it (NODE_FAIL)"}), ("BOOT_FAIL", {"n2": "SLURM lost it (BOOT_FAIL)"}),
    ("FAILED", {}), ("TIMEOUT", {}), ("OUT_OF_MEMORY", {}), ("CANCELLED", {}), ("PREEMPTED", {})])
def test_only_nodes_that_slurm_has_lost_are_blamed(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   state: str, bad: dict[str, str]) -> None:
    slurm(tmp_path, monkeypatch, scontrol=SCONTROL.format(state=state), sinfo="echo 'n1|idle'; echo 'n2|down*'")
    assert unrecorded_end(view).bad_nodes == bad


@pytest.mark.parametrize(("nodes", "state", "up", "bad"), [
    (3, "pending", 0, {"n2": "its launcher did not start: execve(): no such file"}), (1, "pending", 0, {}),
    (3, "running", 2, {"n2": "its launcher did not start: execve(): no such file"}), (3, "running", 3, {})])
def test_a_launcher_that_never_starts_blames_its_node(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      nodes: int, state: State, up: int, bad: dict[str, str]) -> None:
    """Unless it is the only one, and even if another one has claimed an attempt; a launcher that has started reports
    itself."""
    slurm(tmp_path, monkeypatch, scontrol=SCONTROL.format(state="FAILED"))
    run = view.run
    write_plan(run, topology=Topology(nodes=nodes, ranks_per_node=1, device="cpu", cpus_per_rank=1))
    if up:
        attempt = run.claim_attempt()
        AttemptStart(job="12.0.0", nodes=("n1", "n2", "n3"), address="n1", port=1).write(attempt.launch)
        for node in (0, 2, 1)[:up]:
            NodeUp(host=f"n{node + 1}").write(attempt.node_up(node))
    write_state(run, state)
    run.submitit.mkdir()
    (run.submitit / "12_0_log.err").write_text("srun: error: n2: task 1: Exited with exit code 2\n" * 9)
    (run.submitit / "12_1_log.err").write_text("execve(): no such file\n")
    end = unrecorded_end(View.read(run))
    assert end.bad_nodes == bad
    if bad:
        assert end.reason.startswith("SLURM job 12;gpu ended before its launcher started on n2: ")


def test_a_run_without_a_job_blames_no_node(view: View) -> None:
    write_job(view.run, "slurm")
    assert unrecorded_end(View.read(view.run)).bad_nodes == {}


def test_of_nodes_that_are_lost_all_at_once_none_is_blamed(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                           ) -> None:
    slurm(tmp_path, monkeypatch, scontrol=SCONTROL.format(state="NODE_FAIL"),
          sinfo="echo 'n1|down*'; echo 'n2|down*'; echo 'n3|down*'")
    assert unrecorded_end(view).bad_nodes == {}


def test_a_job_ended_when_it_last_wrote_to_its_log(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(tmp_path, monkeypatch, scontrol=SCONTROL.format(state="FAILED"))
    view.run.submitit.mkdir()
    log = view.run.submitit / "12_0_log.err"
    log.write_text("no\n")
    os.utime(log, (1e9, 1e9))
    assert unrecorded_end(view).time == 1e9
