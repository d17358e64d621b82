"""The script of a run on SLURM, for a job of its own and for an allocation."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.terminal import CONTROLS

JOB_VARIABLES = frozenset({"CUDA_VISIBLE_DEVICES"})
"""Variables that SLURM sets in a job. Those of the submitting shell refer to the GPUs of another machine; those in a
profile's `environment` are part of the job's script and are kept."""

LAUNCHERS = """\
srun() {  # if a node's launcher is killed, srun ends those of all nodes; then all are started again
  local code again nodes
  for again in "" {1..20}; do
    code=0; command srun ${again:+--immediate=60} "$@" || code=$?
    if [ $code -le 128 ]; then break; fi
%s  done
%s  return $code
}"""
"""A function in the job's script that wraps the command of that name. The launchers decide how often they are
restarted; the limit of twenty is for launchers that die before they can decide. Without --immediate, srun would wait
forever for a node that SLURM has taken away. It works under `set -eu`, too, which a site's setup may have set."""
LOCAL_CLUSTER = "unset SLURM_CLUSTERS SBATCH_CLUSTERS  # the launchers ask the cluster that they are on"
NODES = """\
    if nodes=$(squeue --noheader --states=all --jobs="$SLURM_JOB_ID" --format=%D) && [ "$nodes" ]; then
      export SLURM_NNODES=$nodes SLURM_JOB_NUM_NODES=$nodes SLURM_NTASKS=$nodes SLURM_NPROCS=$nodes
    fi
"""
"""Before the launchers are started again in a job of the run's own: srun would refuse to start them if the job has lost
nodes. They notice it, and go on without them, or requeue the job."""
ONE_ON_EACH = "export SLURM_NTASKS=$SLURM_NNODES SLURM_NPROCS=$SLURM_NNODES SLURM_NTASKS_PER_NODE=1"
"""For a job with a range of nodes, which cannot say how many tasks it has."""
WATCH = """\
watch() {  # if this node is lost, so is this script: then another node of the job requeues it
  if [ "$SLURM_NNODES" = 1 ] || kill -0 "${watcher:-none}" 2> /dev/null; then return; fi
  command srun --export=ALL --overlap --relative=1 --nodes=1 --ntasks=1 --cpus-per-task=1 --mem=0 --gres=none bash -c '
    while sleep 60; do
      read -r first nodes <<< "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format="%B %N")"
      if [ "$first" ] && ! scontrol show hostnames "$nodes" | grep -qx "$first"; then
        scontrol requeue "$SLURM_JOB_ID" || scancel "$SLURM_JOB_ID"
      fi
    done' &> /dev/null &
  watcher=$!
}
watch"""
"""For a job that SLURM does not end when one of its nodes fails (--no-kill), even the first."""
WATCH_AGAIN = "    watch\n"
"""For such a job, before the launchers are started again: the watching node may be the one that is gone."""
REQUEUE = """\
  if [ $code = 76 ]; then scontrol requeue "$SLURM_JOB_ID"; fi  # for launchers in a container
"""

PLACES = {"run_dir": "the run folder", "folder": "the current folder", "python": "the path of Python"}
"""What values of a plan are to the user; others are named by their keys."""
VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def check_values(plan: JobPlan) -> None:
    """Raises `LaunchError` if a value of the plan would become a line of the script, because it contains a line break
    or another control character. Only the profile's `setup` may have several lines: it is a script."""
    values = plan.as_json()
    values["site"].pop("node_check")  # the launchers run it
    setup = "\n".join(values["site"].pop("setup")).translate({ord("\n"): None, ord("\t"): None})
    found = [*_texts(values), ("site.setup", setup)]
    wrong = {text: key for key, text in reversed(found) if any(ord(one) in {*CONTROLS, 9, 10} for one in text)}
    wrong |= {name: "site.environment" for name in plan.site.environment if not VARIABLE.fullmatch(name)}
    wrong = {text: key for text, key in wrong.items() if key in PLACES} or wrong  # other values contain these
    if wrong:
        raise LaunchError(*(Fault(
            what="a line break or another control character would become a part of the job's script"
            if key != "site.environment" else "the name of an environment variable has letters, digits and '_' only",
            where=PLACES.get(key) or key.replace("site.", "the cluster's profile, ", 1), given=repr(text),
            remedy="Rename the folder." if key in PLACES else "Remove it.") for text, key in wrong.items()))


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The dotted key and the text of all texts in a JSON value, including the names of its keys."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield key, name
            yield from _texts(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def with_backslashes(script: str) -> str:
    """The script with all backslashes in its options doubled: sbatch removes single ones, even between quotes."""
    return re.sub(r"^#SBATCH .*", lambda line: line[0].replace("\\", "\\\\"), script, flags=re.MULTILINE)


def setup_lines(plan: JobPlan, cpus: int, again: str = "", after: str = "") -> list[str]:
    """The lines of the script before its command; `again` are those that run before the launchers are started again,
    `after` those that run when they have ended."""
    site = plan.site
    return [*site.setup, *(f"export {name}={shlex.quote(value)}" for name, value in site.environment.items()),
            f"export SRUN_CPUS_PER_TASK={cpus}", LOCAL_CLUSTER,
            *(f"export {name}={shlex.quote(plan.environment[name])}" for name in ("PYTHONPATH", "PYTHONSAFEPATH")),
            LAUNCHERS % (again, after)]


def node_command(plan: JobPlan) -> str:
    """The shell command that starts a node's launcher, in the site's container if it has one."""
    folder = RunDir(Path(plan.run_dir)).submitit
    return f"{python_words(plan)} -u -m submitit.core._submit {shlex.quote(str(folder))}"


def python_words(plan: JobPlan) -> str:
    return f"{plan.site.prefix} {shlex.quote(plan.python)}".strip()
