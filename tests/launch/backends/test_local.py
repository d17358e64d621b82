"""Runs on this machine, and on another one whose folder is shared."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.processes import process_space
from drumbeat.configs.run.records import Status
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.local import Local
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.stop import cancel
from tests.launch.made import evidence
from tests.launch.tiny_plan import plan
from tests.runs import write_heartbeat, write_job, write_state


def test_a_run_on_another_machine_is_running_while_its_heartbeat_is_recent(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_job(run, id="1", host="elsewhere")
    write_state(run, "running")
    assert evidence(run).startswith("on elsewhere, last heartbeat ")
    write_state(run, "running", ago=121)
    assert evidence(run) == ""
    write_heartbeat(run, ago=60)
    assert evidence(run).startswith("on elsewhere, last heartbeat ")


def test_cancelling_a_run_on_another_machine(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, id="1", host="elsewhere")
    with pytest.raises(RunError, match="given  on elsewhere, last heartbeat 0 s ago"):
        cancel(run)


def test_a_run_in_another_container_is_running_while_its_heartbeat_is_recent(runs: Path) -> None:
    """A container may have the name of its host; its processes cannot be seen from here."""
    run = find_run("tiny", runs)
    here = process_space()
    write_state(run, "running")
    write_job(run, id="1", host=socket.gethostname(), space=here)
    assert evidence(run) == ""
    for space in (here + "0", "another boot " + here.split()[1]):
        write_job(run, id="1", host=socket.gethostname(), space=space)
        assert evidence(run).startswith(f"in another container or boot of {socket.gethostname()}, last heartbeat ")
        with pytest.raises(RunError, match="cannot be reached from here"):
            cancel(run)


def test_a_run_stays_on_this_machine_under_another_host_name(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, id="1", host="former-name", space=process_space())
    assert evidence(run) == ""
    assert Local().label(View.read(run)) == "local"
    assert cancel(run).startswith(f"no process of {run.id} was running")


def test_a_run_that_is_silent_elsewhere_can_be_cancelled(runs: Path) -> None:
    """As after a reboot, which ends its processes and changes the identifier of the boot."""
    run = find_run("tiny", runs)
    write_state(run, "running", ago=121)
    write_job(run, id="1", host="elsewhere", space="another boot")
    cancel(run)
    assert Status.require(run.status).state == "cancelled"


def test_a_run_is_labelled_with_its_machine_while_it_runs_on_another(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    assert Local().label(View.read(run)) == "local"
    write_job(run, id="1", host="elsewhere")
    assert Local().label(View.read(run)) == "elsewhere"
    write_state(run, "finished")
    assert Local().label(View.read(run)) == "local"


def test_torchruns_command_is_what_is_sent(tmp_path: Path) -> None:
    request = Local().request(plan(tmp_path, "launch.procs=3"))
    assert "--nproc-per-node=3" in request.text
    assert [title for title, _ in request.sections] == ["command on each node"]


def test_in_an_allocation_a_note_names_its_other_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path)
    assert Local().notes(Local().request(made)) == []
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    assert Local().notes(Local().request(made)) == [
        "This shell is in SLURM job 4711: --here would use all of its 3 nodes"]


def test_a_run_that_was_moved_while_it_was_running(runs: Path) -> None:
    """Its processes are not proven to be the run's, and so are not ended; but nobody says that it has ended."""
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, id="1", space=process_space())
    wait = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", wait, "submitit.core._submit", str(run.submitit)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        moved = RunDir(run.path.rename(runs / "moved"))
        assert evidence(moved) == f"process {process.pid}, which uses the run's former folder, {run.path}"
        with pytest.raises(RunError, match="cannot be reached from here"):
            cancel(moved)
        assert process.poll() is None
        process.kill()
    assert evidence(moved) == ""
