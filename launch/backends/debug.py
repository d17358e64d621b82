"""--debug: this process is the only rank, so that breakpoints work."""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from drumbeat.configs.importing import add_user_path
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Saved
from drumbeat.configs.run.view import View
from drumbeat.launch.attempts.beside import beside
from drumbeat.launch.backends.contract import Request, Submitted
from drumbeat.launch.backends.environment import environment
from drumbeat.launch.backends.local import OnMachine
from drumbeat.launch.backends.processes import has_open, processes_of
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

    def processes(self, view: View) -> list[int]:
        """The run's processes, with the one that trains in itself: it holds the run's folder open."""
        found = processes_of(view)
        process = view.job.pid if view.job and view.job.is_here else None
        return [*found, process] if process and has_open(process, view.run.path) else found


def train(plan: JobPlan) -> None:
    """Trains in this process until the run ends. Raises what the training raises."""
    run = RunDir(Path(plan.run_dir))
    with beside(run, plan, wait=False), _open(run.path), hold_gpus(plan) as plan, environment(plan):
        add_user_path()
        while _attempt(run):
            pass


def _attempt(run: RunDir) -> bool:
    """One attempt. Returns whether another one trains the next part of the run. Raises what the training raises."""
    attempt = run.claim_attempt()
    before = signal.signal(signal.SIGTERM, lambda number, frame: attempt.request_stop("stopped"))
    record = partial(run.write_status, attempt=attempt.number)
    record("running")
    try:
        importlib.import_module("drumbeat.trainers.worker").main(str(run.path), attempt.number)
        saved = Saved.require(attempt.saved)
        if saved.continues and not attempt.stop.exists():
            return True
        record(saved.state)
    except KeyboardInterrupt:
        record("cancelled", verdict="interrupted from the terminal")
    except BaseException as error:
        record("failed", verdict=f"{type(error).__name__}: {error}")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return False


@contextmanager
def _open(folder: Path) -> Iterator[None]:
    """Holds a folder open, which shows that this process belongs to the run."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.close(handle)
