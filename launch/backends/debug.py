"""--debug: this process is the only rank, so that breakpoints work."""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any

from drumbeat.configs.importing import add_user_path
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Job, Saved
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.contract import Request, Submitted
from drumbeat.launch.backends.environment import environment
from drumbeat.launch.backends.local import OnMachine
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.plan.gpu_locks import hold_gpus
from drumbeat.launch.plan.job import Machine


class InProcess(OnMachine):
    """Trains in this process."""

    flag = "--debug"
    module = ""
    name = "debug"

    def resources(self, machine: Machine) -> Machine:
        return dataclasses.replace(machine, one_rank=True)

    def location(self, plan: JobPlan) -> str:
        return "in this process"

    def request(self, plan: JobPlan) -> Request:
        text = f"drumbeat.trainers.worker.main({plan.run_dir!r}, ATTEMPT)"
        return Request(plan=plan, text=text, sections=(("call", text),))

    def submit(self, request: Request) -> Submitted:
        return Submitted(id=None, pid=os.getpid(), work=partial(train, request.plan))

    def layout(self, plan: JobPlan) -> dict[str, Any]:
        """Empty: the single rank is not what the config asks for."""
        return {}

    def other_evidence(self, view: View, job: Job) -> str:
        if job.host != socket.gethostname():
            return super().other_evidence(view, job)
        return f"process {job.pid}, in --debug" if job.pid and Path(f"/proc/{job.pid}").exists() else ""

    def end(self, view: View) -> list[str]:
        for process in self.processes(view):
            if view.job and process == view.job.pid:
                os.kill(process, signal.SIGKILL)
        return super().end(view)

    def processes(self, view: View) -> list[int]:
        found = processes_of(view)
        process = view.job.pid if view.job else None
        return [*found, process] if process and in_debug(process) else found


def in_debug(process: int) -> bool:
    """Whether this process is a run with --debug, and not another one that has reused the process id."""
    try:
        return b"--debug" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def train(plan: JobPlan) -> None:
    """Trains in this process until the run ends. Raises what the training raises."""
    run = RunDir(Path(plan.run_dir))
    with hold_gpus(plan) as plan, environment(plan):
        attempt = run.claim_attempt()
        record = partial(run.write_status, attempt=attempt.number)
        record("running")
        add_user_path()
        try:
            importlib.import_module("drumbeat.trainers.worker").main(plan.run_dir, attempt.number)
            record(Saved.require(attempt.saved).state)
        except KeyboardInterrupt:
            record("cancelled", verdict="interrupted from the terminal")
        except BaseException as error:
            record("failed", verdict=f"{type(error).__name__}: {error}")
            raise
