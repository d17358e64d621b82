"""Where a run's time went: read from its folder alone.

What rank 0 measured (`trainers/time_spent.py`) travels with the checkpoints, so it holds the time that led to the
weights as they are. What the attempts took beyond that was lost: starts in vain, and work that had to be done again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.manifest import checkpoint_path, progress_at, saved_steps
from drumbeat.configs.run.records import AttemptStart, Verdict
from drumbeat.configs.run.view import View

WORDS = {"training": "training", "evaluating": "evaluating", "waiting": "waiting for data", "saving": "saving",
         "starting": "starting", "queued": "between attempts", "leaving": "leaving", "lost": "lost to failures"}
"""What time goes into, in words and in the order to tell it."""


def goodput(view: View, now: float | None = None) -> dict[str, float]:
    """Seconds since the first attempt began, by what they went into; empty where nothing was measured yet.

    "queued" is the time between one job's end and the beginning of the next one's first attempt: in SLURM's queue, or
    until somebody resumed the run. Where launchers were killed, nobody knows when, and all of it was lost.
    """
    run = view.run
    attempts = [run.attempt(number) for number in range(view.number + 1)]
    starts = [AttemptStart.read(attempt.launch) for attempt in attempts]
    first = next((start.time for start in starts if start), None)
    told = view.heartbeat.seconds if view.heartbeat else {}
    kept = _of_the_newest_checkpoint(run) if view.state == "failed" else told
    if first is None or not kept:
        return {}
    ended = view.status.time if view.status and view.ended else time.time() if now is None else now
    queued = 0.0
    for before, (last, start) in zip(attempts, pairwise(starts), strict=False):
        if start and not (last and last.job == start.job):  # which the same launcher has restarted in place
            over = [path.stat().st_mtime for path in (before.verdict, before.saved) if path.exists()]
            queued += max(0.0, start.time - max(over, default=start.time))
    spent = {kind: kept.get(kind, 0.0) for kind in WORDS}
    spent["queued"] = queued
    rest = max(0.0, ended - first - sum(spent.values()))
    spent["lost" if view.state == "failed" or _any_failed(attempts) else "leaving"] = rest
    return spent


def useful(spent: dict[str, float]) -> float:
    """The effective training time ratio: what part of the time went into steps and evaluations that count (as in
    ByteRobust, arXiv 2509.16293, which calls this ETTR); time between jobs left out."""
    wall = sum(spent.values()) - spent["queued"]
    return (spent["training"] + spent["evaluating"]) / wall if wall else 0.0


def text(spent: dict[str, float]) -> str:
    """One line: the largest parts, in percent."""
    wall = sum(spent.values()) or 1.0
    parts = [f"{WORDS[kind]} {seconds / wall:.0%}" for kind, seconds in spent.items() if seconds / wall >= 0.005]
    return ", ".join(parts)


def _of_the_newest_checkpoint(run: RunDir) -> dict[str, float]:
    found = (progress_at(checkpoint_path(run, step)) for step in saved_steps(run))
    return next((progress.seconds for progress in found if progress and progress.seconds), {})


def _any_failed(attempts: Sequence[Attempt]) -> bool:
    """Whether an attempt failed, or ended without a word. Where none did, the time that is left went into leaving."""
    verdicts = [Verdict.read(attempt.verdict) for attempt in attempts]
    return any(verdict.outcome == "failed" for verdict in verdicts if verdict) or None in verdicts[:-1]
