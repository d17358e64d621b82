"""Runs that exist: finding one by what a person calls it, and reading how it is doing from its folder alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from configs.errors import Fault, RunError, nearest
from configs.layers import short
from configs.load import read
from configs.manifest import checkpoint_path, damage, saved_steps
from configs.rundir import ENDED, Attempt, RunDir, read_json

LAUNCHERS = {b"submitit.local._local", b"submitit.core._submit"}
RANKS = {b"trainers.forkserver", b"trainers.worker"}
"""What stands in the command lines of a run's processes: of controller and node launcher, of torchrun and ranks
(which are forked from the fork server and keep its command line, or were started without it)."""

SILENCE_SECONDS = 120.0
"""A run on another machine whose status.json is older than this is taken for dead."""


def find_run(text: str, runs: Path) -> RunDir:
    """The run a person means: a folder, an id or the beginning of one, or a name, which means its latest run."""
    if not text.strip():
        raise RunError(Fault(what="which run?", where="command line",
                             remedy="Name a run by its folder, its id, or, the latest, by its name."))
    beside = (runs / text, runs / text / "latest") if "/" in text else ()  # as reports name it: name/id
    for folder in (Path(text), Path(text) / "latest", *beside):
        if (folder / "plan.json").is_file():
            return RunDir((folder.parent / folder.readlink() if folder.is_symlink() else folder).absolute())
    folders = sorted((plan.parent for plan in runs.glob("*/*/plan.json") if not plan.parent.is_symlink()),
                     key=lambda path: path.name)
    named = [path for path in folders if path.parent.name == text]
    if named:
        return RunDir(named[-1].absolute())
    found = [path for path in folders if path.name.startswith(text) or path.name.endswith(f"-{text}")]
    if len(found) > 1:
        ids = [path.name for path in found]
        raise RunError(Fault(what=f"'{text}' is the beginning of {len(found)} runs", where=str(runs),
                             given=", ".join(ids[-6:]) + (", ..." if len(ids) > 6 else ""),
                             remedy="Type more of the id."))
    if not found:
        names = {name for path in folders for name in (path.name, path.parent.name)}
        raise RunError(Fault(what=f"there is no run '{text}'", where=str(runs.absolute()),
                             remedy=_nearest_run(text, names)))
    return RunDir(found[0].absolute())


def handle(run: RunDir) -> str:
    """What to type for a run in the current folder: its id where the runs are in runs/, else its folder."""
    beside = run.path.parent.parent == Path("runs").absolute()
    return run.id if beside else short(run.path)


def program(name: str) -> str:
    """How to call a program that was installed beside this Python, whether or not its folder is on the PATH."""
    beside = Path(sys.executable).with_name(name)
    on_path = shutil.which(name)
    return name if not beside.exists() or (on_path and Path(on_path).samefile(beside)) else short(beside)


def resume_command(run: RunDir) -> str:
    """What to type to go on with a run."""
    return f"{program('drumbeat')} run --resume {handle(run)}"


def still_runs(run: RunDir) -> str:
    """What shows that a run is still at work, in words; '' where nothing does."""
    if running := processes_of(run):
        return f"process {running[0]}"
    started, status = read_json(run.job), read_json(run.status)
    if status.get("state") in ENDED:
        return ""
    host, process = started.get("host"), started.get("process")
    if started.get("where") == "slurm" and started.get("id"):
        return _in_queue(str(started["id"]))
    if host == socket.gethostname():
        return f"process {process}, in --debug" if process and Path(f"/proc/{process}").exists() else ""
    silence = time.time() - float(status.get("time", 0.0))
    return f"on {host}, heard of {silence:.0f} s ago" if host and silence < SILENCE_SECONDS else ""


def _in_queue(job: str) -> str:
    """What SLURM says of a job that is not over, in words. That it does not answer is no sign that the job is over."""
    if shutil.which("squeue") is None:
        return f"SLURM job {job}, and no squeue on PATH to ask about it"
    try:
        asked = subprocess.run(["squeue", "--noheader", "--jobs", job, "--format", "%T"], capture_output=True,
                               text=True, check=False, timeout=30)
    except subprocess.TimeoutExpired:
        return f"SLURM job {job}, and squeue does not answer"
    if found := asked.stdout.strip():
        return f"SLURM job {job} is {found.splitlines()[0].lower()}"
    gone = asked.returncode == 0 or "Invalid job id" in asked.stderr
    return "" if gone else f"SLURM job {job}, and squeue says: {asked.stderr.strip()}"


def processes_of(run: RunDir, modules: set[bytes] = LAUNCHERS | RANKS) -> list[int]:
    """Processes on this machine that run it: their command lines hold its folder and one of these modules."""
    found = []
    planned = Path(read_json(run.plan).get("run_dir", run.path))  # the same folder, perhaps by another path
    folders = {os.fsencode(path) for folder in (run.path, planned) for path in (folder, folder / run.submitit.name)}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = set((entry / "cmdline").read_bytes().split(b"\0"))
            except OSError:
                continue
            if words & folders and words & modules:
                found.append(int(entry.name))
    return found


def status_text(run: RunDir) -> str:
    """How a run is doing, in a few lines."""
    status = read_json(run.status)
    rows = [("run", run.id), ("state", str(status.get("state", "unknown")))]
    if status.get("verdict") and status["verdict"] != status.get("state"):
        rows.append(("verdict", status["verdict"]))
    if "step" in status:
        steps = f" of {status['steps']:,}" if status.get("steps") else ""
        phase = f", phase {status['phase']}" if "phase" in status else ""
        rows.append(("step", f"{status['step']:,}{steps}{phase}"))
    if "loss" in status:
        rows.append(("loss", f"{status['loss']:.4f}"))
    if status.get("validation"):
        rows.append(("validation", ", ".join(f"{name} {value:.4f}" for name, value in status["validation"].items())))
    if "samples_per_second" in status and status.get("state") == "running":
        rows.append(("speed", f"{status['samples_per_second']:.1f} samples/s, {clock(status['eta_seconds'])} to go"))
    if "time" in status and status.get("state") not in ENDED:
        rows.append(("heard of", f"{max(0, time.time() - status['time']):.0f} s ago"))
    result = read_json(run.result)
    rows += [(name, ", ".join(f"{key} {value:.4f}" for key, value in result[name].items() if isinstance(value, float)))
             for name in ("best", "test") if result.get(name)]
    if (job := read_json(run.job)).get("id") and status.get("state") not in ENDED:
        rows.append(("job", f"{job['id']} ({'SLURM' if job['where'] == 'slurm' else 'process on this machine'})"))
    return "\n".join(f"{name:<12}{value}" for name, value in [*rows, ("folder", str(run.path))])


def checkpoints_text(run: RunDir) -> str:
    """The checkpoints of a run, newest first, each with what it is and whether it can be relied on."""
    last, best = ((run.checkpoints / name).resolve().name for name in ("last", "best"))
    if not saved_steps(run):
        raise RunError(Fault(what="there are no checkpoints yet", where=str(run.checkpoints)))
    phases = list(read(run.config).phases)
    rows = [("step", "phase", "size", "saved", "validation", "state")]
    for step in saved_steps(run):
        path = checkpoint_path(run, step)
        progress = read_json(path / "state.json").get("progress", {})
        judged = progress.get("last", {}) if progress.get("last", {}).get("step") == step else {}
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in judged.items() if isinstance(value, float))
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        minutes = (time.time() - path.stat().st_mtime) / 60
        age = f"{minutes:.0f} min ago" if minutes < 100 else f"{minutes / 60:.0f} h ago"
        words = [*(["last"] if path.name == last else []), *(["best"] if path.name == best else []),
                 damage(path) or "digests agree"]
        number = progress.get("phase", len(phases))
        phase = phases[number] if number < len(phases) else "?"
        rows.append((f"{step:,}", phase, f"{size:,.1f} MB", age, metrics, ", ".join(words)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"set aside  {short(path)}" for path in sorted(run.checkpoints.glob("bad-*")))])


class Tail:
    """New lines of a file that another process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = 0

    def lines(self, *, unfinished: bool = False) -> list[str]:
        """What was written since the last call, in whole lines; with `unfinished`, the last piece too."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self.seen)
            new = file.read()
        if not unfinished:
            new = new[:new.rfind(b"\n") + 1]
        self.seen += len(new)
        return new.decode(errors="replace").splitlines()


def log_lines(run: RunDir, *, rank: int, follow: bool) -> Iterator[str]:
    """Lines of a rank's log in the newest attempt; with `follow`, of later attempts too, until the run ends."""
    attempt = run.newest_attempt()
    if not follow:
        _check_log(run, attempt, rank)
    tail: Tail | None = None
    while True:
        ended = read_json(run.status).get("state") in ENDED
        newest = run.newest_attempt()
        if newest is not None and (tail is None or newest != attempt):
            attempt, tail = newest, Tail(newest.log(rank))
        if tail is not None:
            yield from tail.lines(unfinished=ended or not follow)
        if ended or not follow:
            return
        time.sleep(0.5)


