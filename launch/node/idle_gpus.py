"""Notices GPUs of a node that compute nothing for long, by asking nvidia-smi once a minute.

The launcher does it, not the ranks: they may hang, or wait for a disk. nvidia-smi is a part of the driver, and says for
how much of the last second or less a kernel was running (`man nvidia-smi`, "Utilization"). A rank that waits for the
others in NCCL runs a kernel, so its GPU is not idle. MIG instances have no utilization, and are left out.

Untested on a GPU: the tests have a program in nvidia-smi's place.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.files import write_soon
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.processes import node_name
from drumbeat.configs.run.rank_records import IdleGpus
from drumbeat.launch.attempts.verdict import IDLE_GPU
from drumbeat.launch.plan.gpus import SMI_SECONDS

CHECK_SECONDS = 60.0
LEAST_CHECKS = 2
"""A GPU that is idle in fewer checks in a row is not idle for long: between two steps each is for a moment."""
IDLE_PERCENT = 5
"""A GPU is idle if its utilization is less than this."""
TOLD_MINUTES = 10.0
"""The time after which status and log tell of an idle GPU; earlier if the config asks for a stop before."""


@dataclass
class GpuWatch:
    """The GPUs of one node, in one attempt."""

    attempt: Attempt
    node: int
    ids: str
    """Those that the run uses, as nvidia-smi takes them: "0,1"; '' on the CPU."""
    stop_minutes: float | None
    """`watchdog.idle_gpu_minutes`."""
    idle_checks: dict[str, int] = field(default_factory=dict)
    """How many checks in a row found a GPU idle, by its number. Checks are counted and not seconds, so that a time for
    which the job is suspended does not count."""
    asked: float = field(default_factory=time.monotonic)
    asking: subprocess.Popen[str] | None = None
    told: bool = False

    @classmethod
    def of(cls, plan: JobPlan, attempt: Attempt, node: int) -> GpuWatch:
        """Of the GPUs that the run's ranks on this node use."""
        ids = (os.environ | plan.environment).get("CUDA_VISIBLE_DEVICES")
        most = plan.topology.ranks_per_node if plan.topology.device == "cuda" else 0
        used = (list(map(str, range(most))) if ids is None else ids.split(","))[:most]
        whole = not any(one.startswith("MIG-") for one in used)
        return cls(attempt, node, ",".join(used) if whole else "", plan.idle_gpu_minutes)

    def check(self) -> None:
        """Asks nvidia-smi if it is time, or reads its answer; never waits for it. If GPUs are idle for long, writes
        which, and asks the run to stop if the config says so."""
        now = time.monotonic()
        if self.asking is None:
            if self.ids and now - self.asked >= CHECK_SECONDS:
                self.asked = now
                self.asking = _ask(self.ids)
        elif self.asking.poll() is not None:
            assert self.asking.stdout
            with self.asking.stdout as answer:
                self._count(answer.read())
            self.asking = None
        elif now - self.asked > SMI_SECONDS:  # it waits for the driver; the next one is started when it has ended
            self.asking.kill()

    def _count(self, answer: str) -> None:
        """Takes nvidia-smi's answer: for each GPU a line with its number and its utilization in percent."""
        found = [line.split(", ") for line in answer.splitlines()]
        self.idle_checks = {name: self.idle_checks.get(name, 0) + 1 for name, *percent in found
                            if percent and percent[0].isdecimal() and int(percent[0]) < IDLE_PERCENT}
        minutes = {name: checks * CHECK_SECONDS / 60 for name, checks in self.idle_checks.items()}
        stop = math.inf if self.stop_minutes is None else self.stop_minutes
        long = {name: idle for name, idle in minutes.items()
                if idle >= min(stop, TOLD_MINUTES) and self.idle_checks[name] >= LEAST_CHECKS}
        if long or self.told:
            record = IdleGpus(node=node_name(), minutes=long)
            write_soon(self.attempt.idle_gpus(self.node), json.dumps(record.as_json()) + "\n", 0)
        if long and not self.told:
            print(f"idle       {record.message}", flush=True)
        self.told = bool(long)
        if max(long.values(), default=0.0) >= stop:
            self.attempt.request_stop(IDLE_GPU)


def _ask(ids: str) -> subprocess.Popen[str] | None:
    """Starts nvidia-smi; None if it is missing."""
    program = shutil.which("nvidia-smi")
    command = [program or "", "--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits",
               f"--id={ids}"]
    with suppress(OSError):
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                text=True) if program else None
    return None
