"""Where a run's time went: read from its folder alone.

What rank 0 measured (`trainers/clock.py`) travels with the checkpoints, so it holds the time that led to the weights as
they are. What the attempts took beyond that was lost: starts in vain, and work that had to be done again.
"""

from __future__ import annotations

import time

from drumbeat.configs.run.folder import ENDED, RunDir, read_json
from drumbeat.configs.run.manifest import checkpoint_path, saved_steps

WORDS = {"training": "training", "evaluating": "evaluating", "waiting": "waiting for data", "saving": "saving",
         "starting": "starting", "queued": "between attempts", "leaving": "leaving", "lost": "lost to failures"}
"""What time goes into, in words and in the order to tell it."""


def goodput(run: RunDir, now: float | None = None) -> dict[str, float]:
    """Seconds since the first attempt began, by what they went into; empty where nothing was measured yet.

    "queued" is the time between one job's end and the beginning of the next one's first attempt: in SLURM's queue, or
    until somebody resumed the run. Where launchers were killed, nobody knows when, and all of it was lost.
    """
    status = read_json(run.status)
    newest = run.newest_attempt()
    began = [float(read_json(run.attempt(number).launch).get("time", 0.0))
             for number in range(newest.number + 1 if newest else 0)]
    known = [moment for moment in began if moment]
    kept = status.get("seconds") if status.get("state") != "failed" else _of_the_newest_checkpoint(run)
    if not known or not kept:
        return {}
    ended = float(status["time"]) if status.get("state") in ENDED else time.time() if now is None else now
    queued = 0.0
    for number, moment in enumerate(began[1:], start=1):
        before = run.attempt(number - 1)
        if moment and not _restarted(run, number):
            over = [path.stat().st_mtime for path in (before.verdict, before.saved) if path.exists()]
            queued += max(0.0, moment - max(over, default=moment))
    spent = {kind: float(kept.get(kind, 0.0)) for kind in WORDS}
    spent["queued"] = queued
    rest = max(0.0, ended - known[0] - sum(spent.values()))
    spent["lost" if _failed(run, len(began)) else "leaving"] = rest
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
    for step in saved_steps(run):
        if found := read_json(checkpoint_path(run, step) / "state.json").get("progress", {}).get("seconds"):
            return dict(found)
    return {}


def _failed(run: RunDir, attempts: int) -> bool:
    """Whether an attempt failed, or ended without a word. Where none did, the time that is left went into leaving."""
    outcomes = [read_json(run.attempt(number).verdict).get("outcome") for number in range(attempts)]
    return "failed" in outcomes or None in outcomes[:-1] or read_json(run.status).get("state") == "failed"


def _restarted(run: RunDir, number: int) -> bool:
    """Whether an attempt began in place, by the same launcher as the one before it."""
    jobs = [read_json(run.attempt(one).launch).get("job") for one in (number - 1, number)]
    return jobs[0] == jobs[1]
