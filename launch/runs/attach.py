"""The attached view of a local run: rank 0's log, and a progress bar drawn from its heartbeat."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from drumbeat.configs.errors import hang
from drumbeat.configs.layers import short
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.changes import exactness
from drumbeat.configs.run.determinism import claim
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import changing
from drumbeat.configs.run.records import Heartbeat, Result, Saved, Verdict
from drumbeat.configs.run.view import View
from drumbeat.configs.text_fields import clock
from drumbeat.launch.backends.backend import backend_of, running_evidence
from drumbeat.launch.backends.contract import Backend, Submitted
from drumbeat.launch.backends.processes import LAUNCHERS, processes_of
from drumbeat.launch.backends.typed import command
from drumbeat.launch.runs.console import PlainConsole
from drumbeat.launch.runs.logs import Tail
from drumbeat.launch.runs.remedy import has_own_remedy, remedy, resume_command
from drumbeat.launch.runs.rows import NO_BREAK, metrics_text, row, skipped_text
from drumbeat.launch.runs.status import final_status

POLL_SECONDS = 0.25
WIDTH = 11
"""Of the labels."""
OTHERS = ("/site-packages/", "/src/drumbeat/", "/installed/drumbeat/")
"""Folders of code that is not the user's: packages, and Drumbeat in a clone or in the copy of a run."""
EXIT_CODES = {"finished": 0, "stopped": 130, "cancelled": 130}
"""The exit code of any other end is 1. 130 is what shells report for an interrupted program."""


def print_header(run: RunDir, processes: str) -> None:
    """Prints which run is about to start, and where."""
    print(f"run        {run.path.parent.name}/{run.id}: {processes}\nfolder     {short(run.path)}", flush=True)
    if note := claim(run):
        print(row("note", note, WIDTH), flush=True)


def print_commands(run: RunDir, job: Submitted, backend: Backend) -> None:
    """Prints what was started in the background, and the commands to type next."""
    print(f"{'SLURM job' if backend.on_slurm else 'process':<{WIDTH}}{job.id}\n")
    print("\n".join(command(verb, run) for verb in ("status", "logs -f", "stop")), flush=True)


@contextmanager
def terminations() -> Iterator[list[int]]:
    """The SIGTERMs of this process, as they come. `docker stop`, Kubernetes and systemd send one and wait for a while;
    without a handler, process 1 of a container does not even receive it."""
    received: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)


def follow(view: View, job: Submitted, before: Attempt | None, received: list[int]) -> int:
    """Shows the run until it ends and returns the exit code. The first Ctrl-C, and any SIGTERM in `received`, stops the
    run after a checkpoint; the second Ctrl-C kills it. `view` is the run as it was just started; `before` is the last
    attempt of an earlier start, which is not shown."""
    interrupts: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        console = PlainConsole()
        if console.is_terminal:
            on_close = backend_of(view.backend).on_terminal_close
            console.print(f"{row('', f'Ctrl-C saves a checkpoint and stops; {on_close}', WIDTH)}\n")
        display = Display(view.run, console, before)
        with display.progress:
            killed = _watch(display, view, job, interrupts, received)
    finally:
        signal.signal(signal.SIGINT, previous)
    with changing(view.run, "run", wait=True):  # until `drumbeat cancel` in another terminal has ended
        return _close(view, killed=killed)


def _close(started: View, *, killed: bool) -> int:
    """Records and prints how a run that was `started` here has ended. Returns the exit code."""
    over = View.read(started.run)
    if over.job and started.job and over.job.time != started.job.time:
        print(f"{over.run.id} has been started again by another command", flush=True)
        return 1
    _end(over)  # nothing is left unless the node launcher was killed, or its ranks are to be
    over = View.read(started.run)
    if killed and not over.ended:
        over.run.write_status("cancelled", attempt=over.number,
                              verdict=f"cancelled from the terminal, {_save_of(over)}")
        over = View.read(over.run)
    print()
    return print_end(over)


def _watch(display: Display, view: View, job: Submitted, interrupts: list[int], received: list[int]) -> bool:
    """Updates the display until the run ends, or is to be killed; returns whether it is. Every Ctrl-C adds to
    `interrupts`, every SIGTERM to `received`."""
    stopping = False
    while job.running() or processes_of(view, LAUNCHERS):
        if (interrupts or received) and not stopping:
            stopping = True
            display.console.print(f"stopping: the run saves a checkpoint after this step and exits. To resume it:\n"
                                  f"{command('resume', view.run)}\nCtrl-C again kills it at once.")
        if len(interrupts) > 1:
            display.console.print("killing all processes ...")
            return True
        if stopping and (attempt := display.newest()) is not None:
            attempt.request_stop("stopped")
        display.update()
        time.sleep(POLL_SECONDS)
    display.update()
    return False


def _end(view: View) -> None:
    """Kills a run; its checkpoints stay. Prints the processes that a dead disk or driver keeps alive."""
    left = backend_of(view.backend).end(view) if running_evidence(view) else []
    if left:
        print(f"processes {', '.join(left)} cannot be killed", flush=True)


def _save_of(view: View) -> str:
    saved = Saved.read(view.attempt.saved) if view.attempt else None
    return f"saved at step {saved.step:,}" if saved else "without a checkpoint"


