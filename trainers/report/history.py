"""The history of a run, as parts of its report: attempts, errors and logs, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import accumulate

from markupsafe import Markup

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.files import read_end
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import checkpoint_path, linked_checkpoint, progress_at, saved_steps
from drumbeat.configs.run.profile_records import Profile
from drumbeat.configs.run.rank_records import RankTimes, SlowRank
from drumbeat.configs.run.records import AttemptStart, Saved, State, Verdict
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.trainers.report import page

LOG_LINES = 60
"""The number of lines shown from the end of a log."""


def attempts(view: View, progress: Progress) -> Markup:
    """A table of all attempts: when each started, on how many ranks, how many of its steps were saved, how it ended.
    The first row of a fork has the steps of the checkpoint that it started from."""
    start = view.fork.start if view.fork else 0
    ends = accumulate(span.steps for span in progress.ledger)
    ledger = [span for span, end in zip(progress.ledger, ends, strict=True) if end > start]
    rows = [("", "", "", f"{start:,}", f"of run {view.fork.parent}")] if view.fork and start else []
    for attempt in view.run.all_attempts():
        mine = [span for span in ledger if span.attempt == attempt.number]
        began = AttemptStart.read(attempt.launch)
        rows.append((str(attempt.number), moment(began.time) if began else "", str(mine[0].world_size) if mine else "",
                     f"{sum(span.steps for span in mine):,}",
                     _end_of(attempt, view.state if attempt == view.attempt else None)))
    return page.table(["attempt", "started", "ranks", "steps saved", "end"], rows) if rows else Markup()


def slow_ranks(view: View) -> Iterator[Markup]:
    """A table of the ranks for which the others waited."""
    rows = [(str(attempt.number), slow.message, f"{slow.step:,}",
             f"{moment(slow.time)} to {moment(slow.until) if slow.until else 'the end'}")
            for attempt in view.run.all_attempts() for slow in _slow(attempt)]
    if rows:
        yield page.table(["attempt", "slow rank", "from step", "time"], rows)


def profiles(view: View) -> Iterator[Markup]:
    """The tables of `drumbeat profile`."""
    for attempt in view.run.all_attempts():
        for found in filter(None, map(Profile.read, attempt.profiles())):
            yield page.fold(f"profile of attempt {attempt.number}, step {found.step:,}", page.listing(found.text))


def _slow(attempt: Attempt) -> Iterable[SlowRank]:
    found = RankTimes.read(attempt.ranks)
    return found.slow if found else ()


def _end_of(attempt: Attempt, state: State | None) -> str:
    """How an attempt ended. `state` is the state of the run if the attempt is its newest one."""
    verdict, saved, errors = Verdict.read(attempt.verdict), Saved.read(attempt.saved), attempt.errors()
    if verdict:
        return verdict.message + (f"; {verdict.next}" if verdict.next in ("restart", "requeue") else "")
    if saved:
        return f"{saved.state} at step {saved.step:,}"
    if errors:
        return f"failed at step {errors[0].step:,}: {errors[0].type}: {errors[0].message[:300]}"
    return state or "unknown"


def errors_and_log(view: View) -> Iterator[Markup]:
    """The traceback and the end of the log of the newest attempt."""
    attempt = view.attempt
    if attempt is None:
        return
    errors, verdict = attempt.errors(), Verdict.read(attempt.verdict)
    rank = verdict.rank if verdict else -1
    first = next((error for error in errors if error.rank == rank), errors[0] if errors else None)
    if first:
        yield page.fold(f"traceback of rank {first.rank}", page.listing(first.traceback.rstrip()),
                        opened=view.state == "failed")
    logs = [attempt.log(first.rank if first else 0), attempt.log(0), attempt.node_log(0)]
    if log := next((log for log in logs if log.is_file() and log.stat().st_size), None):
        lines = read_end(log, 200 * LOG_LINES).splitlines()[-LOG_LINES:]
        yield page.fold(f"{attempt.path.name}/{log.name}, the last lines" if len(lines) == LOG_LINES
                        else f"{attempt.path.name}/{log.name}", page.listing("\n".join(lines)))


def checkpoints(run: RunDir, config: Config) -> Markup:
    """A table of the checkpoints, newest first."""
    links = {name: linked_checkpoint(run, name) for name in ("last", "best")}
    rows = []
    for step in saved_steps(run):
        path = checkpoint_path(run, step)
        progress = progress_at(path)
        phases = dict(enumerate(config.phases))
        try:
            size, saved = sum(file.lstat().st_size for file in path.iterdir()) / 1e6, path.stat().st_mtime
        except FileNotFoundError:
            continue  # the run has pruned it in the meantime
        labels = [name for name, linked in links.items() if linked == path]
        if not (path / "manifest.json").is_file():
            labels.append("incomplete")
        rows.append((f"{step:,}", phases.get(progress.phase, "") if progress else "", f"{size:,.1f} MB",
                     moment(saved), ", ".join(labels)))
    return page.table(["step", "phase", "size", "saved", ""], rows) if rows else Markup()


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def duration(seconds: float) -> str:
    """Seconds in the largest unit that fits."""
    units: Iterable[tuple[float, str]] = ((86400, "days"), (3600, "hours"), (60, "minutes"))
    return next((f"{seconds / size:.0f} {name}" for size, name in units if seconds >= 2 * size), f"{seconds:.0f} s")
