"""The torchrun agents of one node, one for each attempt. A fork server (`drumbeat.trainers.forkserver`) starts them,
which has imported torch once for all attempts."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import AttemptStart
from drumbeat.launch.attempts.hang import FLIGHT_RECORDER
from drumbeat.launch.attempts.processes import child_setup, end_descendants
from drumbeat.launch.node.hanging import HangingRanks
from drumbeat.launch.node.rendezvous import network_variables
from drumbeat.launch.plan.job import torchrun_command

BLOCKED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that torchrun and its ranks never receive. SLURM's ProctrackType decides which of them it sends to whom."""
ANSWER_SECONDS = 1.0
"""A server that does not report the end of its agent within this time has started none yet, or hangs."""


def torchrun_order(plan: JobPlan, attempt: Attempt, node: int) -> tuple[list[str], dict[str, str]]:
    """The arguments and the variables with which torchrun starts the ranks of node number `node` of an attempt."""
    launch = AttemptStart.require(attempt.launch)
    command = torchrun_command(plan, attempt=str(attempt.number), node=str(node), address=launch.address,
                               port=str(launch.port))
    return command[3:], {  # without "python -m torch.distributed.run"
        "PET_SIGNALS_TO_HANDLE": "SIGQUIT",  # so that torchrun and its ranks keep ignoring SIGTERM
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1",  # seconds from SIGTERM, which ranks ignore, to SIGKILL
        "TORCH_FR_DUMP_TEMP_FILE": str(attempt.path / FLIGHT_RECORDER),
    } | network_variables(launch.address, os.environ)


class Agents:
    """The fork server and its current agent."""

    def __init__(self, plan: JobPlan, attempt: Attempt, node: int) -> None:
        """Starts the server in its own session, with SLURM's signals blocked; the kernel kills it if this process dies.
        Its output goes to the log of the attempt that it is started for."""
        command = [plan.python, "-m", "drumbeat.configs.importing", "drumbeat.trainers.forkserver", plan.run_dir]
        with open(attempt.node_log(node), "ab") as log:
            self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                           env=os.environ | plan.environment, cwd=plan.folder,
                                           start_new_session=True, preexec_fn=child_setup(*BLOCKED_SIGNALS))
        self.each = plan.topology.ranks_per_node
        self.hanging = HangingRanks(())
        self.code: int | None = 0
        """The agent's exit code; None while it runs."""

    @classmethod
    def ready(cls, before: Agents | None, plan: JobPlan, attempt: Attempt, node: int) -> Agents:
        """Those from before if their server is still there; otherwise new ones, whose server begins to import torch.
        Raises `OSError`."""
        return before if before and before.alive else cls(plan, attempt, node)

    def start(self, arguments: list[str], environment: Mapping[str, str], attempt: Attempt, node: int = 0
              ) -> None:
        """Starts torchrun with these arguments, for an attempt in which this is node number `node`."""
        assert self.server.stdin is not None
        self.code = None
        ranks = range(node * self.each, (node + 1) * self.each)
        self.hanging = HangingRanks([attempt.stacks(rank) for rank in ranks])
        order = {"arguments": arguments, "environment": dict(environment), "log": str(attempt.node_log(node))}
        with suppress(BrokenPipeError):  # `poll` will notice that the server has exited
            self.server.stdin.write(json.dumps(order).encode() + b"\n")
            self.server.stdin.flush()

    def poll(self, within: float = 0.0) -> int | None:
        """The agent's exit code; None if it still runs after `within` seconds. If the server has exited, the agent has,
        too, and the code is the server's."""
        assert self.server.stdout is not None
        if self.code is None and select.select([self.server.stdout], [], [], within)[0]:
            answer = self.server.stdout.readline()
            self.code = int(answer) if answer else self.server.wait() or 1
        return self.code

    def hang(self) -> bool:
        """Whether a rank of the current agent hangs."""
        return self.hanging.found()

    def end(self) -> list[int]:
        """Kills the agent and its descendants; the server stays if it responds. Returns the processes that cannot be
        killed."""
        left = end_descendants(but=self.server.pid)
        if self.poll(ANSWER_SECONDS) is None:
            left = end_descendants()
        return left

    @property
    def alive(self) -> bool:
        """Whether the server can start the next agent."""
        return self.server.poll() is None

    def close(self) -> None:
        """Ends the server, even while it imports torch. It has no agent any more, so nothing is lost."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.kill()
        self.server.wait()
        with suppress(BrokenPipeError):  # it has not read the last order
            self.server.stdin.close()
        self.server.stdout.close()