def print_end(view: View) -> int:
    """Prints how the run ended and the commands to type next. Returns the exit code."""
    if not view.ended:
        status = final_status(view)
        view.run.write_status(status.state, attempt=view.number, verdict=status.verdict)
        view = replace(view, status=status)
    state = str(view.state)
    reason = view.verdict or f"at step {view.heartbeat.step if view.heartbeat else 0:,}"
    reason = reason.removeprefix(f"{state} ").removesuffix(": stopped")
    rows = _finished(view) if state == "finished" else [(state, wrapped(reason))]
    if state == "failed" and view.attempt is not None:
        rows += _where_it_failed(view.attempt)
    if state != "finished":
        rows.append(("fix", wrapped(remedy(view))) if has_own_remedy(view) else ("resume", resume_command(view)))
    print("\n".join(f"{name:<{WIDTH}}{text}" for name, text in rows), flush=True)
    return EXIT_CODES.get(state, 1)


def _where_it_failed(attempt: Attempt) -> list[tuple[str, str]]:
    """The line of the user's code, if there is one, and the log to read: that of the rank in the verdict, else
    torchrun's, else the folder."""
    verdict, errors = Verdict.read(attempt.verdict), attempt.errors()
    rank = verdict.rank if verdict else errors[0].rank if errors else -1
    traceback = next((error.traceback for error in errors if error.rank == rank), "")
    frames = re.findall(r'File "(.+)", line (\d+), in (.+)', traceback)
    own = [frame for frame in frames if not any(folder in frame[0] for folder in OTHERS)]
    logs = [*([attempt.log(rank)] if rank >= 0 else []), attempt.node_log(0)]
    log = next((log for log in logs if log.exists() and log.stat().st_size), attempt.path)
    return [*(("at", f"{short(Path(file))}:{line}, in {name}") for file, line, name in own[-1:]), ("log", short(log))]


def _finished(view: View) -> list[tuple[str, str]]:
    run, result = view.run, view.result or Result(steps=0, samples_seen=0, overshoot=0)
    monitor = view.heartbeat.monitor if view.heartbeat else ""
    rows = [("finished", f"{result.steps:,} step{'s' * (result.steps != 1)}, {samples_text(result)}")]
    if result.steps_skipped:
        rows.append(("skipped", skipped_text(result.steps_skipped, result.steps, view.versions)))
    for name, values in (("best", result.best), ("test", result.test)):
        if values:
            at = f" (step {values['step']:,}, {values['phase']})" if "step" in values else ""
            rows.append((name, metrics_text(values, monitor) + at.replace(" ", NO_BREAK)))
    if note := claim(run):
        rows.append(("note", note))
    rows += [("note", end.text) for end in result.ended]
    if note := exactness(result.changes):
        rows.append(("note", f"it is {note}"))
    rows = [(name, wrapped(text)) for name, text in rows]
    split = "" if result.test else f" --split {'validation' if result.best else 'train'}"
    return [*rows, ("result", short(run.result)), ("curves", command("tensorboard", run)),
            ("report", command("report", run)), ("evaluate", command("evaluate", run) + split)]


def wrapped(text: str) -> str:
    """A text wrapped beside a label. Paths and commands are not wrapped, so that they can be pasted."""
    return row("", text, WIDTH)[WIDTH:]


def samples_text(result: Result) -> str:
    """The number of samples that a run has seen; the last batch of a phase may reach beyond its last epoch."""
    return f"{result.samples_seen:,} samples" + (
        f" ({result.overshoot:,} past the end of an epoch, in its last batch)" if result.overshoot else "")


class Display:
    """The log and the progress bar of a run in a terminal."""

    def __init__(self, run: RunDir, console: PlainConsole, before: Attempt | None) -> None:
        self.run = run
        self.console = console
        self.before = before
        self.attempt: Attempt | None = None
        self.log: Tail | None = None
        self.progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=12),
            TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.fields[details]}", markup=False), console=console,
            transient=True, disable=not console.is_terminal)
        self.bar: TaskID = self.progress.add_task("starting", total=None, details="")

    def newest(self) -> Attempt | None:
        """The newest attempt of this start of the run."""
        newest = self.run.newest_attempt()
        return None if newest == self.before else newest

    def update(self) -> None:
        """Prints new log lines, and redraws the bar from the heartbeat."""
        newest = self.newest()
        if newest is not None and newest != self.attempt:
            self._print_log()
            if self.attempt is not None:
                verdict = Verdict.read(self.attempt.verdict)
                self.console.print(hang("restarting: ", verdict.message if verdict else "the attempt failed", 2))
            self.attempt, self.log = newest, Tail(newest.log(0))
        self._print_log()
        if self.attempt and (beat := Heartbeat.read(self.attempt.heartbeat)):
            self._draw(beat)

    def _print_log(self) -> None:
        """Prints rank 0's log. Tracebacks that torch marks with the rank stay in the log: when a rank fails, most
        others only report the lost connection, and the verdict names the rank that failed first."""
        for line in self.log.lines() if self.log else ():
            if not line.startswith("[rank"):
                self.console.print(line)

    def _draw(self, beat: Heartbeat) -> None:
        if beat.steps:
            loss = float("nan") if beat.loss is None else beat.loss
            details = (f"step {beat.step:,}/{beat.steps:,}  loss {loss:.4f}  {beat.samples_per_second or 0:,.0f}/s  "
                       f"{clock(beat.eta_seconds or 0)} left")
            self.progress.update(self.bar, total=beat.steps, completed=beat.step, details=details,
                                 description=beat.phase[:12])
