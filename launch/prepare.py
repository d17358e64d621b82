"""Runs `trainers.prepare` in a process of its own, because it imports torch, and reads what it found."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

from configs.errors import Fault, PrepareError
from configs.schema import Config
from launch.plan import JobPlan, leaked


def prepare(config: Config, plan: JobPlan) -> dict[str, Any]:
    """Facts about the run: samples, steps, parameters. Raises `PrepareError` with everything that is wrong.

    Downloads happen here; what they print goes to this terminal.
    """
    print("preparing  model, weights and data ...", file=sys.stderr, flush=True)
    scrubbed = {name: value for name, value in os.environ.items() if name not in leaked(os.environ)}
    question = {"config": dataclasses.asdict(config), "topology": dataclasses.asdict(plan.topology),
                "where": plan.where}
    done = subprocess.run([plan.python, "-m", "trainers.prepare"], input=json.dumps(question),
                          stdout=subprocess.PIPE, text=True, env=scrubbed | plan.environment, check=False,
                          process_group=0)  # Ctrl-C is for this process alone, which ends that one without a word
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise PrepareError(Fault(what=f"preparing ended with exit code {done.returncode} and no answer",
                                 where="python -m trainers.prepare", remedy="Its own words stand above.")) from None
    if "faults" in answer:
        raise PrepareError(*(Fault(**fault) for fault in answer["faults"]))
    return answer


def facts_text(facts: dict[str, Any]) -> str:
    """The facts in two lines for a terminal."""
    samples = ", ".join(f"{count:,} {name}" for name, count in facts["samples"].items())
    steps = ", ".join(f"{count:,} in {name}" for name, count in facts["steps"].items())
    return f"samples    {samples}\nsteps      {steps}  ({facts['parameters']:,} parameters)"
