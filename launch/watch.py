"""The attached view of a local run: rank 0's log, and a progress bar drawn from status.json."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from configs.rundir import RunDir, read_json
from launch.executors import Job
from launch.plan import Where
from launch.processes import descendants
from launch.runs import clock, processes_of

LOOK_SECONDS = 0.25
EXIT_CODES = {"finished": 0, "stopped": 130}


def announce(run: RunDir, job: Job, where: Where) -> None:
    """What was started, and what to type next."""
    if where == "debug":
        print(f"run {run.id}: {read_json(run.status).get('state')}")
        return
    kind = "SLURM job" if where == "slurm" else "process"
    print(f"submitted {kind} {job.id}\nrun folder {run.path}\n")
    print(f"drumbeat status {run.id}\ndrumbeat logs -f {run.id}\ndrumbeat stop {run.id}")


def follow(run: RunDir, job: Job) -> int:
    """Shows the run until it ends; its exit code. The first Ctrl-C asks it to save and leave, the second ends it."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"run {run.id}   [dim]{run.path}[/dim]")
    view = View(run, console)
    asked = False
    with view.progress:
        while job.running():
            try:
                view.update()
                time.sleep(LOOK_SECONDS)
            except KeyboardInterrupt:
                if asked:
                    end_now(run, job)
                    break
                asked = True
                attempt = run.newest_attempt()
                if attempt is not None:
                    attempt.ask_to_stop("stopped")
                console.print("stopping: saves after this step and leaves. Ctrl-C again ends it at once.")
        view.update()
    return view.ended()


def end_now(run: RunDir, job: Job) -> None:
    """Kills all processes of a local run; its checkpoints stay."""
    for process in [*descendants(int(job.id or 0)), *processes_of(run)]:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
    run.write_status(state="cancelled", verdict="cancelled from the terminal")


class View:
    """What of the run has been shown so far."""

    def __init__(self, run: RunDir, console: Console) -> None:
        self.run = run
        self.console = console
        self.attempt = -1
        self.seen = 0
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[details]}"), console=console, transient=True, disable=not console.is_terminal)
        self.bar: TaskID = self.progress.add_task("starting", total=None, details="")

    def update(self) -> None:
        """New log lines, and the bar as status.json has it."""
        attempt = self.run.newest_attempt()
        if attempt is not None and attempt.number != self.attempt:
            if self.attempt >= 0:
                self.console.print(f"attempt {attempt.number}: {read_json(self.run.status).get('verdict') or 'restarting'}")
            self.attempt, self.seen = attempt.number, 0
        if attempt is not None and attempt.log(0).exists():
            with open(attempt.log(0), "rb") as file:
                file.seek(self.seen)
                new = file.read()
            whole = new[:new.rfind(b"\n") + 1]
            self.seen += len(whole)
            if whole:
                self.console.print(whole.decode(errors="replace").rstrip("\n"), markup=False)
        self._draw(read_json(self.run.status))

    def ended(self) -> int:
        """The last lines: how it ended and what to type next."""
        status, result = read_json(self.run.status), read_json(self.run.result)
        state = str(status.get("state"))
        if state not in (*EXIT_CODES, "failed", "cancelled"):
            state = "failed"
            self.run.write_status(state=state, verdict="the node launcher was killed")
            status = read_json(self.run.status)
        self.console.print()
        if state == "finished":
            for name in ("best", "test"):
                if values := result.get(name):
                    numbers = "  ".join(f"{key} {value:.4f}" for key, value in values.items() if isinstance(value, float))
                    at = f"  (step {values['step']}, {values['phase']})" if "step" in values else ""
                    self.console.print(f"{name:<8}{numbers}{at}")
            self.console.print(f"result  {self.run.result}")
            self.console.print(f"curves  tensorboard --logdir {self.run.tensorboard}", soft_wrap=True)
        else:
            self.console.print(f"{state}: {status.get('verdict') or 'see the logs'}", markup=False)
            if state == "failed" and (attempt := self.run.newest_attempt()) is not None:
                self.console.print(f"logs    {attempt.path}")
            self.console.print(f"resume  drumbeat run --resume {self.run.id}")
        return EXIT_CODES.get(state, 1)

    def _draw(self, status: dict[str, Any]) -> None:
        steps = status.get("steps")
        if steps:
            details = (f"step {status.get('step', 0):,}/{steps:,}  loss {status.get('loss', float('nan')):.4f}  "
                       f"{status.get('samples_per_second', 0):.0f}/s  {clock(status.get('eta_seconds', 0))} left")
            self.progress.update(self.bar, total=steps, completed=status.get("step", 0), details=details,
                                 description=str(status.get("phase", "")))
