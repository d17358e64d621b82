"""Runs that exist: finding one by what a person calls it, and whether it is still at work."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError, nearest
from drumbeat.configs.layers import short
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import find_checkpoint
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.launch.backends.allocation import IN_ALLOCATION
from drumbeat.launch.slurm.client import SilentError, ask, steps

LAUNCHERS = {b"submitit.local._local", b"submitit.core._submit", IN_ALLOCATION}
RANKS = {b"drumbeat.trainers.forkserver", b"drumbeat.trainers.worker"}
"""What stands in the command lines of a run's processes: of controller and node launcher, of torchrun and ranks
(which are forked from the fork server and keep its command line, or were started without it)."""

HOW_TO_NAME = "Name a run by its folder, its id, or, the latest, by its name."

SILENCE_SECONDS = 120.0
"""A run on another machine whose last sign of life is older than this is taken for dead."""


def find_run(text: str, runs: Path) -> RunDir:
    """The run a person means: a folder, an id or the beginning of one, or a name, which means its latest run."""
    if not text.strip():
        raise RunError(Fault(what="which run?", where="command line", given=f"'{text}'", remedy=HOW_TO_NAME))
    beside = (runs / text, runs / text / "latest") if "/" in text else ()  # as reports name it: name/id
    for folder in (Path(text), Path(text) / "latest", *beside):
        if is_run(folder):
            return RunDir((folder.parent / folder.readlink() if folder.is_symlink() else folder).absolute())
    folders = [run.path for run in all_runs(runs)]
    named = [path for path in folders if path.parent.name == text]
    if named:
        return RunDir(named[-1].absolute())
    name, slash, end = text.rpartition("/")  # as `ls` names it: name/the end of its id
    found = [path for path in folders if path.name.startswith(text) or path.name.endswith(f"-{text}")
             or (slash and path.parent.name == name and path.name.endswith(f"-{end}"))]
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


def look(text: str, runs: Path) -> View:
    """The run a person means, as its folder tells now. Raises `RunError`."""
    return View.read(find_run(text, runs))


def trained_run(text: str, runs: Path, which: str | None) -> tuple[RunDir, Config]:
    """The run a person means, which has the checkpoint they mean; and its config. Raises `RunError`."""
    run = find_run(text, runs)
    find_checkpoint(run, which)
    return run, read(run.config)


def all_runs(runs: Path) -> list[RunDir]:
    """All runs in a folder, the oldest first."""
    folders = (folder for folder in runs.absolute().glob("*/*") if not folder.is_symlink() and is_run(folder))
    return sorted(map(RunDir, folders), key=lambda run: run.id)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, even if one of its files is missing."""
    return any(os.access(file, os.F_OK) for file in (RunDir(folder).plan, RunDir(folder).status))


def handle(run: RunDir) -> str:
    """What to type for a run in the current folder: its id where the runs are in runs/, else its folder."""
    beside = run.path.parent.parent == Path("runs").absolute()
    return run.id if beside else short(run.path)


def program(name: str) -> str:
    """How to call a program that was installed beside this Python, whether or not its folder is on the PATH."""
    beside = Path(sys.executable).with_name(name)
    on_path = shutil.which(name)
    return name if not beside.exists() or (on_path and Path(on_path).samefile(beside)) else (
        str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside))


def command(verb: str, run: RunDir) -> str:
    """What to type in the current folder to do something with a run."""
    return f"{program('drumbeat')} {verb} {handle(run)}"


def still_runs(view: View) -> str:
    """What shows that a run is still at work, in words; '' where nothing does."""
    if running := processes_of(view):
        return f"process {running[0]}"
    job = view.job
    if view.ended or job is None:
        return ""
    if job.where == "slurm" and job.id:
        return _in_queue(job.id)
    if job.where == "here" and job.id:
        return _in_allocation(view, job.id)
    if job.host == socket.gethostname():
        return f"process {job.process}, in --debug" if job.process and Path(f"/proc/{job.process}").exists() else ""
    silence = view.silence()
    return f"on {job.host}, heard of {silence:.0f} s ago" if job.host and silence < SILENCE_SECONDS else ""


def _in_queue(job: str) -> str:
    """What SLURM says of a job that is not over, in words. That it does not answer is no sign that the job is over."""
    code, said = ask("squeue", "--noheader", "--jobs", job, "--format", "%T")
    if "Invalid job id" in said:
        return ""
    if code != 0:
        return f"SLURM job {job}, which cannot be asked about: {said}"
    return f"SLURM job {job} is {said.splitlines()[0].lower()}" if said else ""


def _in_allocation(view: View, job: str) -> str:
    """What SLURM says of a run's step in a job that is the user's own, in words. It does not tell of one that waits for
    room, nor can a process on another machine be looked for."""
    host = view.job.host if view.job else ""
    try:
        if found := steps(job, view.run.id):
            return f"step {found[0]}"
        waits = view.state == "pending" and host != socket.gethostname() and _in_queue(job)
        return f"it may wait for room in SLURM job {job}, started on {host}" if waits else ""
    except SilentError as silence:
        return f"in SLURM job {job}, which cannot be asked about: {silence}"


def processes_of(view: View, modules: set[bytes] = LAUNCHERS | RANKS) -> list[int]:
    """Processes on this machine that run it: their command lines hold its folder and one of these modules."""
    found = []
    planned = RunDir(Path(view.plan.run_dir))  # the same folder, perhaps by another path
    folders = {os.fsencode(path) for run in (view.run, planned) for path in (run.path, run.submitit)}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = set((entry / "cmdline").read_bytes().split(b"\0"))
            except OSError:
                continue
            if words & folders and words & modules:
                found.append(int(entry.name))
    return found


def _nearest_run(text: str, names: set[str]) -> str:
    if not names:
        return "There are no runs here yet; --runs DIR looks elsewhere."
    remedy = nearest(text, names)
    newest = sorted(name for name in names if name[:8].isdigit())[-3:]
    return remedy if remedy.startswith("Did") else f"{HOW_TO_NAME} The newest: {', '.join(newest)}"
