"""A run in the user's own allocation: its resources as SLURM 22.05 reports them, and srun's command and environment.
tests/slurm/test_allocation.py tests on a real cluster."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Allocation, JobPlan
from drumbeat.configs.run.view import View
from drumbeat.configs.site import Site
from drumbeat.launch.backends.allocation import InAllocation, find_allocation, node_resources, note
from drumbeat.launch.backends.backend import running_evidence
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.commands.main import main
from drumbeat.launch.node.handover import take_over
from drumbeat.launch.plan.job import Machine, plan_job
from drumbeat.launch.runs import attach as watch
from drumbeat.launch.runs.why import why
from drumbeat.launch.slurm.client import steps
from drumbeat.launch.slurm.job import START, SlurmJob
from tests.launch.tiny_plan import config, topology, write_config
from tests.runs import write_job, write_plan, write_state

GOLDEN = Path(__file__).parent / "golden"
SHOW = "JobId=7 JobName=interactive JobState={state} Reason=None NodeList=n[1-3] NumNodes={nodes} NumCPUs=4 \
TRES=cpu=4,node=2 JOB_GRES={total} {given} MinCPUsNode=2 OverSubscribe=OK Command=(null) WorkDir=/home/me"
DETAILS = "  Nodes=n[1-2] CPU_IDs=0-3,8 Mem=2000 GRES={gres} "


def answers(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str, script: str) -> None:
    """Puts a SLURM program on the PATH that runs a shell script."""
    (folder / program).write_text(f"#!/bin/bash\n{script}\n")
    (folder / program).chmod(0o755)
    if str(folder) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def granted(folder: Path, monkeypatch: pytest.MonkeyPatch, given: str = DETAILS.format(gres=""), *, nodes: int = 2,
            state: str = "RUNNING") -> None:
    """This shell is in job 7, which has this allocation."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    answers(folder, monkeypatch, "scontrol",
            f"echo '{SHOW.format(state=state, nodes=nodes, total='(null)', given=given)}'")


def planned(folder: Path, *assignments: str, site: Site | None = None, **has: int) -> JobPlan:
    """The plan of the small config in an allocation of two nodes."""
    around = node_resources(Machine.here(), Allocation(
        job_id="7", **{"nodes": 2, "cpus_per_node": 8, **has}))  # type: ignore[arg-type]
    return plan_job(config(folder, *assignments), run_dir=Path("/runs/small/RUN"), backend="here", machine=around,
                    site=site or Site(), folder=Path("/home/me"))


@pytest.mark.parametrize(("given", "cpus", "gpus"), [
    (DETAILS.format(gres=""), 5, 0),
    (DETAILS.format(gres="gpu:4(IDX:0-3)"), 5, 4),
    (DETAILS.format(gres="gpu:a100:2(IDX:0,3),gpu:h100:1(IDX:4),shard:9(IDX:7)"), 5, 3),
    (DETAILS.format(gres="gpu:4(IDX:0-3)") + "  Nodes=n3 CPU_IDs=0-1 Mem=1000 GRES=gpu:8(IDX:0-7)", 2, 4),
])
def test_what_each_node_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, cpus: int, gpus: int) -> None:
    granted(tmp_path, monkeypatch, given)
    assert find_allocation(os.environ) == Allocation(job_id="7", nodes=2, cpus_per_node=cpus, gpus_per_node=gpus)


@pytest.mark.parametrize(("step", "in_step"), [("", False), ("0", True), ("4294967290", False)])
def test_a_shell_in_a_job_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, in_step: bool) -> None:
    """The step of an interactive salloc does not count: it holds no resources."""
    granted(tmp_path, monkeypatch)
    monkeypatch.setenv("SLURM_STEP_ID", step)
    assert find_allocation(os.environ).in_step == in_step
    assert ("--overlap" in InAllocation().request(planned(tmp_path, in_step=in_step)).text) == in_step


@pytest.mark.parametrize(("script", "given"), [
    ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "Invalid job id"),
    ("echo 'Unable to contact slurm controller' >&2; exit 1", "Unable to contact"),
    ("echo 'JobId=7 JobState=COMPLETING NumNodes=2'", "the job is COMPLETING"),
])
def test_an_allocation_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str], script: str, given: str) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    answers(tmp_path, monkeypatch, "scontrol", script)
    assert main(["run", "small.yaml", "--here"]) == 2
    output = capsys.readouterr().err
    assert "the allocation of SLURM job 7 cannot be used" in output
    assert given in output


