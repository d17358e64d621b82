"""torchrun's agents of one node, an attempt after the other, as the node launcher has them: started by a fork server
(`drumbeat.trainers.forkserver`), which has imported torch once and for all."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from drumbeat.configs.run.folder import Attempt
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.attempts.processes import deaf_and_tied, end_descendants

DEAF_TO = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that torchrun and its ranks never hear. Which of them SLURM sends to whom depends on its ProctrackType."""
ANSWER_SECONDS = 1.0
"""A server that does not tell of the end of its agent within this time has started none yet, or hangs."""


class Agents:
    """The fork server, and the agent that it runs now."""

    def __init__(self, plan: JobPlan, attempt: Attempt, node: int) -> None:
        """Starts the server, in a session of its own, deaf to SLURM's signals, and ended by the kernel if this process
        dies. What it prints goes to the log of the attempt it is started for."""
        command = [plan.python, "-m", "drumbeat.configs.importing", "drumbeat.trainers.forkserver", plan.run_dir]
        with open(attempt.node_log(node), "ab") as log:
            self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                           env=os.environ | plan.environment, cwd=plan.folder,
                                           start_new_session=True, preexec_fn=deaf_and_tied(*DEAF_TO))
        self.code: int | None = 0
        """The agent's exit code; None while it runs."""

    def start(self, words: list[str], environment: Mapping[str, str], log: Path) -> None:
        """Has torchrun started on these words."""
        assert self.server.stdin is not None
        self.code = None
        order = {"words": words, "environment": dict(environment), "log": str(log)}
        with suppress(BrokenPipeError):  # `poll` will find that the server has gone
            self.server.stdin.write(json.dumps(order).encode() + b"\n")
            self.server.stdin.flush()

    def poll(self, within: float = 0.0) -> int | None:
        """The agent's exit code; None where it still runs after so many seconds. A server that has gone took its agent
        along: then it is the server's."""
        assert self.server.stdout is not None
        if self.code is None and select.select([self.server.stdout], [], [], within)[0]:
            answer = self.server.stdout.readline()
            self.code = int(answer) if answer else self.server.wait() or 1
        return self.code

    def end(self) -> list[int]:
        """Kills what is left of the agent and of all below it; the server stays, if it is well. Returns the processes
        that do not end."""
        left = end_descendants(but=self.server.pid)
        if self.poll(ANSWER_SECONDS) is None:
            left = end_descendants()
        return left

    @property
    def alive(self) -> bool:
        """Whether there is a server to start the next agent."""
        return self.server.poll() is None

    def close(self) -> None:
        """Ends the server."""
        assert self.server.stdin is not None
        with suppress(BrokenPipeError):  # it has gone without reading the last order
            self.server.stdin.close()
        self.server.wait()