def _check_log(run: RunDir, attempt: Attempt | None, rank: int) -> None:
    if attempt is None:
        raise RunError(Fault(what="no attempt has begun yet", where=str(run.path), remedy="Look again, or use -f."))
    if not attempt.log(rank).exists():
        ranks = sorted(int(path.stem.removeprefix("rank")) for path in attempt.path.glob("rank*.log"))
        raise RunError(Fault(what=f"rank {rank} has no log", where=str(attempt.path),
                             remedy=f"Ranks with one: {', '.join(map(str, ranks))}" if ranks else
                             f"Look at {attempt.node_log(0)}"))


def ask_to_stop(run: RunDir) -> str:
    """Asks a run to save and leave; what was done, in words. Raises `RunError` where nobody would hear it."""
    status, attempt = read_json(run.status), run.newest_attempt()
    state = status.get("state")
    if state in ENDED:
        return f"{run.id} is {state} already"
    job = read_json(run.job)
    if attempt is None or state in ("pending", "preempted"):
        queued = job.get("where") == "slurm"
        remedy = f"Take it out of the queue: scancel {job['id']}" if queued else "Try again in a moment."
        raise RunError(Fault(what="the run is waiting to start, and nobody is there to stop", where=str(run.path),
                             given=f"state: {state}", remedy=remedy))
    if job.get("where") != "slurm" and not still_runs(run):
        raise RunError(Fault(what="nothing of this run is at work any more", where=str(run.path),
                             given=f"state: {state}", remedy=f"Go on with it: {resume_command(run)}"))
    attempt.ask_to_stop("stopped")
    return f"{run.id} saves after a step and leaves. To go on with it:\n{resume_command(run)}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _nearest_run(text: str, names: set[str]) -> str:
    if not names:
        return "There are no runs here yet; --runs DIR looks elsewhere."
    remedy = nearest(text, names)
    newest = sorted(name for name in names if name[:8].isdigit())[-3:]
    return remedy if remedy.startswith("Did") else (
        f"Name a run by its folder, its id, or, the latest, by its name. The newest: {', '.join(newest)}")
