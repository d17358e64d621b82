"""Profiles some steps of a running phase: torch's trace of the chosen ranks, and the times of all ranks.

It starts at the step on which the ranks agree (`stopping.py`), and ends by itself. It observes the steps through hooks
and `StepTimes`, which are there only meanwhile, so that other steps cost nothing. It draws no random number and changes
no tensor, so the weights are those of a run without it.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.files import write_soon
from drumbeat.configs.run.profile_records import PARTS, Profile, ProfileRequest
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.step_times import Moment, Step, seconds
from drumbeat.trainers.stopping import WARM_UP_STEPS


class Profiling:
    """A profile of the next steps of a phase, on this rank."""

    def __init__(self, request: ProfileRequest, runner: PhaseRunner, attempt: Attempt, step: int) -> None:
        """`step` is the number of the next step of the run."""
        self.request = request
        self.times = runner.times
        self.model = runner.gradients.replica
        self.world = runner.world
        self.attempt = attempt
        self.first = step + WARM_UP_STEPS
        self.steps: list[Step] = []
        self.forward: list[list[Moment]] = [[]]
        """Of each step, the beginnings and ends of its forward passes."""
        self.hooks: list[Any] = []
        self.profiler: torch.profiler.profile | None = None

    def start(self) -> None:
        """Starts before a step, on all ranks."""
        self.times.observe(self._observe)
        self.hooks = [self.model.register_forward_pre_hook(self._note), self.model.register_forward_hook(self._note)]
        if self.world.rank in self.request.ranks:
            kinds = torch.profiler.ProfilerActivity
            schedule = torch.profiler.schedule(wait=0, warmup=WARM_UP_STEPS, active=self.request.steps, repeat=1)
            self.profiler = torch.profiler.profile(
                activities=[kinds.CPU, *([kinds.CUDA] if self.world.device.type == "cuda" else [])],
                schedule=schedule, on_trace_ready=partial(write_trace, self.attempt.trace(self.first, self.world.rank)))
            self.profiler.start()

    def _note(self, module: torch.nn.Module, *_: Any) -> None:
        if module.training:  # an evaluation calls the same module if there is one rank
            self.forward[-1].append(self.times.now())

    def _observe(self, step: Step | None) -> None:
        """Counts a step; None is the end of the phase."""
        if step is not None:
            self.steps.append(step)
            self.forward.append([])
            if len(self.steps) < WARM_UP_STEPS + self.request.steps:
                if self.profiler is not None:
                    self.profiler.step()
                return
        for hook in self.hooks:
            hook.remove()
        self.times.observe(None)
        if self.profiler is not None:
            self.profiler.stop()
        self._write()

    def _write(self) -> None:
        """Rank 0 collects the times, which the others send when they have written their traces."""
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        each = self.world.gather(mean_times(self.steps, self.forward))
        if not each:
            return
        fields = dict(zip((*PARTS, "samples"), torch.stack(each).T.tolist(), strict=True))
        profile = Profile.parse({"id": self.request.id, "step": self.first, "traces": [*self.request.ranks],
                                 "steps": max(0, len(self.steps) - WARM_UP_STEPS), **fields})
        write_soon(self.attempt.profiled(self.first), json.dumps(profile.as_json()) + "\n", 0)
        print(f"profiled   {profile.steps:,} steps from step {self.first:,} on", flush=True)


def mean_times(steps: list[Step], forward: list[list[Moment]]) -> Tensor:
    """float64 [7]: the seconds of each of `PARTS`, and the samples, of an average step. The first steps are for
    warming up; zeros if there are no others. `forward` are, of each step, the beginnings and ends of its forward
    passes."""
    rows = []
    for last, step, passes in zip(steps[WARM_UP_STEPS - 1:], steps[WARM_UP_STEPS:], forward[WARM_UP_STEPS:],
                                  strict=False):
        between, communication = seconds(last.ended, step.begun), seconds(step.own, step.reduced)
        data, optimizer = min(step.waited, between), seconds(step.reduced, step.ended)
        ahead = sum(seconds(*pair) for pair in zip(passes[::2], passes[1::2], strict=True)) if passes else torch.nan
        backward = seconds(step.begun, step.own) - (ahead if passes else 0.0)
        rows.append([data, ahead, backward, communication, optimizer, between - data, step.samples])
    return torch.tensor(rows or [[0.0] * 7], dtype=torch.float64).mean(0)


def write_trace(path: Path, profiler: torch.profiler.profile) -> None:
    """Writes the trace in Chrome's format, compressed. If that fails, says so: the run continues."""
    part = path.with_name(f".{path.name}.tmp.gz")
    try:
        profiler.export_chrome_trace(str(part))
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        print(f"note: the trace of this rank could not be written: {error}", flush=True)
