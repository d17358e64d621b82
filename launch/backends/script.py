"""The script of a run on SLURM: the same lines start the launchers in a job of the run's own and in an allocation."""

from __future__ import annotations

import shlex
from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan

GIVEN = frozenset({"CUDA_VISIBLE_DEVICES"})
"""In a job SLURM sets this. The value of the shell that submits the job names GPUs of another machine; the one in a
profile's `environment` is part of the job's script and stays."""

LAUNCHERS = """\
srun() {  # a node's launcher that is killed takes those of the other nodes with it; then all start again
  local code again
  for again in "" {1..20}; do
    command srun ${again:+--immediate=60} "$@"; code=$?
    if [ $code -le 128 ]; then break; fi
  done
%sreturn $code
}"""
"""A function in the job's script around the command of that name. How often is decided by the launchers, from how far
the run gets; twenty times is for those that die before they can. Where SLURM has taken a node away, srun would wait
for it for ever, if not told to start at once."""
REQUEUE = """\
  if [ $code = 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi  # for launchers in a container
  """


def setup_lines(plan: JobPlan, cpus: int, after: str = "  ") -> list[str]:
    """The script's lines ahead of its command; `after` is what it does when the launchers are through."""
    site = plan.site
    return [*site.setup, *(f"export {name}={shlex.quote(value)}" for name, value in site.environment.items()),
            f"export SRUN_CPUS_PER_TASK={cpus}",
            *(f"export {name}={shlex.quote(plan.environment[name])}" for name in ("PYTHONPATH", "PYTHONSAFEPATH")),
            LAUNCHERS % after]


def node_command(plan: JobPlan) -> str:
    """The shell words that start a node's launcher: in a container, where the site has one."""
    folder = RunDir(Path(plan.run_dir)).submitit
    return f"{python_words(plan)} -u -m submitit.core._submit {shlex.quote(str(folder))}"


def python_words(plan: JobPlan) -> str:
    return f"{plan.site.prefix} {shlex.quote(plan.python)}".strip()
