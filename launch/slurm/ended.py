"""How a job has ended, as far as SLURM still knows: its controller for some minutes, its accounting for longer."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from drumbeat.configs.text_fields import user_name
from drumbeat.launch.slurm.client import SHORT_TIMEOUT, job_fields, run_slurm, split_id
from drumbeat.launch.slurm.states import ENDED

NO_LOG = 53
"""In place of a signal, in the exit code of a job whose log file could not be opened."""


@dataclass(frozen=True)
class JobEnd:
    """The end of a job."""

    state: str
    """FAILED, CANCELLED, TIMEOUT, ..."""
    code: int = 0
    """The exit code of its script."""
    signal: int = 0
    """The signal that killed its script; 0 if none did."""
    user: str = ""
    """Who cancelled it; '' if unknown, or if nobody did."""
    nodes: str = ""
    """Its nodes, as SLURM abbreviates them; '' if unknown."""

    @property
    def message(self) -> str:
        """What happened, and what to do about it, if it is known."""
        meaning, hint = ENDED.get(self.state, ("it has ended", ""))
        if self.signal == NO_LOG:
            meaning, hint = "its log file could not be opened", "check that the nodes see the run folder"
        elif self.state == "FAILED" and self.signal:
            name = signal.Signals(self.signal).name if self.signal in set(signal.Signals) else f"signal {self.signal}"
            meaning = f"its script was killed ({name})"
        elif self.state == "FAILED":
            meaning = f"its script ended with code {self.code}"
        elif self.user:
            meaning = f"it was cancelled by {self.user}"
        return f"{meaning} ({self.state}){f'; {hint}' if hint else ''}"


def job_end(job: str) -> JobEnd | None:
    """How a job has ended; None if it has not, or if SLURM does not know it, or does not answer."""
    fields = job_fields(job, timeout=SHORT_TIMEOUT)
    if fields:
        return _parse(fields.get("JobState", ""), fields.get("ExitCode", ""), fields.get("NodeList", ""))
    number, cluster = split_id(job)
    answer = run_slurm("sacct", "--noheader", "--parsable2", "--allocations", "--jobs", number, "--format",
                       "State,ExitCode", cluster=cluster, timeout=SHORT_TIMEOUT)
    lines = answer.text.splitlines() if answer.code == 0 else []
    return _parse(*lines[-1].split("|")[:2]) if lines and "|" in lines[-1] else None


def _parse(text: str, exit_code: str, nodes: str = "") -> JobEnd | None:
    """The end of a job from SLURM's fields: "CANCELLED by 1000" and "0:15"."""
    state, _, user = text.partition(" by ")
    if state.strip() not in ENDED:
        return None
    code, _, number = exit_code.partition(":") if re.fullmatch(r"\d+:\d+", exit_code) else ("0", "", "0")
    if user.isdigit():
        user = user_name(int(user))
    return JobEnd(state.strip(), int(code), int(number), user, "" if nodes == "(null)" else nodes)
