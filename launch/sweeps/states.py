"""The state of a sweep: what its trials do, and which is best so far."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import headline
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import ENDED, Heartbeat
from drumbeat.configs.run.sweep import Queue, Sweep, SweepDir, Trial, differing, names_of
from drumbeat.configs.run.view import View
from drumbeat.configs.text_table import aligned
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Evidence
from drumbeat.launch.backends.typed import command
from drumbeat.launch.runs.listing import COLUMNS, UNKNOWN, describe_each
from drumbeat.launch.runs.rows import metrics_text, row
from drumbeat.launch.sweeps.find import sweep_command

WAITING = "waiting"
"""The state of a trial that has no run yet."""
PRUNED = "pruned"
"""The state of a trial that successive halving has stopped at a rung."""
REFUSED = "refused"
"""The state of a trial that could not be started."""
ORDER = ("running", "paused", "pending", "preempted", WAITING, "finished", PRUNED, "stopped", "failed", "cancelled",
         REFUSED, "damaged")
"""States, as they are listed."""
ROWS = 10
"""Trials in the table of `status`."""
WIDTH = 11


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """What a trial does."""

    trial: Trial
    state: str = WAITING
    step: int = 0
    steps: int = 0
    best: float | None = None
    """The best value of the monitored metric so far."""

    @property
    def done(self) -> str:
        return f"{self.step / self.steps:.0%}" if self.steps else ""


def trial_facts(view: View, evidence: Evidence = UNKNOWN) -> dict[str, Any]:
    """What the state of a sweep needs from a trial's run."""
    beat, ended = view.heartbeat or Heartbeat(), view.result  # an attempt with no steps left has no steps
    return {"state": view.state or "unknown", "step": beat.step or (ended.steps if ended else 0),
            "steps": beat.steps or (ended.steps if ended else 0), "best": beat.best}


def _damaged(run: RunDir, reason: str) -> dict[str, Any]:
    return {"state": "damaged"}


def states_of(folder: SweepDir, sweep: Sweep) -> list[TrialState]:
    """The state of each trial, in order. SLURM is asked once for all."""
    runs = {trial.number: folder.run(sweep, trial.number) for trial in sweep.trials}
    started = {number: run for number, run in runs.items() if run.plan.exists()}
    found = dict(zip(started, describe_each(list(started.values()), trial_facts, _damaged), strict=True))
    return [TrialState(trial=trial, **_within(sweep, trial, found.get(trial.number, {}))) for trial in sweep.trials]


def _within(sweep: Sweep, trial: Trial, found: dict[str, Any]) -> dict[str, Any]:
    """What is found of a trial's run, with the states that only a sweep knows."""
    if trial.number in sweep.pruned and found.get("state") == "stopped":
        return {**found, "state": PRUNED}
    return found if found or str(trial.number) not in sweep.refused else {"state": REFUSED}


def best_of(sweep: Sweep, states: Sequence[TrialState]) -> list[TrialState]:
    """The trials with a value of the monitored metric, best first."""
    sign = 1 if sweep.mode == "min" else -1
    known = [one for one in states if one.best is not None and not math.isnan(one.best)]
    return sorted(known, key=lambda one: (sign * (one.best or 0.0), one.trial.number))


def counts_text(states: Sequence[TrialState]) -> str:
    """'2 running, 3 waiting, 5 finished'."""
    counts = Counter(one.state for one in states)
    order = [*ORDER, *sorted(counts.keys() - set(ORDER))]
    return ", ".join(f"{counts[state]:,} {state}" for state in order if counts[state])


def state_text(sweep: Sweep, states: Sequence[TrialState]) -> str:
    """The state of the sweep as a whole, in one word."""
    found = {one.state for one in states}
    if found <= {"finished", PRUNED} and "finished" in found:
        return "finished"
    if found - {*ENDED, WAITING, PRUNED, REFUSED, "damaged"}:
        return "stopping" if sweep.halted else "running"
    if sweep.halted:
        return "stopped"
    return WAITING if WAITING in found else "ended"


