"""Runs on a test cluster, and what is asked of it.

Those with a fake torchrun (tests/launch/fake_torchrun.py) are up in a second, so that what SLURM and the
launchers do to each other is tried on every kind of cluster; the others train.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from drumbeat.configs import importing
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import BackendName, Job, Result, Status, Verdict
from drumbeat.configs.run.view import View
from drumbeat.configs.site import Site
from drumbeat.launch.backends.allocation import InAllocation, find_allocation
from drumbeat.launch.backends.contract import Request, Submitted
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.slurm.client import steps
from tests.launch import fake_torchrun, tiny_plan
from tests.processes import alive, until
from tests.runs import write_job, write_state
from tests.slurm.cluster import Cluster
from tests.slurm.layout import CPUS
from tests.tiny import drumbeat, latest, write_config

START = 180.0
"""Seconds in which two ranks that import torch have to be up, on two cores that others use as well."""


TIME_LIMIT = ("stopped (at step 1: the job's time limit is near|without saving: the job's time limit came before its "
              "(first step|next checkpoint); there is no checkpoint)")
"""Matches the verdict at a limit of a minute. On a slow machine the time is over before the ranks are up."""

NO_REQUEUE = {"requeue": False, "no-requeue": True}
"""sbatch's options for a job that SLURM does not queue again; some sites have JobRequeue=0, or a plugin, for that."""


class StandInRun:
    """One fake rank on each of the nodes."""

    backend: BackendName

    def __init__(self, cluster: Cluster, folder: Path, nodes: int = 2, min_nodes: int | None = None) -> None:
        self.cluster = cluster
        self.nodes, self.min_nodes = nodes, min_nodes
        self.folder = folder
        self.run = RunDir(folder / "runs" / f"{folder.name}-run")
        (self.run.path / "fake").mkdir(parents=True)
        self.job_id = ""
        """SLURM's id."""
        self.seen: set[int] = set()
        """All processes of the attempts that the test has waited for."""

    def plan(self, *, cpus: int, site: Site, device: str = "cpu", **fields: Any) -> JobPlan:
        """The plan whose request is made: the one that is written has the fake Python."""
        plan = JobPlan(run_dir=str(self.run.path), name="fake", backend=self.backend,
                       site=site,
                       topology=Topology(nodes=self.nodes, ranks_per_node=1, device=device, cpus_per_rank=cpus,
                                         min_nodes=self.min_nodes),
                       environment=importing.environment(str(ROOT), []), folder=str(self.folder), **fields)
        self.run.config.write_text(tiny_plan.CONFIG)
        replace(plan, python=fake_torchrun.install(self.folder)).write(self.run.plan)
        return plan

    def up(self, attempt: int = 0, nodes: int | None = None) -> dict[str, int]:
        """Waits until an attempt is up, on so many nodes; the name and the process id of each of its processes."""
        helpers = {f"helper{rank}" for rank in range(nodes or self.nodes)}
        until(lambda: helpers <= fake_torchrun.pids(self.run.path, attempt).keys())
        pids = fake_torchrun.pids(self.run.path, attempt)
        self.seen |= set(pids.values())
        return pids

    def let_finish(self) -> None:
        """Has the ranks end as if their training was over, those of the next attempts as well."""
        (self.run.path / "fake" / "finish").touch()

    def fail(self, rank: int, message: str) -> None:
        """Has a rank fail in each attempt."""
        (self.run.path / "fake" / f"fail{rank}").write_text(message)

    def launcher(self, node: int, attempt: int = 0) -> int:
        """The process id of a node's launcher: the parent of what starts torchrun."""
        process = fake_torchrun.pids(self.run.path, attempt)[f"agent{node}"]
        for _ in range(2):
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        return process

    def restarts(self) -> int:
        """How often SLURM has queued the job again."""
        found = re.search(r"Restarts=(\d+)", self.cluster.run("scontrol", "show", "job", self.job_id))
        return int(found[1]) if found else 0

    def verdict(self, attempt: int) -> str:
        """The message of an attempt's verdict."""
        return Verdict.require(self.run.attempt(attempt).verdict).message

    def state(self) -> str:
        return Status.require(self.run.status).state

    def attempts(self) -> int:
        return len(list(self.run.attempts.iterdir()))

    def left(self) -> list[int]:
        """Which processes of the attempts are still there."""
        return [pid for pid in self.seen if alive(pid)]


