"""How a run has spent its time, read from its folder.

Rank 0's measurements (`trainers/time_spent.py`) are saved in the checkpoints, so they cover the time that led to the
current weights. The rest of the attempts' time was lost: failed starts, and steps that were taken again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import checkpoint_path, progress_at, saved_steps
from drumbeat.configs.run.records import AttemptStart, Verdict
from drumbeat.configs.run.view import View

LABELS = {"training": "training", "evaluating": "evaluating", "waiting": "waiting for data", "saving": "saving",
         "importing": "importing", "starting": "starting", "queued": "between attempts", "leaving": "leaving",
         "lost": "lost to failures"}
"""The labels of the kinds of work, in the order in which they are printed."""


def goodput(view: View, now: float | None = None) -> dict[str, float]:
    """The seconds since the first attempt started, by kind of work; empty before anything is measured.

    "queued" is the time from the end of one job to the first attempt of the next: in SLURM's queue, or until somebody
    resumed the run. If launchers were killed, that moment is unknown and the time counts as lost.
    """
    run = view.run
    attempts = [run.attempt(number) for number in range(view.number + 1)]
    starts = [AttemptStart.read(attempt.launch) for attempt in attempts]
    first = next((start.time for start in starts if start), None)
    measured = view.heartbeat.seconds if view.heartbeat else {}
    kept = _of_the_newest_checkpoint(run) if view.state == "failed" else measured
    if first is None or not kept:
        return {}
    ended = view.status.time if view.status and view.ended else time.time() if now is None else now
    queued = 0.0
    for before, (last, start) in zip(attempts, pairwise(starts), strict=False):
        if start and not (last and last.job == start.job):  # restarted in place by the same launcher
            over = [path.stat().st_mtime for path in (before.verdict, before.saved) if path.exists()]
            queued += max(0.0, start.time - max(over, default=start.time))
    spent = {kind: kept.get(kind, 0.0) for kind in LABELS}
    spent["queued"] = queued
    rest = max(0.0, ended - first - sum(spent.values()))
    spent["lost" if view.state == "failed" or _any_failed(attempts) else "leaving"] = rest
    return spent


def effective_ratio(spent: dict[str, float]) -> float:
    """The effective training time ratio (ETTR in ByteRobust, arXiv 2509.16293): the fraction of the time that went into
    steps and evaluations that were kept, without the time between jobs. 0 before anything is measured."""
    wall = sum(spent.values()) - spent.get("queued", 0.0)
    return (spent["training"] + spent["evaluating"]) / wall if wall else 0.0


def text(spent: dict[str, float]) -> str:
    """The largest parts in percent, in one line."""
    wall = sum(spent.values()) or 1.0
    parts = [f"{LABELS[kind]} {seconds / wall:.0%}" for kind, seconds in spent.items() if seconds / wall >= 0.005]
    return ", ".join(parts)


def _of_the_newest_checkpoint(run: RunDir) -> dict[str, float]:
    found = (progress_at(checkpoint_path(run, step)) for step in saved_steps(run))
    return next((progress.seconds for progress in found if progress and progress.seconds), {})


def _any_failed(attempts: Sequence[Attempt]) -> bool:
    """Whether an attempt failed or left no verdict. If none did, the remaining time was spent on shutting down."""
    verdicts = [Verdict.read(attempt.verdict) for attempt in attempts]
    return any(verdict.outcome == "failed" for verdict in verdicts if verdict) or None in verdicts[:-1]