@pytest.mark.parametrize(("assignments", "has", "expected"), [
    ([], {}, (2, 1, "cpu", 8)),
    (["launch.procs=3"], {}, (2, 3, "cpu", 2)),
    ([], {"gpus_per_node": 4}, (2, 4, "cuda", 2)),
    (["launch.gpus=2", "launch.nodes=1"], {"gpus_per_node": 4}, (1, 2, "cuda", 4)),
    (["launch.gpus=0"], {"gpus_per_node": 4}, (2, 1, "cpu", 8)),
])
def test_ranks_and_cores(tmp_path: Path, assignments: list[str], has: dict[str, int],
                         expected: tuple[int, int, str, int]) -> None:
    """The whole allocation by default, less on request."""
    assert planned(tmp_path, *assignments, **has).topology == topology(*expected)


@pytest.mark.parametrize(("have", "least", "expected"), [(1, 1, (1, None)), (2, 1, (2, 1)), (5, 2, (4, 2))])
def test_a_range_of_nodes(tmp_path: Path, have: int, least: int, expected: tuple[int, int | None]) -> None:
    """--nodes LEAST-4: as many as the allocation has."""
    found = planned(tmp_path, "launch.nodes=4", f"launch.min_nodes={least}", nodes=have).topology
    assert (found.nodes, found.min_nodes) == expected


@pytest.mark.parametrize(("assignments", "has", "what", "remedy"), [
    (["launch.nodes=4", "launch.min_nodes=3"], {}, "the allocation has 2 nodes",
     "Use --nodes 2, or ask salloc for more: --nodes=N"),
    (["launch.nodes=3"], {}, "the allocation has 2 nodes", "Use --nodes 2, or ask salloc for more: --nodes=N"),
    (["launch.gpus=3"], {"gpus_per_node": 2}, "a node of the allocation has 2 GPUs",
     "Use --gpus 2, or --procs N for ranks on the CPU."),
    (["launch.gpus=3"], {}, "a node of the allocation has no GPU",
     "Use --procs N for ranks on the CPU, or ask salloc for some: --gres=gpu:N."),
])
def test_more_than_the_allocation_has(tmp_path: Path, assignments: list[str], has: dict[str, int], what: str,
                            remedy: str) -> None:
    with pytest.raises(LaunchError) as error:
        planned(tmp_path, *assignments, **has)
    assert [(fault.what, fault.remedy) for fault in error.value.faults] == [(what, remedy)]


def test_gpus_that_slurm_does_not_count(tmp_path: Path) -> None:
    """On a cluster where a node always comes with all of its GPUs."""
    text = InAllocation().request(planned(tmp_path, "launch.gpus=4", site=Site(gpu_flag="none"))).text
    assert "gres" not in text


def test_cores_for_fewer_ranks_than_there_are(tmp_path: Path) -> None:
    """By default, salloc gives a node one core."""
    plan = planned(tmp_path, "launch.procs=4", "launch.cpus_per_rank=2", cpus_per_node=1)
    assert "--cpus-per-task=1 " in InAllocation().request(plan).text
    assert note(plan) == "4 ranks share 1 core on each node; salloc --cpus-per-task=8 gives each its own"
    assert note(planned(tmp_path, "launch.procs=4")) == ""


def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regenerate it as tests/launch/backends/test_slurm.py says."""
    monkeypatch.delenv("PYTHONPATH")
    site = Site(partition="big", setup=["module load cuda"], environment={"NCCL_DEBUG": "WARN"})
    text = InAllocation().request(planned(tmp_path, gpus_per_node=4, site=site)).text
    text = text.replace(sys.executable, "/venv/bin/python").replace(str(ROOT), "/drumbeat")
    if os.environ.get("DRUMBEAT_GOLDEN") == "write":
        (GOLDEN / "here.sh").write_text(text)
    assert text == (GOLDEN / "here.sh").read_text()


def test_a_plan_is_read_back_the_same(tmp_path: Path) -> None:
    plan = planned(tmp_path, gpus_per_node=4)
    plan.write(tmp_path / "plan.json")
    assert JobPlan.read(tmp_path / "plan.json") == plan


def started(folder: Path, monkeypatch: pytest.MonkeyPatch, srun: str) -> RunDir:
    """A run whose script has run to its end with `srun` in srun's place."""
    answers(folder, monkeypatch, "srun", srun)
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_CPU_BIND": "map_cpu:0", "SLURM_CONF": "/etc/slurm.conf",
                        "CUDA_VISIBLE_DEVICES": "3"}.items():
        monkeypatch.setenv(name, value)
    plan = JobPlan(**vars(planned(folder)) | {"run_dir": str(folder / "run")})
    run = RunDir(folder / "run")
    job = InAllocation().submit(InAllocation().request(plan))
    assert job.id == "7"
    until = time.monotonic() + 30
    while job.running():
        assert time.monotonic() < until
        time.sleep(0.01)
    plan.write(run.plan)
    write_job(run, "here", id="7")
    write_state(run, "pending")
    return run


