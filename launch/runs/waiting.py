"""Waiting for the end of a run, and its progress in one line."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.configs.terminal import visible
from drumbeat.configs.text_fields import clock
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.runs.rows import metrics_text
from drumbeat.launch.runs.status import with_final_state

POLL_SECONDS = 0.25
EVIDENCE_SECONDS, QUEUE_SECONDS = 2.0, 30.0
"""How often it is asked whether a run still exists that has not recorded its end: its processes, or SLURM."""


@dataclass
class Wait:
    """A wait for the end of a run. It may end although the run records nothing more: it was killed."""

    run: RunDir
    asked: float = field(default_factory=time.monotonic)

    def look(self) -> tuple[View, bool]:
        """The run as it is, and whether it has ended and left no process on this machine, so that it can be resumed.
        Raises `DamagedError`."""
        view = View.read(self.run)
        backend = backend_of(view.backend)
        every = QUEUE_SECONDS if backend.on_slurm else EVIDENCE_SECONDS
        if not view.ended and time.monotonic() - self.asked > every:
            self.asked = time.monotonic()
            view = with_final_state(view)
        return view, view.ended and not backend.processes(view)


class ProgressLine:
    """The progress of a run: in a terminal and a notebook one line that is redrawn, elsewhere a line for each new state
    and evaluation."""

    def __init__(self) -> None:
        self.redraws = sys.stdout.isatty() or "ipykernel" in sys.modules
        self.shown = ""
        self.known: tuple[object, ...] = ()

    def show(self, view: View) -> None:
        """Prints the line, if it is a new one."""
        beat = view.heartbeat
        known = (view.state, beat.validation if beat else None)
        text = visible(progress_text(view))
        if self.redraws and text != self.shown:
            print(f"\r{text:<{len(self.shown)}}", end="", flush=True)
            self.shown = text
        elif not self.redraws and known != self.known:
            print(text, flush=True)
        self.known = known

    def end(self) -> None:
        """Ends the line that is redrawn."""
        if self.redraws and self.shown:
            print(flush=True)


def progress_text(view: View) -> str:
    """The state and the progress of a run in one line."""
    beat, state = view.heartbeat, view.state or "unknown"
    parts = [f"{view.run.path.parent.name}: {state}"]
    if beat and beat.steps:
        parts.append(f"step {beat.step:,} of {beat.steps:,}")
    if beat and beat.loss is not None:
        parts.append(f"train loss {beat.loss:.4f}")
    if beat and beat.validation:
        parts.append(f"validation {metrics_text(beat.validation, beat.monitor)}")
    if state == "running" and beat and beat.eta_seconds is not None:
        parts.append(f"{clock(beat.eta_seconds)} left")
    return ", ".join(parts)
