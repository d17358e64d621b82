"""Profiles a run: asks its ranks, waits for what they write, and prints it as a table."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from drumbeat.configs.errors import Fault, LaunchError, RunError
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.profile_records import MOST_STEPS, Profile, ProfileRequest
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.typed import command
from drumbeat.launch.runs.status import unrecorded_end

POLL_SECONDS = 0.2
LOOK_SECONDS = 5.0
"""Between two looks at whether the run is still running."""
TAKE_SECONDS = 60.0
"""Ranks that train for so long and have not taken a request do not know of profiles."""


def profile(run: RunDir, steps: int, ranks: str) -> None:
    """Asks the ranks of a run for a profile, waits for it, and prints it. Raises `LaunchError` for arguments that do
    not fit, and `RunError` if the run is not running."""
    view = View.read(run)
    if not 1 <= steps <= MOST_STEPS:
        raise LaunchError(Fault(what="a profile has at least one step, and not too many", where="--steps",
                                given=str(steps), remedy=f"Choose 1 to {MOST_STEPS:,} steps."))
    traced = parse_ranks(ranks, view.world_size)
    attempt = running_attempt(view)
    if attempt.profile.exists():
        raise RunError(Fault(what="the run has been asked for a profile already", where=str(attempt.profile),
                             remedy="Wait until that has started. If nobody waits for it, remove the file."))
    request = ProfileRequest(id=os.urandom(8).hex(), steps=steps, ranks=traced)
    request.write(attempt.profile, durable=False)
    print(f"profiling  {steps} step{'s' * (steps > 1)} of {run.id}, after one for warming up", flush=True)
    try:
        found = _wait(run, attempt, request)
    finally:
        if (left := ProfileRequest.read(attempt.profile)) and left.id == request.id:
            with suppress(OSError):
                attempt.profile.unlink()
    if not found.steps:
        raise RunError(Fault(what="the phase has ended before a step was measured", where=str(run.path),
                             remedy=f"If another one follows: {command('profile', run)}"))
    print(found.text)
    for rank in traced:
        trace = attempt.trace(found.step, rank)
        print(f"trace      {trace if trace.exists() else f'none of rank {rank}: its log says why'}")
    print("           open it in https://ui.perfetto.dev or chrome://tracing")


def parse_ranks(typed: str, ranks: int) -> tuple[int, ...]:
    """The ranks, such as "0,1". Raises `LaunchError` if these are not ranks of a run with so many."""
    names = [name.strip() for name in typed.split(",")]
    if not all(name.isdecimal() and int(name) < ranks for name in names):
        raise LaunchError(Fault(what=f"the ranks of this run are {'0' if ranks == 1 else f'0 to {ranks - 1}'}",
                                where="--ranks", given=typed, remedy="Separate several by commas: --ranks 0,1"))
    return tuple(sorted({int(name) for name in names}))


def running_attempt(view: View) -> Attempt:
    """The attempt of a run that is running. Raises `RunError`."""
    run, state = view.run, view.state or "unknown"
    if view.attempt is not None and state in ("running", "paused") and not unrecorded_end(view):
        return view.attempt
    remedy = (f"Run it again: {command('rerun', run)}" if state == "finished" else
              f"Resume it: {command('resume', run)}" if view.ended or state in ("running", "paused") else
              f"Wait until it has started: {command('status', run)}")
    raise RunError(Fault(what="only a running run can be profiled", where=str(run.path), given=f"state: {state}",
                         remedy=remedy))


def _wait(run: RunDir, attempt: Attempt, request: ProfileRequest) -> Profile:
    """The profile, when it is there. Raises `RunError` if the attempt ends before, or does not take the request."""
    began = looked = time.monotonic()
    at = _step(run)
    while True:
        for file in attempt.profiles():
            found = Profile.read(file)
            if found and found.id == request.id:
                return found
        time.sleep(POLL_SECONDS)
        if (now := time.monotonic()) - looked < LOOK_SECONDS:
            continue
        looked = now
        view = View.read(run)
        if view.attempt != attempt or view.ended or unrecorded_end(view):
            raise RunError(Fault(what="the attempt has ended before the profile did", where=str(attempt.path),
                                 given=f"state: {view.state}", remedy=f"See: {command('status', run)}"))
        if now - began > TAKE_SECONDS and _step(run) > at + 1 and attempt.profile.exists():
            raise RunError(Fault(what="the ranks train, but do not take the request", where=str(attempt.profile),
                                 remedy="The run's copy of the code may be older than this command: continue it with "
                                        f"{command('resume', run)} --new-code"))


def _step(run: RunDir) -> int:
    beat = View.read(run).heartbeat
    return beat.step if beat else 0
