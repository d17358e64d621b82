"""An attempt is a folder in the run's folder: one start of all ranks. All paths in it are derived here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.run.files import json_text, write_first, write_text
from drumbeat.configs.run.rank_records import IdleGpus
from drumbeat.configs.run.records import MORE_NODES, NodeDown, RankError, StopRequest


@dataclass(frozen=True)
class Attempt:
    """The folder of one start of all ranks."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def launch(self) -> Path:
        """Written by the first node's launcher once its port is known; the other nodes wait for it."""
        return self.path / "launch.json"

    @property
    def secret(self) -> Path:
        """Written by the first node's launcher before launch.json, and readable by the owner only: the secret by which
        the launchers of this attempt recognize each other (`launch/node/handshake.py`)."""
        return self.path / "secret"

    @property
    def first_step(self) -> Path:
        """Written by rank 0 after its first step: when, and from which checkpoint it resumed (0 for none)."""
        return self.path / "first_step.json"

    @property
    def heartbeat(self) -> Path:
        """Written by rank 0 about once a second: the progress of the attempt."""
        return self.path / "heartbeat.json"

    @property
    def ranks(self) -> Path:
        """Written by rank 0 every few seconds: how the ranks spend their time, and which are slow."""
        return self.path / "ranks.json"

    @property
    def versions(self) -> Path:
        """Written by rank 0 when it starts: the versions, the device and the precision that it computes with."""
        return self.path / "versions.json"

    @property
    def stop(self) -> Path:
        """Written to make the run save and stop; holds the reason."""
        return self.path / "stop.json"

    @property
    def profile(self) -> Path:
        """Written by `drumbeat profile`: a request to profile the next steps."""
        return self.path / "profile.json"

    def profiles(self) -> list[Path]:
        """The files of all profiles, by step."""
        return sorted(self.path.glob("profile-*.json"), key=lambda path: (len(path.name), path.name))

    def profiled(self, step: int) -> Path:
        """Written by rank 0: what a profile from this step on has measured."""
        return self.path / f"profile-{step}.json"

    def trace(self, step: int, rank: int) -> Path:
        """Written by the rank: torch's trace of a profile from this step on."""
        return self.path / f"profile-{step}-rank{rank}.json.gz"

    @property
    def steps(self) -> Path:
        """Written by rank 0: the loss of each step, and digests of its gradient (`step_log.py`)."""
        return self.path / "steps.bin"

    @property
    def saved(self) -> Path:
        """Written by rank 0 when the attempt ends normally: finished or stopped, and at which step."""
        return self.path / "saved.json"

    @property
    def verdict(self) -> Path:
        """Written by the first node's launcher when the attempt has ended: what happened and what happens next."""
        return self.path / "verdict.json"

    def node_up(self, node: int) -> Path:
        """Written by each node's launcher before its torchrun starts: its host, and if it reaches the first node."""
        return self.path / f"node{node}.up.json"

    def node_down(self, node: int) -> Path:
        """Written by each node's launcher when its torchrun has ended: its exit code."""
        return self.path / f"node{node}.down.json"

    @property
    def node_failed(self) -> Path:
        """Made with the first report of a torchrun that has failed or was ended: the other nodes look for it alone."""
        return self.path / "node_failed"

    def node_ready(self, node: int) -> Path:
        """Written by the launcher of a node that is left out, once it is well; the number is that among all nodes."""
        return self.path / f"ready{node}"

    @property
    def more_nodes(self) -> Path:
        """Made with the first of these files: the first node's launcher looks for this one only."""
        return self.path / "more_nodes"

    def idle_gpus(self, node: int) -> Path:
        """Written by each node's launcher if GPUs of the node are idle for long."""
        return self.path / f"node{node}.gpus.json"

    def log(self, rank: int) -> Path:
        return self.path / f"rank{rank}.log"

    def node_log(self, node: int) -> Path:
        """The output of torchrun, and of a rank before it has its own log."""
        return self.path / f"node{node}.log"

    def error(self, rank: int) -> Path:
        return self.path / f"rank{rank}.error.json"

    def replayed(self, rank: int) -> Path:
        """Written by a rank of a replay: what it computed in the step that is looked at."""
        return self.path / f"rank{rank}.step.json"

    def stacks(self, rank: int) -> Path:
        """The current step of a rank, and the stacks of its threads if it hangs."""
        return self.path / f"rank{rank}.stacks"

    def errors(self) -> list[RankError]:
        """The errors of all ranks that could write one, earliest first."""
        found = [RankError.read(path) for path in self.path.glob("rank*.error.json")]
        return sorted(filter(None, found), key=lambda error: error.time)

    def all_idle_gpus(self) -> list[IdleGpus]:
        """The GPUs that are idle for long, by node."""
        found = [IdleGpus.read(path) for path in sorted(self.path.glob("node*.gpus.json"))]
        return [one for one in found if one and one.minutes]

    def report(self, node: int, down: NodeDown) -> None:
        """Records that a node's torchrun has ended; if it failed, the other nodes end theirs."""
        down.write(self.node_down(node))
        if down.exit_code != 0:
            write_text(self.node_failed, "", durable=False)

    def request_stop(self, reason: str) -> None:
        """Asks the ranks to save at their next common step and exit. The first request stays, whoever else asks at the
        same time, unless it is for more nodes."""
        request = StopRequest(reason=reason)
        if not self.stop.exists() and write_first(self.stop, json_text(request.as_json())):
            return
        if (before := StopRequest.read(self.stop)) and before.reason == MORE_NODES != reason:
            request.write(self.stop)

    def report_ready(self, node: int) -> None:
        """Records that a node which is left out is well."""
        write_text(self.node_ready(node), "", durable=False)
        write_text(self.more_nodes, "", durable=False)
