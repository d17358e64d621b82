"""The attached view of a local run: rank 0's log, and a progress bar drawn from status.json."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from drumbeat.configs.determinism import claim
from drumbeat.configs.errors import hang
from drumbeat.configs.layers import short
from drumbeat.configs.run.folder import ENDED, Attempt, RunDir, read_json
from drumbeat.launch.attempts.verdict import Verdict
from drumbeat.launch.backends.executors import Job
from drumbeat.launch.plan.job import Where
from drumbeat.launch.runs.find import LAUNCHERS, command, processes_of, still_runs
from drumbeat.launch.runs.logs import Tail
from drumbeat.launch.runs.status import clock
from drumbeat.launch.runs.stop import end_processes, end_steps
from drumbeat.launch.slurm.client import SilentError

LOOK_SECONDS = 0.25
EXIT_CODES = {"finished": 0, "stopped": 130, "cancelled": 130}
"""Any other end is a failure, and 1. 130 is what shells say of a program that was interrupted."""


def introduce(run: RunDir, processes: str) -> None:
    """What is about to run."""
    print(f"run        {run.path.parent.name}/{run.id}: {processes}\nfolder     {short(run.path)}", flush=True)
    if words := claim(run):
        print(f"note       {hang('', words, indent=11)}", flush=True)


def announce(run: RunDir, job: Job, where: Where) -> None:
    """What was started without a view, and what to type next."""
    print(f"{'SLURM job' if where in ('here', 'slurm') else 'process':<11}{job.id}\n")
    print("\n".join(command(verb, run) for verb in ("status", "logs -f", "stop")), flush=True)


def follow(run: RunDir, job: Job, before: Attempt | None) -> int:
    """Shows the run until it ends; its exit code. The first Ctrl-C asks it to save and leave, the second ends it.
    `before` is the newest attempt of the time before this job, which is not shown."""
    interrupts: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        console = Console(highlight=False, soft_wrap=True, markup=False)
        if console.is_terminal:
            console.print(f"           Ctrl-C saves and stops; {_without_us(run)}\n")
        view = View(run, console, before)
        with view.progress:
            _watch(view, job, interrupts)
    finally:
        signal.signal(signal.SIGINT, usual)
    cancelled = read_json(run.job).get("cancelled")  # by a `cancel` typed elsewhere
    _end(run, job)  # there is nothing left, unless the node launcher was killed
    if cancelled and read_json(run.status).get("state") not in ENDED:
        run.write_status(state="cancelled", verdict=f"cancelled, {_save_of(run)}")
    console.print()
    return conclude(run)


def _watch(view: View, job: Job, interrupts: list[int]) -> None:
    """Until the run ends. Every Ctrl-C adds to `interrupts`."""
    told = False
    while job.running() or processes_of(view.run, LAUNCHERS):
        if interrupts and not told:
            told = True
            view.console.print(f"stopping: the run saves after this step and leaves. To go on with it:\n"
                               f"{command('resume', view.run)}\nCtrl-C again ends it at once.")
        if len(interrupts) > 1:
            view.console.print("ending all processes ...")
            _end(view.run, job)
            view.run.write_status(state="cancelled", verdict=f"ended from the terminal, {_save_of(view.run)}")
            break
        if interrupts and (attempt := view.newest()) is not None:
            attempt.ask_to_stop("stopped")
        view.update()
        time.sleep(LOOK_SECONDS)
    view.update()


def _end(run: RunDir, job: Job) -> None:
    """Ends a run at once; its checkpoints stay. Processes that a dead disk or driver holds are named."""
    assert job.id is not None
    try:
        left = list(map(str, end_processes(run, int(job.id)))) if not _in_allocation(run) else (
            end_steps(run) if still_runs(run) else [])
    except SilentError as silence:
        end_processes(run)
        left = [f"of SLURM job {job.id}, which cannot be asked about ({silence}),"]
    if left:
        print(f"processes {', '.join(left)} do not end", flush=True)


def _in_allocation(run: RunDir) -> bool:
    return read_json(run.job).get("where") == "here"


def _without_us(run: RunDir) -> str:
    return "the run ends with the allocation" if _in_allocation(run) else "closing this terminal leaves the run going"


def _save_of(run: RunDir) -> str:
    attempt = run.newest_attempt()
    saved = read_json(attempt.saved) if attempt else {}
    return f"saved at step {saved['step']:,}" if saved else "without a save"


def conclude(run: RunDir) -> int:
    """The last lines: how the run ended, and what to type next. Returns the exit code."""
    status = read_json(run.status)
    if status.get("state") not in ENDED:
        status = {"state": "failed", "verdict": _not_started(run) or "the node launcher was killed"}
        run.write_status(**status)
    state = status["state"]
    words = str(status.get("verdict") or f"at step {status.get('step', 0):,}")
    words = words.removeprefix(f"{state} ").removesuffix(": stopped")
    rows = _finished(run) if state == "finished" else [(state, hang("", words, indent=11))]
    if state == "failed" and (attempt := run.newest_attempt()) is not None:
        rows += _where_it_failed(attempt)
    if state != "finished":
        rows.append(("resume", command("resume", run)))
    print("\n".join(f"{name:<11}{text}" for name, text in rows), flush=True)
    return EXIT_CODES.get(state, 1)


def _not_started(run: RunDir) -> str:
    """What srun had against starting a run in an allocation, in its own words; '' where it was started."""
    log = run.submitit / "controller.log"
    if read_json(run.status).get("state") != "pending" or not _in_allocation(run) or not log.exists():
        return ""
    said = [line for line in log.read_text(errors="replace").splitlines() if "error" in line]
    return f"not started: {said[-1].removeprefix('srun: ')}" if said else ""


def _where_it_failed(attempt: Attempt) -> list[tuple[str, str]]:
    """The line of code, and the log to read: of the rank the verdict names, else torchrun's own, else the folder."""
    verdict, errors = Verdict.read(attempt), attempt.errors()
    rank = verdict.rank if verdict else errors[0]["rank"] if errors else -1
    first = next((error for error in errors if error["rank"] == rank), {})
    frames = re.findall(r'File "(.+)", line (\d+), in (.+)', str(first.get("traceback", "")))
    own = [frame for frame in frames if "site-packages" not in frame[0]] or frames
    logs = [*([attempt.log(rank)] if rank >= 0 else []), attempt.node_log(0)]
    log = next((log for log in logs if log.exists() and log.stat().st_size), attempt.path)
    return [*(("at", f"{short(Path(file))}:{line}, in {name}") for file, line, name in own[-1:]), ("log", short(log))]


