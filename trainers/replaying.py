"""A replay: resumes from a checkpoint of another run in a folder of its own, and looks closely at one step."""

from __future__ import annotations

import pdb
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.replay_records import ReplayedStep, ReplayRequest
from drumbeat.data.loader import Batch
from drumbeat.trainers.gradient_digest import digest_row, fold
from drumbeat.trainers.loop import Training
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.world import World

VARIABLES = """runner.model is the model, parts[0].inputs and parts[0].targets are the
samples, and parts[0].indices their indices. s steps into the line, c computes
it and ends, q ends at once."""


class LoneRank(World):
    """One rank of several, without the others: what it reduces, broadcasts or gathers is its own."""

    @property
    def is_main(self) -> bool:
        return True

    @property
    def is_alone(self) -> bool:
        return True

    def all_gather(self, values: Tensor) -> list[Tensor]:
        return [values.cpu().contiguous()] * self.size

    def gather(self, values: Tensor) -> list[Tensor]:
        return [values] * self.size


def lone_rank(world: World, request: ReplayRequest) -> World:
    """The world of a process that debugs one rank's part of a step."""
    return LoneRank(rank=request.rank, local_rank=0, size=request.ranks, device=world.device)


@dataclass(frozen=True)
class Replaying:
    """Computes the steps of a replay, and records one."""

    training: Training
    request: ReplayRequest
    attempt: Attempt

    def compute(self, runner: PhaseRunner, parts: Sequence[Batch], phase_step: int) -> Tensor:
        """As `PhaseRunner.backward`. Raises `SystemExit` after a step that was debugged."""
        step = self.training.progress.step + 1
        if step != self.request.step:
            return runner.backward(parts, phase_step)
        if self.request.debugs:
            print(f"\nstep {step:,} of the run, rank {self.request.rank} of {self.request.ranks}: the next line "
                  f"computes its loss and gradients.\n{VARIABLES}", flush=True)
            pdb.set_trace()
        loss = runner.backward(parts, phase_step)
        if self.request.debugs:
            print(f"this rank's part of the loss: {float(loss):.9g}", flush=True)
            raise SystemExit(0)
        self._record(runner, parts)
        return loss

    def _record(self, runner: PhaseRunner, parts: Sequence[Batch]) -> None:
        world, names = self.training.world, self.training.saver.names()
        positions, indices = (torch.cat([getattr(part, which) for part in parts]).tolist()
                              for which in ("positions", "indices"))
        gradients = {name: parameter.grad for name, parameter in runner.model.named_parameters()
                     if parameter.grad is not None} if world.is_main else {}
        digests = {name: f"{int(fold(digest_row([gradient])[None])) % 2**64:016x}"
                   for name, gradient in gradients.items()}
        ReplayedStep(phase=runner.name, positions=tuple(positions), indices=tuple(indices),
                     names=tuple(names[index] for index in indices) if names else (), gradients=digests,
                     ).write(self.attempt.replayed(world.rank))


def replaying(training: Training, request: ReplayRequest, attempt: Attempt) -> Training:
    """The training of a replay."""
    training.coordinator.stop_at = request.step
    return replace(training, compute=Replaying(training, request, attempt).compute)

