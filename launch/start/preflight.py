"""Runs `trainers/commands/preflight.py` in its own process, because it imports torch, and reads its result."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, PreflightError, hang
from drumbeat.configs.load import plain
from drumbeat.configs.run.code_records import with_originals
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.schema import Config
from drumbeat.launch.attempts.processes import child_setup
from drumbeat.launch.plan.inherited import not_inherited

PREFLIGHT = "drumbeat.trainers.commands.preflight"


def preflight(config: Config, plan: JobPlan) -> dict[str, Any]:
    """Facts about the run: samples, steps, parameters. Raises `PreflightError` with all faults.

    Downloads happen here, and their output goes to this terminal.
    """
    run = Path(plan.run_dir)
    print("checking   model, weights and data ...", file=sys.stderr, flush=True)
    dropped = not_inherited(os.environ)
    scrubbed = {name: value for name, value in os.environ.items() if name not in dropped}
    request = {"config": plain(config), "topology": plan.topology.as_json(), "backend": plan.backend,
               "run": plan.run_dir}
    done = subprocess.run([plan.python, "-m", "drumbeat.configs.importing", PREFLIGHT], input=json.dumps(request),
                          stdout=subprocess.PIPE, text=True, env=scrubbed | plan.environment, check=False,
                          preexec_fn=child_setup(),  # it ends with this process
                          process_group=0)  # so that Ctrl-C reaches only this process, which ends the other one quietly
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise PreflightError(Fault(what=f"the preflight check ended with exit code {done.returncode} and no result",
                                   where=f"python -m {PREFLIGHT}", remedy="Its messages are above.")) from None
    if "faults" in result:
        raise PreflightError(*(Fault(**{name: with_originals(text, run) for name, text in fault.items()})
                               for fault in result["faults"]))
    if "notes" in result:
        result["notes"] = [with_originals(note, run) for note in result["notes"]]
    return result


COPIES_OF_WEIGHTS = 3
"""A checkpoint holds the weights, and an optimizer like Adam has two more numbers for each weight."""


def check_disk_space(folder: Path, config: Config, facts: dict[str, Any]) -> str:
    """Checks that the disk has space for the run's checkpoints: those it keeps, the best, and the one being written.
    Returns a warning if not, otherwise ''. Raises `PreflightError` if there is no space for a single one."""
    one = COPIES_OF_WEIGHTS * facts["weights_bytes"]
    checkpoints, epochs = config.checkpoints, sum(phase.epochs for phase in config.phases.values() if phase)
    most = one * (checkpoints.keep + checkpoints.keep_best + 1 + math.ceil(
        epochs / (checkpoints.keep_every_epochs or math.inf)))
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < one:
        raise PreflightError(Fault(what=f"a checkpoint takes about {one / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB "
                                        "are free", where=str(folder),
                                   remedy="Free some space, or choose another place for runs: --runs DIR"))
    return "" if free >= most else (f"checkpoints may take {most / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free; "
                                    "the run pauses when the disk is full")


def facts_text(facts: dict[str, Any]) -> str:
    """The facts in two lines, and a line for each note."""
    samples = ", ".join(f"{count:,} {name}" for name, count in facts["samples"].items())
    steps = ", ".join(f"{count:,} in {name}" for name, count in facts["steps"].items())
    return f"samples    {samples}\nsteps      {steps}  ({facts['parameters']:,} parameters)" + "".join(
        f"\n{hang('note       ', note)}" for note in facts.get("notes", ()))
