"""Runs that exist: finding one by what a person calls it, and reading how it is doing from its folder alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from configs.errors import Fault, RunError, nearest
from configs.rundir import ENDED, RunDir, read_json


def find_run(text: str, runs: Path) -> RunDir:
    """The run a person means: a folder, an id or the beginning of one, or a name, which means its latest run."""
    if (Path(text) / "plan.json").is_file():
        return RunDir(Path(text).absolute())
    folders = sorted((plan.parent for plan in runs.glob("*/*/plan.json") if not plan.parent.is_symlink()),
                     key=lambda path: path.name)
    named = [path for path in folders if path.parent.name == text]
    if named:
        return RunDir(named[-1].absolute())
    found = [path for path in folders if path.name.startswith(text) or path.name.endswith(f"-{text}")]
    if len(found) > 1:
        raise RunError(Fault(what=f"'{text}' is the beginning of {len(found)} runs", where=str(runs),
                             given=", ".join(path.name for path in found[:8]), remedy="Type more of the id."))
    if not found:
        names = [name for path in folders for name in (path.name, path.parent.name)]
        raise RunError(Fault(what=f"no run '{text}'", where=str(runs.absolute()),
                             remedy=nearest(text, names) if names else "There are no runs yet; --runs says where to look."))
    return RunDir(found[0].absolute())


def processes_of(run: RunDir) -> list[int]:
    """Processes on this machine that belong to a run: its folder stands in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(os.fsencode(path) in words for path in (run.path, run.submitit)):
                found.append(int(entry.name))
    return found


def status_text(run: RunDir) -> str:
    """How a run is doing, in a few lines."""
    status = read_json(run.status)
    rows = [("run", run.id), ("state", str(status.get("state", "unknown")))]
    if status.get("verdict"):
        rows.append(("verdict", status["verdict"]))
    if "step" in status:
        steps = f" of {status['steps']:,}" if status.get("steps") else ""
        rows.append(("step", f"{status['step']:,}{steps}" + (f", phase {status['phase']}" if "phase" in status else "")))
    if "loss" in status:
        rows.append(("loss", f"{status['loss']:.4f}"))
    if status.get("validation"):
        rows.append(("validation", ", ".join(f"{name} {value:.4f}" for name, value in status["validation"].items())))
    if "samples_per_second" in status and status.get("state") == "running":
        rows.append(("speed", f"{status['samples_per_second']:.1f} samples/s, {clock(status['eta_seconds'])} to go"))
    if "time" in status and status.get("state") not in ENDED:
        rows.append(("heard of", f"{max(0, time.time() - status['time']):.0f} s ago"))
    if status.get("job"):
        rows.append(("job", f"{status['job']} ({status.get('where')})"))
    return "\n".join(f"{name:<11}{value}" for name, value in [*rows, ("folder", str(run.path))])


def log_lines(run: RunDir, *, rank: int, follow: bool) -> Iterator[str]:
    """Lines of a rank's log in the newest attempt; with `follow`, of later attempts too, until the run ends."""
    attempt = run.newest_attempt()
    if attempt is None and not follow:
        raise RunError(Fault(what="no attempt has begun yet", where=str(run.path), remedy="Look again, or use -f."))
    seen = 0
    while True:
        newest = run.newest_attempt()
        if newest is not None and newest != attempt:
            attempt, seen = newest, 0
        ended = read_json(run.status).get("state") in ENDED
        if attempt is not None and attempt.log(rank).exists():
            with open(attempt.log(rank), errors="replace") as file:
                file.seek(seen)
                text = file.read()
            whole = text if ended or not follow else text[:text.rfind("\n") + 1]
            seen += len(whole.encode())
            yield from whole.splitlines()
        if ended or not follow:
            return
        time.sleep(0.5)


def ask_to_stop(run: RunDir) -> str:
    """Asks a run to save and leave; what was done, in words."""
    state = read_json(run.status).get("state")
    attempt = run.newest_attempt()
    if state in ENDED:
        return f"{run.id} is {state} already"
    if attempt is None:
        raise RunError(Fault(what="the run has not begun yet", where=str(run.path),
                             remedy="Cancel its job instead: scancel JOB on a cluster."))
    attempt.ask_to_stop("stopped")
    return f"{run.id} will save after a step and leave; resume it with: drumbeat run --resume {run.id}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
