"""Runs `trainers/commands/preflight.py` in a process of its own, because it imports torch, and reads what it found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.load import plain
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.schema import Config
from drumbeat.launch.plan.job import leaked

PREFLIGHT = "drumbeat.trainers.commands.preflight"


def preflight(config: Config, plan: JobPlan) -> dict[str, Any]:
    """Facts about the run: samples, steps, parameters. Raises `PreflightError` with everything that is wrong.

    Downloads happen here; what they print goes to this terminal.
    """
    print("checking  model, weights and data ...", file=sys.stderr, flush=True)
    scrubbed = {name: value for name, value in os.environ.items() if name not in leaked(os.environ)}
    question = {"config": plain(config), "topology": plan.topology.as_json(),
                "backend": plan.backend}
    done = subprocess.run([plan.python, "-m", "drumbeat.configs.importing", PREFLIGHT], input=json.dumps(question),
                          stdout=subprocess.PIPE, text=True, env=scrubbed | plan.environment, check=False,
                          process_group=0)  # Ctrl-C is for this process alone, which ends that one without a word
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise PreflightError(Fault(what=f"the preflight check ended with exit code {done.returncode} and no answer",
                                   where=f"python -m {PREFLIGHT}", remedy="Its own words stand above.")) from None
    if "faults" in answer:
        raise PreflightError(*(Fault(**fault) for fault in answer["faults"]))
    return answer


STATES = 3
"""A checkpoint holds the weights, and of Adam's kind of optimizer two more numbers for each of them."""


def check_room(folder: Path, config: Config, facts: dict[str, Any]) -> str:
    """Looks whether the disk has room for the run's checkpoints: those it keeps, the best, and the one being written.
    Returns a warning where it has not, '' where it has. Raises `PreflightError` where there is no room for one."""
    one = STATES * facts["weights_bytes"]
    most = one * (config.checkpoints.keep + 2)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < one:
        raise PreflightError(Fault(what=f"a checkpoint takes about {one / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB "
                                        "are free", where=str(folder),
                                   remedy="Make room, or choose another place for runs: --runs DIR"))
    return "" if free >= most else (f"checkpoints may take {most / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free; "
                                    "the run pauses when the disk is full")


def facts_text(facts: dict[str, Any]) -> str:
    """The facts in two lines for a terminal."""
    samples = ", ".join(f"{count:,} {name}" for name, count in facts["samples"].items())
    steps = ", ".join(f"{count:,} in {name}" for name, count in facts["steps"].items())
    return f"samples    {samples}\nsteps      {steps}  ({facts['parameters']:,} parameters)"