def _finished(run: RunDir) -> list[tuple[str, str]]:
    result = read_json(run.result)
    steps = int(result.get("steps", 0))
    rows = [("finished", f"{steps:,} step{'s' * (steps != 1)}, {samples_text(result)}")]
    for name in ("best", "test"):
        if values := result.get(name):
            numbers = "  ".join(f"{key} {value:.4f}" for key, value in values.items() if isinstance(value, float))
            at = f"  (step {values['step']:,}, {values['phase']})" if "step" in values else ""
            rows.append((name, numbers + at))
    if words := claim(run):
        rows.append(("note", hang("", words, indent=11)))
    split = "" if result.get("test") else f" --split {'validation' if result.get('best') else 'train'}"
    return [*rows, ("result", short(run.result)), ("curves", command("tensorboard", run)),
            ("report", command("report", run)), ("evaluate", command("evaluate", run) + split)]


def samples_text(result: dict[str, Any]) -> str:
    """How many samples a run has seen, which may be some more than its epochs hold."""
    beyond = result.get("overshoot")
    return f"{result.get('samples_seen', 0):,} samples" + (
        f" ({beyond:,} past the end of a phase, in its last batch)" if beyond else "")


class View:
    """What of the run has been shown so far."""

    def __init__(self, run: RunDir, console: Console, before: Attempt | None) -> None:
        self.run = run
        self.console = console
        self.before = before
        self.attempt: Attempt | None = None
        self.log: Tail | None = None
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=12), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[details]}"), console=console, transient=True, disable=not console.is_terminal)
        self.bar: TaskID = self.progress.add_task("starting", total=None, details="")

    def newest(self) -> Attempt | None:
        """The newest attempt of the job that is followed."""
        newest = self.run.newest_attempt()
        return None if newest == self.before else newest

    def update(self) -> None:
        """New log lines, and the bar as status.json has it."""
        newest = self.newest()
        if newest is not None and newest != self.attempt:
            self._print_log()
            if self.attempt is not None:
                words = read_json(self.attempt.verdict).get("words", "the attempt failed")
                self.console.print(f"restarting: {words}")
            self.attempt, self.log = newest, Tail(newest.log(0))
        self._print_log()
        self._draw(read_json(self.run.status))

    def _print_log(self) -> None:
        """What rank 0 printed. The tracebacks that torch marks with the rank's name stay in the log: when a rank fails,
        most ranks only report that it has gone, and the verdict names the one it began with."""
        for line in self.log.lines() if self.log else ():
            if not line.startswith("[rank"):
                self.console.print(line)

    def _draw(self, status: dict[str, Any]) -> None:
        if steps := status.get("steps"):
            step, loss = status.get("step", 0), status.get("loss", float("nan"))
            details = (f"step {step:,}/{steps:,}  loss {loss:.4f}  {status.get('samples_per_second', 0):,.0f}/s  "
                       f"{clock(status.get('eta_seconds', 0))} left")
            self.progress.update(self.bar, total=steps, completed=step, details=details,
                                 description=str(status.get("phase", ""))[:12])
