"""Stopping, resuming and cancelling a sweep as one thing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from drumbeat.configs.errors import ConfigError, Fault, RunError, UserError, headline
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.processes import process_space
from drumbeat.configs.run.records import ENDED
from drumbeat.configs.run.sweep import Queue, Sweep, SweepDir
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.runs import stop as runs
from drumbeat.launch.runs.trust import check_owner
from drumbeat.launch.slurm.client import SlurmUnreachableError, array_tasks, cancel_jobs
from drumbeat.launch.sweeps.asha import promoted
from drumbeat.launch.sweeps.find import sweep_command
from drumbeat.launch.sweeps.queue import start_queue
from drumbeat.launch.sweeps.start import submit
from drumbeat.launch.sweeps.states import PRUNED, REFUSED, WAITING, TrialState, counts_text, states_of


def stop(folder: SweepDir) -> str:
    """Starts no more trials, and asks those that run to save a checkpoint and exit. Returns a message. Raises
    `RunError`."""
    return _end(folder, runs.stop, "PENDING", "save a checkpoint and exit")


def cancel(folder: SweepDir) -> str:
    """Starts no more trials, and ends those that run at once. Returns a message. Raises `RunError`."""
    return _end(folder, runs.cancel, "", "were ended")


def _end(folder: SweepDir, act: Callable[[RunDir], str], state: str, what: str) -> str:
    """Halts the sweep: takes its job arrays, or their tasks in a `state`, out of SLURM's queue, and does something to
    the runs that have not ended."""
    with folder.changing() as sweep:
        sweep = replace(sweep, halted=True, again=())
        sweep.write(folder.record)
    if sweep.jobs:
        try:
            cancel_jobs(*sweep.jobs, state=state)
        except SlurmUnreachableError as error:
            raise RunError(Fault(what="no more trials start, but SLURM does not answer: its jobs are still queued",
                                 where=str(folder.path), given=str(error), remedy="Try again later.")) from None
<<<<<<< HEAD
    live = [one for one in states_of(folder, sweep) if one.state not in (*ENDED, WAITING, REFUSED, "damaged")]
=======
    live = [one for one in states_of(folder, sweep) if one.state not in (*ENDED, WAITING, PRUNED, "damaged")]
>>>>>>> newcomer
    problems = []
    for one in live:
        try:
            act(folder.run(sweep, one.trial.number))
        except UserError as error:
            problems.append(f"trial {one.trial.number}: {headline(str(error))}")
    done = len(live) - len(problems)
    return "\n".join([f"{folder.name}: no more trials start; {done} that ran {what}.", *problems,
                      f"To resume it: {sweep_command('resume', folder)}"])


def check_unchanged(args: argparse.Namespace) -> None:
    """Raises `ConfigError` if a sweep is to be resumed with changes: all of its trials have one plan."""
    given = [*args.words, *(f"--{name}" for name in ("gpus", "procs", "nodes", "slurm", "here", "debug", "profile")
                            if getattr(args, name))]
    if given:
        raise ConfigError(Fault(what="a sweep is resumed as it was started", where="command line",
                                given=" ".join(given), remedy="Remove it; or resume a single trial with it: drumbeat "
                                                              "resume SWEEP/0007 KEY=VALUE"))


def resume(folder: SweepDir, trust: bool = False) -> str:
    """Starts the trials that have not been started, and resumes those that have ended before they finished. Returns a
    message. Raises `UserError`: also if another user may have written what is executed, unless they are trusted."""
    if not trust:
        check_owner(folder, "this command", f"{sweep_command('resume', folder)} --trust")
    with folder.changing() as sweep:
        states = states_of(folder, sweep)
        stopping = sweep.halted  # those that run are about to end
        again = [one.trial.number for one in states if (one.state in ENDED and one.state != "finished") or (
            stopping and one.state not in (*ENDED, WAITING, PRUNED, REFUSED, "damaged"))]
        waiting = [one.trial.number for one in states if one.state in (WAITING, REFUSED)]
        queued = _queued(sweep)
        numbers = sorted({*again, *waiting} - queued)
        on_slurm = backend_of(sweep.backend).on_slurm
        sweep = replace(sweep, halted=False, again=() if on_slurm else tuple(again), refused={})
        sweep.write(folder.record)
    if not numbers and not _needs_queue(folder, sweep, states):
        return f"{folder.name}: nothing is left to start ({counts_text(states)})"
    submit(folder, sweep, numbers)
    return (f"{folder.name}: {len(set(waiting) - queued):,} to start, {len(set(again) - queued):,} to resume\n"
            f"{sweep_command('status', folder)}")


def _queued(sweep: Sweep) -> set[int]:
    """The trials that SLURM's job arrays have still to start, or run."""
    if not sweep.jobs:
        return set()
    try:
        return array_tasks(*sweep.jobs)
    except SlurmUnreachableError as error:
        raise RunError(Fault(what="the sweep cannot be resumed: SLURM does not answer", given=str(error),
                             where="squeue", remedy="Try again later.")) from None


def keep_queue(folder: SweepDir, sweep: Sweep, states: Sequence[TrialState]) -> str:
    """Starts the queue of this machine again if it was killed. Returns a message; '' if it does not have to run, or if
    another user may have written what it executes."""
    found = Queue.read(folder.queue)
    if not found or found.space != process_space() or not _needs_queue(folder, sweep, states):
        return ""
    with suppress(OSError, UserError):
        check_owner(folder, "this command", "")
        return f"the queue had ended early; it runs again as process {start_queue(folder)}"
    return ""


def _needs_queue(folder: SweepDir, sweep: Sweep, states: Sequence[TrialState]) -> bool:
    """Whether trials are left to a queue of this machine, which is not running."""
    halves = sweep.asha and ({*promoted(sweep)} & {one.trial.number for one in states if one.state == PRUNED} or any(
        one.state not in (*ENDED, PRUNED, WAITING, REFUSED, "damaged") for one in states))
    left = halves or sweep.again or any(one.state == WAITING for one in states)
    return bool(left) and not sweep.halted and not backend_of(sweep.backend).on_slurm and not folder.queue_is_running()
