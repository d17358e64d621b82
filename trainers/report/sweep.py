"""A sweep as one page: the best trial, a chart for each key that varies, and a table of all trials."""

from __future__ import annotations

import math
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from drumbeat.configs.errors import UserError
from drumbeat.configs.run.records import Heartbeat
from drumbeat.configs.run.sweep import Sweep, SweepDir, Trial, differing, names_of
from drumbeat.configs.run.view import View
from drumbeat.configs.secrets import HIDDEN, is_secret_name
from drumbeat.trainers.report import page
from drumbeat.trainers.report.charts import number
from drumbeat.trainers.report.history import moment
from drumbeat.trainers.report.importance import importance
from drumbeat.trainers.report.scatter import Dot, scatter

MOST = 5000
"""Trials in the table."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A trial and its metrics."""

    trial: Trial
    id: str = ""
    state: str = "waiting"
    step: int = 0
    steps: int = 0
    best: float | None = None
    """The best value of the monitored metric."""
    test: dict[str, float] = field(default_factory=dict)


def sweep_page(folder: SweepDir) -> str:
    """The page of a sweep in any state."""
    sweep = folder.read()
    rows = [_row(folder, sweep, trial) for trial in sweep.trials]
    order, names = ranked(sweep, rows), names_of(differing(sweep.trials))
    values = {name: [row.trial.values.get(key, "") for row in order] for key, name in names.items()}
    matters = importance(values, [row.best or 0.0 for row in order], sweep.mode)
    body = [
        page.head(sweep.id, folder.name, state=_state(rows), colour="odd", text=_counts(rows), progress=None),
        page.cards(_cards(sweep, rows, order)),
        page.section("Best trial", *_best(folder, sweep, order)),
        page.section("Values", page.grid(_charts(sweep, order, names, matters))),
        page.section("Trials", page.table(*_table(sweep, [*order, *(row for row in rows if row.best is None)], names))),
        page.section("Sweep", page.facts([
            ("command", " ".join(map(_hidden, sweep.typed.split()))), ("config", sweep.config),
            ("same in all trials", " ".join(map(_hidden, sweep.changes))),
            *((f"values of {key}", text) for key, text in sweep.space.items()),
            ("draws", f"{sweep.samples:,}, seed {sweep.seed}" if sweep.samples else "")])),
        page.footer(moment(time.time()), folder.path),
    ]
    return page.page(folder.name, body)


def ranked(sweep: Sweep, rows: Iterable[Row]) -> list[Row]:
    """The trials with a value of the monitored metric, best first."""
    sign = 1 if sweep.mode == "min" else -1
    known = [row for row in rows if row.best is not None and math.isfinite(row.best)]
    return sorted(known, key=lambda row: (sign * (row.best or 0.0), row.trial.number))


def _row(folder: SweepDir, sweep: Sweep, trial: Trial) -> Row:
    run = folder.run(sweep, trial.number)
    if not run.plan.exists():
        return Row(trial=trial, state="refused" if str(trial.number) in sweep.refused else "waiting")
    try:
        view = View.read(run)
    except (UserError, OSError):
        return Row(trial=trial, id=run.id, state="damaged")
    beat, pruned = view.heartbeat or Heartbeat(), view.state == "stopped" and trial.number in sweep.pruned
    return Row(trial=trial, id=run.id, state="pruned" if pruned else view.state or "unknown", step=beat.step,
               steps=beat.steps, best=beat.best,
               test=view.result.test if view.result else {})


def _hidden(word: str) -> str:
    """KEY=VALUE, without a value that is probably secret."""
    key, equals, _ = word.partition("=")
    return f"{key}={HIDDEN}" if equals and is_secret_name(key.rpartition(".")[2]) else word


def _state(rows: Sequence[Row]) -> str:
    states = {row.state for row in rows}
    return "finished" if states <= {"finished", "pruned"} else "running" if "running" in states else "unfinished"


def _counts(rows: Sequence[Row]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in Counter(row.state for row in rows).most_common())


def _cards(sweep: Sweep, rows: Sequence[Row], order: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    if order:
        best = order[0]
        yield f"best {sweep.monitor}", number(best.best or 0.0), f"validation, trial {best.trial.number}"
        for name, value in list(best.test.items())[:2]:
            yield f"test {name}", number(value), f"trial {best.trial.number}"
    yield "trials", f"{len(rows):,}", f"{sum(row.state == 'finished' for row in rows):,} finished"
    if whole := sum(row.steps for row in rows):
        yield "steps taken", f"{sum(row.step for row in rows):,}", f"{sum(row.step for row in rows) / whole:.0%}"


def _best(folder: SweepDir, sweep: Sweep, order: Sequence[Row]) -> Iterator[Markup]:
    """The values of the best trial, and the command that repeats it."""
    if order:
        run = folder.run(sweep, order[0].trial.number)
        yield page.facts([*order[0].trial.values.items(), ("run", run.id)])
        yield page.listing(f"drumbeat rerun {shlex.quote(folder.name)}/{run.id.rpartition('-')[2]}")


def _charts(sweep: Sweep, order: Sequence[Row], names: dict[str, str], matters: dict[str, float]
            ) -> Iterator[page.Figure]:
    """A chart of the monitored metric for each key, the most important one first."""
    for key, name in sorted(names.items(), key=lambda one: -matters.get(one[1], 0.0)):
        dots = [Dot(row.trial.values.get(key, ""), row.best or 0.0, _label(sweep, row, names), best=row is order[0])
                for row in order]
        if dots:
            share = f", importance {matters[name]:.0%}" if name in matters else ""
            yield page.Figure(title=f"{sweep.monitor} by {name}{share}", body=Markup(scatter(name, dots)), note=key)


def _label(sweep: Sweep, row: Row, names: dict[str, str]) -> str:
    values = ", ".join(f"{name} {row.trial.values.get(key, '')}" for key, name in names.items())
    return f"trial {row.trial.number}: {sweep.monitor} {number(row.best or 0.0)}\n{values}"


def _table(sweep: Sweep, rows: Sequence[Row], names: dict[str, str]) -> tuple[list[str], list[list[str]]]:
    tests = list(dict.fromkeys(name for row in rows for name in row.test))
    titles = ["trial", "run", "state", "done", sweep.monitor, *(f"test {name}" for name in tests), *names.values()]
    return titles, [[
        str(row.trial.number), row.id.rpartition("-")[2], row.state, f"{row.step / row.steps:.0%}" if row.steps else "",
        "" if row.best is None else number(row.best),
        *(number(row.test[name]) if name in row.test else "" for name in tests),
        *(row.trial.values.get(key, "") for key in names)] for row in rows[:MOST]]
