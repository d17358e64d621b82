"""What to do about a run that has ended without finishing."""

from __future__ import annotations

from drumbeat.configs.errors import FIX, unwrapped
from drumbeat.configs.run.records import RankError, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.typed import command
from drumbeat.launch.plan.snapshot import newest_code

OURS = ("ConfigError", "PreflightError", "LaunchError", "RunError", "DamagedError")
"""Exceptions whose message says what to do."""
NOT_THE_CODE = ("", "NotFiniteError", "OutOfMemoryError", "DistBackendError", "SaveError", "LostBestError", *OURS)
"""Exceptions whose reason is not an error in the code."""


def resume_command(view: View) -> str:
    """The command that resumes a run: with its code as it is now if an error in the copy of its code has ended it, and
    in this process if its loss was NaN or Inf, which would end it again."""
    exception, option = _exception(view), ""
    if exception == "NotFiniteError":
        option = " --debug"
    elif exception not in NOT_THE_CODE and newest_code(view.run.path):
        option = " --new-code"
    return command("resume", view.run) + option


def remedy(view: View) -> str:
    """What to do, as text with a command."""
    exception = _exception(view)
    if exception == "NotFiniteError":
        return (f"Resume it in this process, with a breakpoint in your code: {resume_command(view)}. Or skip "
                f"such steps in a new run: {command('rerun', view.run)} on_nonfinite=skip")
    if exception in OURS:
        fix = _fix(view)
        return fix if "drumbeat " in fix else (
            f"{fix or 'Correct what it says.'} Then resume the run: {command('resume', view.run)}")
    if exception not in NOT_THE_CODE:
        return f"Correct the code, then resume the run: {resume_command(view)}"
    return f"Resume it: {command('resume', view.run)}"


def _fix(view: View) -> str:
    """What the error of the rank that failed first says about how to fix it; may be ''."""
    verdict = Verdict.read(view.attempt.verdict) if view.attempt else None
    error = RankError.read(view.attempt.error(verdict.rank)) if view.attempt and verdict else None
    return unwrapped(error.message, FIX) if error else ""


def _exception(view: View) -> str:
    """The type of the exception for which the run was given up; '' if there was none."""
    verdict = Verdict.read(view.attempt.verdict) if view.state == "failed" and view.attempt else None
    return verdict.error.partition(" ")[0] if verdict and verdict.next == "give up" else ""