def status_text(folder: SweepDir, sweep: Sweep, states: Sequence[TrialState]) -> str:
    """The state of a sweep: its trials by state, the best so far, and what is best to do next."""
    order, left = best_of(sweep, states), [one for one in states if one.state not in ("finished", PRUNED)]
    rows = [("sweep", f"{folder.name}: {len(states):,} trial{'s' * (len(states) != 1)}"),
            ("state", f"{state_text(sweep, states)}: {counts_text(states)}")]
    if order:
        values = {sweep.monitor: order[0].best}
        rows.append(("best", f"{metrics_text(values)}, trial {order[0].trial.number}: "
                             f"{' '.join(order[0].trial.assignments)}"))
    if sweep.refused:
        number, reason = next(iter(sweep.refused.items()))
        more = f", and {len(sweep.refused) - 1:,} more" if len(sweep.refused) > 1 else ""
        rows.append(("refused", f"trial {number}: {headline(reason)}{more}"))
    rows.append(("queue", _queue_text(folder, sweep)))
    typed = []
    lost = not backend_of(sweep.backend).on_slurm and not folder.queue_is_running() and any(
        one.state == WAITING for one in states)
    if left and (lost or state_text(sweep, states) in ("stopped", "ended")):
        typed.append(("resume", sweep_command("resume", folder)))
    if order:
        trial = order[0].trial
        forks = f"{command('fork', RunDir(Path(sweep.parent)))} --at {sweep.at}" if sweep.parent else ""
        typed.append(("repeat", f"{forks} {shlex.join([*sweep.changes, *trial.assignments])}" if forks else
                      command("rerun", folder.run(sweep, trial.number))))
    text = "\n".join([*(row(label, value, WIDTH) for label, value in rows),
                      *(f"{label:<{WIDTH}}{value}" for label, value in [*typed, ("folder", str(folder.path))])])
    return f"{text}\n\n" + "\n".join(table(sweep, states))


def table(sweep: Sweep, states: Sequence[TrialState]) -> list[str]:
    """The best trials, and then those that have no metric yet; each with the values in which trials differ."""
    order = best_of(sweep, states)
    ranked = {one.trial.number for one in order}
    others = sorted((one for one in states if one.trial.number not in ranked and one.state != WAITING),
                    key=lambda one: ORDER.index(one.state) if one.state in ORDER else len(ORDER))
    shown = [*order, *others][:ROWS]
    if not shown:
        return ["No trial has started yet."]
    names = names_of(differing(sweep.trials))
    rows = [["trial", "state", "done", sweep.monitor, *names.values()]]
    rows += [[str(one.trial.number), one.state, one.done, "" if one.best is None else f"{one.best:.4f}",
              *(one.trial.values.get(key, "") for key in names)] for one in shown]
    more = len(states) - len(shown)
    return [*aligned(rows, (0, 2, 3)), *([f"... and {more:,} more"] if more else [])]


def cells(folder: SweepDir, sweep: Sweep, states: Sequence[TrialState]) -> tuple[str, ...]:
    """The sweep's row in the table of `ls`."""
    order, total = best_of(sweep, states), sum(one.step / one.steps for one in states if one.steps)
    finished = sum(one.state == "finished" for one in states)
    found = ("sweep", folder.name, state_text(sweep, states), f"{finished}/{len(states)}",
             f"{total / len(states):.0%}" if states else "", f"{sweep.monitor} {order[0].best:.4f}" if order else "")
    return (*found, *[""] * (len(COLUMNS) - len(found)))


def facts(folder: SweepDir, sweep: Sweep, states: Sequence[TrialState]) -> dict[str, Any]:
    """The fields of a sweep for the JSON output."""
    return {"name": folder.name, "folder": str(folder.path), "state": state_text(sweep, states),
            "monitor": sweep.monitor, "mode": sweep.mode, "jobs": list(sweep.jobs),
            "best": next((one.trial.number for one in best_of(sweep, states)), None),
            "trials": [{"number": one.trial.number, "id": folder.run(sweep, one.trial.number).id, "state": one.state,
                        "step": one.step, "steps": one.steps, "best": one.best, "values": one.trial.values}
                       for one in states]}


def _queue_text(folder: SweepDir, sweep: Sweep) -> str:
    """What starts the trials."""
    if backend_of(sweep.backend).on_slurm:
        return f"SLURM job{'s' * (len(sweep.jobs) > 1)} {', '.join(sweep.jobs)}"
    queue = Queue.read(folder.queue)
    if folder.queue_is_running() and queue:
        return f"process {queue.pid}, {sweep.slots} at a time; its output: {folder.log.name}"
    return "not running"
