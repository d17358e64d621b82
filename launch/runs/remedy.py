"""What to do about a run that has ended without finishing: never a command that would end the same way again."""

from __future__ import annotations

from contextlib import suppress

from drumbeat.configs.errors import FIX, UserError, unwrapped
from drumbeat.configs.load import read
from drumbeat.configs.run.records import NodeDown, RankError, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.attempts.blame import reports
from drumbeat.launch.attempts.meanings import UNKNOWN, UNREADABLE, explain
from drumbeat.launch.attempts.verdict import TIME_LIMIT
from drumbeat.launch.backends.typed import command
from drumbeat.launch.plan.snapshot import newest_code

OURS = ("ConfigError", "PreflightError", "LaunchError", "RunError", "DamagedError")
"""Exceptions whose message says what to do."""
NOT_THE_CODE = ("", "NotFiniteError", "NeverFiniteError", "DistBackendError", "SaveError", "LostBestError", *OURS)
"""Exceptions whose reason is not an error in the code."""
RESUME = "drumbeat resume RUN"
"""How texts of the ranks, which do not know where their user types, write the command."""


def resume_command(view: View) -> str:
    """The command that resumes a run: with its code as it is now if an error in the copy of its code has ended it, and
    with the change that gets past a step that would end it again."""
    return command("resume", view.run) + _option(view)


def has_own_remedy(view: View) -> bool:
    """Whether the error that has ended a run names a command for it, so that the plain one is not enough."""
    return _exception(view) in OURS and RESUME in _fix(view)


def remedy(view: View) -> str:
    """What to do, as text with a command."""
    exception, resume, plain = _exception(view), resume_command(view), command("resume", view.run)
    if found := _findings(view):
        number, down = min(found.items(), key=lambda one: (one[1].check != "missing", one[0]))
        log = f"details: attempts/{view.number:03d}/node{number}.log"
        return (f"Make it visible on the nodes ({log}), then resume the run: {plain}" if down.check == "missing" else
                f"Try node_check on a node ({log}), or correct the profile, then resume the run with it: {plain} "
                "--profile FILE")
    if exception == "NotFiniteError":
        return (f"Skip such steps: {resume}\nOr look at the step in this process, with a breakpoint in your code: "
                f"{plain} --debug")
    if exception == "NeverFiniteError":
        return ("Skipping such steps does not help. Train with a lower learning rate, as a new run: "
                f"{command('rerun', view.run)}{_lower_rate(view)}")
    if exception in OURS:
        fix = _fix(view).replace(RESUME, plain)
        return fix if "drumbeat " in fix else f"{fix or 'Correct what it says.'} Then resume the run: {plain}"
    if exception in UNREADABLE:
        return f"Use other samples in place of such: {resume}\nOr repair the file, then resume the run: {plain}"
    if exception == "OutOfMemoryError" and resume != plain:
        return f"Split the batches: {resume}"
    if _reason(view) == TIME_LIMIT:
        return f"Increase time_minutes in your profile, then resume the run with it: {plain} --profile FILE"
    meaning, fix = _meaning(view)
    if exception not in NOT_THE_CODE and meaning == UNKNOWN:
        return f"Correct the code, then resume the run: {resume}"
    return f"{fix[0].upper()}{fix[1:]}. Then resume the run: {resume}" if fix else f"Resume it: {resume}"


def _findings(view: View) -> dict[int, NodeDown]:
    """What checks have found on nodes before the ranks of the attempt for which the run was given up, by their number.
    """
    found = reports(view.attempt) if view.attempt and _verdict(view) else {}
    return {number: down for number, down in found.items() if down.check}


def _option(view: View) -> str:
    """What follows the command that resumes a run."""
    exception = _exception(view)
    if exception == "NotFiniteError":
        return " on_nonfinite=skip"
    if exception == "OutOfMemoryError":
        return _smaller_parts(view)
    if exception in UNREADABLE:
        return " data.on_error=skip"
    is_code = exception not in NOT_THE_CODE and _meaning(view)[0] == UNKNOWN
    return " --new-code" if is_code and newest_code(view.run.path) else ""


def _smaller_parts(view: View) -> str:
    """Half the number of samples that a rank computes at once, as an option; '' if it is one, as it is
    where micro_batch_size: auto fails."""
    with suppress(UserError):
        config = read(view.run.config)
        phase = config.phases.get(view.heartbeat.phase if view.heartbeat else "")
        if config.micro_batch_size == "auto":
            return ""
        parts = config.virtual_ranks or view.world_size
        size = -(-((phase and phase.batch_size) or config.batch_size) // parts)
        half = min(size, config.micro_batch_size or size) // 2
        return f" micro_batch_size={half}" if half else ""
    return ""


def _lower_rate(view: View) -> str:
    """A tenth of the learning rate of the newest phase, as an option; '' if the config has none."""
    with suppress(UserError):
        name = view.heartbeat.phase if view.heartbeat else ""
        phase = read(view.run.config).phases.get(name)
        rate = phase.optimizer.get("lr") if phase else None
        return f" phases.{name}.optimizer.lr={rate / 10:g}" if isinstance(rate, int | float) else ""
    return ""


def _fix(view: View) -> str:
    """What the error of the rank that failed first says about how to fix it; may be ''."""
    error = _error(view)
    return unwrapped(error.message, FIX) if error else ""


def _meaning(view: View) -> tuple[str, str]:
    """What the error of the rank that failed first means, and how to fix it; '' if it is not known."""
    error = _error(view)
    what, _, fix = explain(error.type, error.message, error.traceback) if error else (UNKNOWN, "", "")
    return what, fix


def _error(view: View) -> RankError | None:
    """The error of the rank that failed first."""
    verdict = _verdict(view)
    return RankError.read(view.attempt.error(verdict.rank)) if view.attempt and verdict else None


def _exception(view: View) -> str:
    """The type of the exception for which the run was given up; '' if there was none."""
    verdict = _verdict(view)
    return verdict.error.partition(" ")[0] if verdict else ""


def _reason(view: View) -> str:
    verdict = _verdict(view)
    return verdict.reason if verdict else ""


def _verdict(view: View) -> Verdict | None:
    """The verdict with which the run was given up."""
    verdict = Verdict.read(view.attempt.verdict) if view.state == "failed" and view.attempt else None
    return verdict if verdict and verdict.next == "give up" else None