class SubmittedRun(StandInRun):
    """Submitted as the command line does it."""

    backend = "slurm"

    def __init__(self, cluster: Cluster, folder: Path, restarts: int = 3, cpus: int = CPUS, nodes: int = 2,
                 min_nodes: int | None = None, device: str = "cpu", **site: Any) -> None:
        super().__init__(cluster, folder, nodes, min_nodes)
        site = {"time_minutes": 10, **site}
        self.request = Slurm().request(self.plan(cpus=cpus, site=Site(**site), restarts=restarts, device=device))
        self.resume()

    def resume(self) -> None:
        """Submits it, for the first time or once more."""
        write_state(self.run, "pending")
        write_job(self.run, "slurm")
        self.job_id = str(Slurm().submit(self.request).id)
        write_job(self.run, "slurm", id=self.job_id)

    def up_again(self, attempt: int) -> None:
        """Waits until an attempt is up after SLURM has queued the job again."""
        self.cluster.start_again(self.job_id)
        self.up(attempt)
        assert self.restarts() == 1

    def finish(self) -> None:
        self.let_finish()
        self.cluster.wait(self.job_id, "COMPLETED")
        assert self.state() == "finished"
        assert self.left() == []
        assert fake_torchrun.received_signals(self.run.path) == {}, "none but the launcher may hear signals"

    def successor(self) -> str:
        """The id of the job that follows, once it is queued."""
        until(lambda: Job.require(self.run.job).next_job)
        return str(Job.require(self.run.job).next_job)

    def all_gone(self) -> None:
        """Waits until no job of the cluster is pending or running."""
        until(lambda: not self.cluster.run("squeue", "--noheader").strip())


class AllocationRun(StandInRun):
    """Started in an allocation as the command line does it."""

    backend = "here"

    def __init__(self, cluster: Cluster, folder: Path, job: str, **site: Any) -> None:
        super().__init__(cluster, folder)
        self.job_id = job
        self.request = InAllocation().request(self.plan(
            cpus=1, site=Site(**site), restarts=3, allocation=find_allocation({**os.environ, "SLURM_JOB_ID": job})))
        self.started = self.resume()

    def resume(self) -> Submitted:
        """Starts it, for the first time or once more."""
        write_state(self.run, "pending")
        write_job(self.run, "here", id=self.job_id, host=socket.gethostname())
        self.started = InAllocation().submit(self.request)
        return self.started

    def gone(self) -> None:
        """Waits until nothing of the run is left; the allocation is as it was."""
        self.seen |= {pid for pids in map(partial(fake_torchrun.pids, self.run.path), range(3))
                      for pid in pids.values()}
        until(lambda: not self.started.running())
        until(lambda: self.left() == processes_of(View.read(self.run)) == steps(self.job_id, self.run.id) == [])
        assert (self.cluster.state(self.job_id), self.restarts()) == ("RUNNING", 0)

    def finish(self) -> None:
        self.let_finish()
        self.gone()
        assert self.state() == "finished"
        assert fake_torchrun.received_signals(self.run.path) == {}, "none but the launcher may hear signals"


class TrainingRun:
    """The tiny experiment on two nodes or more, or on "1-3" of them, with faults injected `at` these counts of losses.
    """

    def __init__(self, cluster: Cluster, folder: Path, *arguments: str, at: str = "[]", how: str = "wait",
                 nodes: int | str = 2) -> None:
        self.cluster, self.folder = cluster, folder
        output = drumbeat(folder, str(write_config(folder)), "--slurm", "--nodes", str(nodes), "--procs", "1",
                        "task._target_=tests.tiny.Fuse", f"task.folder={folder}", f"task.at={at}", f"task.how={how}",
                        "task.rank=1", *arguments).stdout
        self.job_id = submitted_job(output)

    @property
    def run(self) -> RunDir:
        return latest(self.folder)

    def reach(self, blown: int = 0, seconds: float = START) -> None:
        """Waits for fault number `blown`, which the tiny experiment injects in the middle of an epoch."""
        until((self.folder / f"blown-{blown}").exists, seconds=seconds)

    def verdict(self, attempt: int) -> str:
        return Verdict.require(self.run.attempt(attempt).verdict).message

    def go_on(self) -> None:
        """Lets the ranks go on once the launcher has asked them to stop."""
        until(self.run.attempt(0).stop.exists)
        (self.folder / "go").touch()

    def result(self, seconds: float = 2 * START) -> Result:
        self.cluster.wait(self.job_id, "COMPLETED", timeout=seconds)
        return Result.require(self.run.result)


def launcher_on(job: str, node: int) -> int:
    """The process id of the launcher of a job on its node of this number, which may have no ranks."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_NODEID={node}".encode()}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            if b"submitit.core._submit" in command and command[0] != b"srun" and (
                    wanted <= {*(process / "environ").read_bytes().split(b"\0")}):
                found.append(int(process.name))
    assert len(found) == 1
    return found[0]


def submitted_job(output: str) -> str:
    """The id of the job that `drumbeat run --slurm` says it has submitted."""
    found = re.search(r"SLURM job\s+(\d+)", output)
    assert found, output
    return found[1]


def output_of(folder: Path, *arguments: str, expect: int = 0, **environment: str) -> str:
    """What `drumbeat ARGUMENTS` prints, typed in `folder`, with single blanks between its words."""
    done = subprocess.run([sys.executable, "-m", "drumbeat", *arguments], cwd=folder, capture_output=True, text=True,
                          check=False, env=os.environ | environment)
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
    return " ".join((done.stdout + done.stderr).split())


def small_request(folder: Path, *assignments: str, **site: Any) -> Request:
    """The small config's job, with its run in `folder`; what it would run is never reached."""
    planned = tiny_plan.plan(folder, *(assignments or ("launch.gpus=0", "launch.nodes=1")), backend="slurm",
                         site=Site(**{"time_minutes": 5, **site}))
    return Slurm().request(JobPlan(**vars(planned) | {"run_dir": str(folder / "run"), "folder": str(folder)}))
