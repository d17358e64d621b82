"""A run with a fake torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Topology
from drumbeat.configs.run.records import Status, Verdict
from tests.launch import fake_torchrun
from tests.processes import alive, until
from tests.runs import write_plan

ROOT = Path(__file__).parents[3]


LAUNCHER = """
import sys
from pathlib import Path
import drumbeat.launch.node.handshake
import drumbeat.launch.node.idle_gpus
import drumbeat.launch.node.launcher
import drumbeat.launch.node.members
import drumbeat.launch.node.time_limit
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
drumbeat.launch.node.launcher.FIRST_NODE_TIMEOUT = float(sys.argv[4])
drumbeat.launch.node.handshake.TIMEOUT = float(sys.argv[5])
if drumbeat.launch.node.handshake.TIMEOUT < 60:
    drumbeat.launch.node.launcher.DOWN_TIMEOUT = 1.0
drumbeat.launch.node.launcher.EXIT_TIMEOUT = 0.5
drumbeat.launch.node.launcher.WIDEN_SECONDS = 0.0
drumbeat.launch.node.members.CHECK_SECONDS = 0.1
drumbeat.launch.node.idle_gpus.CHECK_SECONDS = 0.2
drumbeat.launch.node.time_limit.SUSPENDED_SECONDS = drumbeat.launch.node.time_limit.REQUEUE_SECONDS = 1.0
run = RunDir(Path(sys.argv[1]))
end = run.path / "fake" / "end"
drumbeat.launch.node.time_limit.CHECK_SECONDS = drumbeat.launch.node.time_limit.RECHECK_SECONDS = 0.0
launcher = drumbeat.launch.node.launcher.Launcher(run, JobPlan.require(run.plan), node=int(sys.argv[2]))
if launcher.first:
    launcher.ask_end = lambda known: float(end.read_text()) if end.exists() else float(sys.argv[3])
print(launcher.run_attempts())
"""


class Stage:
    """A run with the fake torchrun, and its launchers."""

    def __init__(self, folder: Path, *, nodes: int = 1, ranks_per_node: int = 2, restarts: int = 3,
                 device: Literal["cpu", "cuda"] = "cpu", idle_gpu_minutes: float | None = None,
                 min_nodes: int | None = None, connect_seconds: float = 120.0) -> None:
        self.run = RunDir(folder / "run")
        self.nodes, self.ranks = nodes, nodes * ranks_per_node
        self.connect_seconds = connect_seconds
        (self.run.path / "fake").mkdir(parents=True)
        topology = Topology(nodes=nodes, ranks_per_node=ranks_per_node, device=device, cpus_per_rank=1,
                            min_nodes=min_nodes)
        write_plan(self.run, topology=topology, restarts=restarts, idle_gpu_minutes=idle_gpu_minutes,
                   python=fake_torchrun.install(folder))
        self.launchers: list[subprocess.Popen[str]] = []
        self.seen: set[int] = set()

    def launch(self, *nodes: int, job: str = "7", end: float = float("inf"), patience: float = 60.0,
               named: bool = False) -> None:
        """Starts the launchers of these nodes; of all where none is given. They wait for the first one for so many
        seconds. If they are `named`, each node has a name, which is its address: 127.0.0.1, 127.0.0.2, ..."""
        names = [f"127.0.0.{node + 1}" for node in range(self.nodes)]
        for node in nodes or range(self.nodes):
            self.launchers.append(subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(self.run.path), str(node), str(end), str(patience),
                 str(self.connect_seconds)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=os.environ | {"SLURM_JOB_ID": job} | ({
                    "SLURMD_NODENAME": names[node], "SLURM_JOB_NODELIST": ",".join(names)} if named else {})))

    def up(self, attempt: int = 0, ranks: int | None = None) -> dict[str, int]:
        """Waits until an attempt is up, on so many ranks; who is who."""
        names = {f"{name}{rank}" for rank in range(ranks or self.ranks) for name in ("rank", "helper")}
        until(lambda: names <= fake_torchrun.pids(self.run.path, attempt).keys())
        pids = fake_torchrun.pids(self.run.path, attempt)
        self.seen |= set(pids.values())
        return pids

    def end(self) -> list[str]:
        """Waits for the launchers; what each one said to do next."""
        return [launcher.communicate(timeout=60)[0].strip() for launcher in self.launchers]

    def finish(self) -> None:
        (self.run.path / "fake" / "finish").touch()

    def verdict(self, attempt: int) -> Verdict:
        return Verdict.require(self.run.attempt(attempt).verdict)

    def state(self) -> str:
        return Status.require(self.run.status).state

    def left(self) -> list[int]:
        """Which of the attempts' processes are still there."""
        for path in (self.run.path / "fake").glob("*.pid"):
            self.seen.add(int(path.read_text()))
        return [pid for pid in self.seen if alive(pid)]