def test_launchers_that_are_killed_are_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same start of the run. Of the variables of the shell's own job they see only the cluster's address and the
    requeue count."""
    run = started(tmp_path, monkeypatch, f"cd {tmp_path}; echo \"$@\" >> calls\n"
                                         f"env | grep -E 'SLURM_|CUDA|{START}' >> env\n"
                                         "[ $(wc -l < calls) = 3 ] || exit 137")
    calls, variables = ((tmp_path / name).read_text().splitlines() for name in ("calls", "env"))
    assert [call.startswith("--immediate=60") for call in calls] == [False, True, True]
    assert all("--jobid=7 --job-name=run " in call for call in calls)
    assert {line.partition("=")[0] for line in variables} == {"SLURM_CONF", "SLURM_RESTART_COUNT", START}
    assert len(set(variables)) == 3
    assert (run.submitit / "7_submitted.pkl").exists()


def test_an_error_of_srun_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    run = started(tmp_path, monkeypatch, "echo 'srun: error: Unable to create step for job 7: whatever' >&2; exit 1")
    assert watch.print_end(View.read(run)) == 1
    assert "failed     not started: error: Unable to create step for job 7: whatever" in capsys.readouterr().out


def test_is_it_still_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its step shows it, on any machine."""
    answers(tmp_path, monkeypatch, "squeue", "printf '7.3|other\\n7.4|run\\n7.extern|extern\\n'")
    run = RunDir(tmp_path / "run")
    write_plan(run)
    write_job(run, "here", id="7", host="another")
    write_state(run, "running")
    assert steps("7", "run") == ["7.4"]
    assert running_evidence(View.read(run)) == "step 7.4"
    write_state(run, "pending")
    view = View.read(run)
    assert "it is starting, or waiting for resources in SLURM job 7" in " ".join(why(view).split())
    answers(tmp_path, monkeypatch, "squeue", "case $* in *--steps*) ;; *) echo RUNNING ;; esac")
    assert running_evidence(view) == "it may be waiting for resources in SLURM job 7, started on another"
    answers(tmp_path, monkeypatch, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert (running_evidence(view), processes_of(view)) == ("", [])
    answers(tmp_path, monkeypatch, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert running_evidence(view) == "in SLURM job 7, state unknown: Unable to contact slurm controller"


def test_which_job_may_resume_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not launchers that are started again after a cancel. Dependencies of the user's own job have no effect."""
    run = RunDir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_DEPENDENCY", "afternotok:5")
    slurm_job = SlurmJob.current(is_allocation=True)
    assert (slurm_job.previous_job, slurm_job.needs_next_job()) == ("", False)
    write_job(run, "here", id="7")
    assert take_over(run, slurm_job, first=True)
    write_job(run, "here", id="7", cancelled=True)
    assert not take_over(run, slurm_job, first=True)


def test_a_dry_run_in_an_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    write_config(tmp_path)
    granted(tmp_path, monkeypatch)
    assert main(["run", "small.yaml", "--here", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "2 ranks on the CPU, 2 nodes x 1, in the allocation of SLURM job 7" in " ".join(output.split())
    assert "--jobid=7" in output
    assert main(["run", "small.yaml", "--dry-run"]) == 0
    assert "# This shell is in SLURM job 7: --here would use all of its 2 nodes." in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("ids", ["-", "0-", "\u00b2", "0-3,", "x"])
def test_an_allocation_that_slurm_describes_otherwise_is_refused(ids: str, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    granted(tmp_path, monkeypatch, DETAILS.format(gres="").replace("0-3,8", ids))
    with pytest.raises(LaunchError, match="the allocation of SLURM job 7 cannot be used"):
        find_allocation({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "\u00b2"})
