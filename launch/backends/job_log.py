"""The log of a SLURM job, outside of the attempts: what its script printed, and its launchers before the first attempt.

It tells why a job ended before its launchers began: a command in the profile's setup failed, a container was not found,
or the node does not see a file.
"""

from __future__ import annotations

import re
from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.attempts.logs import end_of
from drumbeat.launch.slurm.client import split_id

LINES = 5
"""How many lines are quoted."""
CONSEQUENCES = re.compile(
    r"^\s*$|^submitit (INFO|WARNING)|^(srun|slurmstepd)[^:]*: (error: )?.*"
    r"(task[s ].*: ?(Exited|Killed|Terminated|Aborted)|Exited with exit code|Job step aborted|Terminating (job step|"
    r"StepId)|Step created for|STEP \S+ .*CANCELLED|_step_signal|Force Terminated)")
"""Lines that only say that something has ended."""
ENDED = re.compile(r"^srun: error: (\S{1,999}): tasks? (\S{1,999}): Exited with exit code", re.MULTILINE)
"""srun's line about launchers that ended with an error by themselves."""
REPEATED = 5
"""How often a launcher must have failed on the same node."""


def log_files(run: RunDir, job: str) -> list[Path]:
    """The job's log files that are not empty: standard error first, and in the order of the nodes."""
    number = split_id(job)[0]
    folders = (run.submitit, run.path.parent / "submitit")  # a job array has one for all of its runs
    found = [path for folder in folders for path in folder.glob(f"{number}_*log.*") if path.suffix in (".err", ".out")]
    return sorted((path for path in found if path.stat().st_size), key=lambda path: (path.suffix, _node(path)))


def last_change(run: RunDir, job: str) -> float:
    """When the job last wrote to its log, in seconds since 1970; 0 if it has written nothing."""
    return max((path.stat().st_mtime for path in log_files(run, job)), default=0.0)


def last_lines(path: Path, count: int = LINES) -> list[str]:
    """The last lines of a log that say more than that something has ended."""
    return [line.strip() for line in end_of(path).splitlines() if not CONSEQUENCES.search(line)][-count:]


def last_line(run: RunDir, job: str) -> str:
    """The last such line in the job's log, of the node without a launcher if there is one; '' if there is none."""
    _, task = node_without_launcher(run, job)
    files = sorted(log_files(run, job), key=lambda path: _node(path) != task)
    return next((lines[-1] for path in files if (lines := last_lines(path, 1))), "")


def node_without_launcher(run: RunDir, job: str) -> tuple[str, int]:
    """The only one of the job's nodes on which a launcher never starts, and its number; '' and -1 if there is none.

    srun ends the launchers of the other nodes, and the job's script starts all of them again. If the reason were the
    same on all nodes, others would be the first to fail now and then, and the script would not start them again if all
    had failed."""
    found = [one for path in log_files(run, job) for one in ENDED.findall(end_of(path))]
    node, task = found[0] if len(found) >= REPEATED and len(set(found)) == 1 else ("", "")
    return (node, int(task)) if re.fullmatch("[0-9]{1,9}", task) else ("", -1)


def _node(path: Path) -> int:
    found = re.search(r"_(\d+)_log", path.name)
    return int(found[1]) if found else -1
