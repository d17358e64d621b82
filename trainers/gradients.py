"""The gradients of a step on this rank: its passes over its parts of the batch, and the sum over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from drumbeat.data.device import to_device
from drumbeat.data.loader import Batch
from drumbeat.data.order import key
from drumbeat.data.structure import rows
from drumbeat.trainers.batch_loss import BatchLoss
from drumbeat.trainers.blame import blame
from drumbeat.trainers.checkpoints.extra_state import has_extra_state, restorer
from drumbeat.trainers.checkpoints.state import parameter_names
from drumbeat.trainers.exact_sum import ExactSum
from drumbeat.trainers.forward import Forward, call
from drumbeat.trainers.gradient_digest import OwnGradients
from drumbeat.trainers.guards import Buffers, first_gradient
from drumbeat.trainers.micro_batches import MicroBatches, is_out_of_memory, reduce_gradients
from drumbeat.trainers.replica import wrap
from drumbeat.trainers.step_times import StepTimes
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tasks.logged import begin_part
from drumbeat.trainers.virtual_ranks import Division
from drumbeat.trainers.world import World


class Gradients:
    """Computes the gradients of the steps of a phase."""

    def __init__(self, *, number: int, seed: int, model: nn.Module, frozen: Sequence[nn.Module], task: Task,
                 world: World, forward: Forward, batch_size: int, micro_batches: MicroBatches | None = None,
                 virtual_ranks: int | None = None, mixes: bool = False, checks_finite: bool = True,
                 make_replica: Callable[[nn.Module, World], nn.Module] = wrap) -> None:
        """As those of `PhaseRunner`."""
        self.number = number
        self.seed = seed
        self.model = model
        self.world = world
        self.forward = forward
        self.batch_size = batch_size
        self.division = Division.of(world, virtual_ranks)
        self.loss = BatchLoss(task, world, self.division, batch_size=batch_size, seed=seed, number=number, mixes=mixes)
        self.micro_batches = micro_batches or MicroBatches(None, world)
        self.scaler = GradScaler(world.device.type) if forward.fp16 else None
        self.checks_finite = checks_finite or forward.fp16
        self.buffers = Buffers(model, frozen)
        self.has_extra_state = any(map(has_extra_state, model.modules()))
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.names = parameter_names(model)
        self.exact = ExactSum({one: self.names[one] for one in self.trained}, self.division, world) if (
            self.division.virtual) else None
        self.replica = make_replica(model, world)
        self.own = OwnGradients(self.replica)
        self.times = StepTimes(world, self.trained)
        self.zero = torch.zeros((), device=world.device)
        if self.scaler is not None:
            self.scaler.scale(self.zero)  # which makes its tensors
        self.sample_losses: list[Tensor] = []
        """[n]: this rank's losses of the samples of the last step, by micro-batch; empty for a loss of the batch."""

    def compute(self, parts: Sequence[Batch], step: int, *, first: bool = False) -> Tensor:
        """Computes gradients of the mean loss over the global batch from this rank's parts of it, in micro-batches;
        only the last one communicates. Returns this rank's part of the loss: the sum over the ranks is the mean over
        all samples, or the task's loss of the whole batch. If the config leaves the size of micro-batches open, the
        passes are repeated until they fit into the memory of all ranks. `first` is the step that is discarded."""
        targets = [to_device(part.targets, self.world.device) for part in parts]
        scale = self.loss.scale(targets)  # which may wait for the other ranks
        self.times.begin(sum(len(part.positions) for part in parts))
        passes = partial(self._passes, parts, targets, step, scale)
        if self.exact is not None and self.has_extra_state:
            passes = partial(passes, begin=restorer(self.model))
        loss = self._fitting(passes) if self.micro_batches.searches else passes()
        if self.exact is not None:
            self.times.own_gradients()
            self._see_own()
            while not self.exact.reduce():
                passes()
                self._see_own()
            self.buffers.share(self.world)
            if self.has_extra_state:
                self.world.broadcast_extra_state(self.model)
            loss = self.exact.loss()
        elif self.micro_batches.reduces_late and first:  # DistributedDataParallel has to see the order of the gradients
            self.discard()
            passes()
        elif self.micro_batches.reduces_late:
            reduce_gradients(self.replica)
        self.times.reduced()
        return loss if self.loss.averaged == 1 else loss / self.loss.averaged

    def _fitting(self, passes: Callable[..., Tensor]) -> Tensor:
        """Repeats passes without communication until they fit into the memory of all ranks."""
        restore = restorer(self.model)
        share = -(-self.batch_size // self.division.count)
        while (loss := self.micro_batches.fitting(partial(passes, reduces=False), share)) is None:
            self.discard()
            restore()
        return loss

    def _passes(self, parts: Sequence[Batch], targets: Sequence[Any], step: int, scale: Tensor | float,
                *, reduces: bool = True, begin: Callable[[], None] = lambda: None) -> Tensor:
        """The forward and backward passes of a step. Those of part 0 are rank 0's last ones, so their buffers stay.
        `begin` is called before each part."""
        self.sample_losses = []
        for number, part, own in reversed([*zip(self.division.own, parts, targets, strict=True)]):
            self.buffers.keep()
            begin()
            self.world.seed(key(self.seed, "step", self.number, step, number))
            begin_part(number)
            size, inputs = len(part.positions), self.forward.inputs(part.inputs)
            try:
                loss = self._backward(inputs, own, size, step, scale, reduces=reduces)
            except Exception as error:
                if self.micro_batches.searches and is_out_of_memory(error):
                    raise
                self.model.eval()
                blame(error, part, partial(self._alone, inputs, own, size),
                      tries=self.world.device.type == "cpu" and self.loss.whole_batch is None)
                raise
            if self.exact is not None:
                self.exact.add(number, loss)
        return loss

    def _see_own(self) -> None:
        """Takes a digest of this rank's part of the exact sum, before it is reduced."""
        if self.exact is not None and self.world.size > 1:
            self.own.see(self.exact.flat)

    def _alone(self, inputs: Any, targets: Any, size: int, part: range) -> None:
        """The losses of one sample, to find out whether it fails."""
        self.loss.each(call(self.model, rows(inputs, part, size)), rows(targets, part, size))

    def _backward(self, inputs: Any, targets: Any, size: int, step: int, scale: Tensor | float, *, reduces: bool
                  ) -> Tensor:
        totals: list[Tensor] = []
        each: list[Tensor] = []
        parts = self.micro_batches.parts(size)
        for part in parts:
            last = reduces and part is parts[-1]
            with nullcontext() if last or not isinstance(self.replica, DistributedDataParallel) else (
                    self.replica.no_sync()):
                with self.forward.autocast():
                    outputs = call(self.replica, rows(inputs, part, size))
                    losses = self.loss(outputs, rows(targets, part, size), scale, step, alone=len(parts) == 1)
                    loss = losses.detach().sum() * scale  # not in the graph, because each loss has the same gradient
                start = first_gradient(scale, loss if self.checks_finite else self.zero)
                start = start if self.scaler is None else self.scaler.scale(start)
                losses.backward(start.expand_as(losses))
            if self.loss.whole_batch is None:
                each.append(losses.detach())
            totals.append(loss)
        self.sample_losses = [*each, *self.sample_losses]
        return sum(totals[1:], totals[0])

    def discard(self) -> None:
        """Undoes what the last `compute` has changed: buffers and gradients."""
        self.buffers.restore()
        self.clear()
        self.own.take()

    def clear(self) -> None:
        """Removes the gradients."""
        for parameter in self.trained:  # an optimizer's `zero_grad` does the same, in ten times as long
            parameter.grad = None

    def load(self, scaler: dict[str, Any], quanta: dict[str, int]) -> None:
        """Takes the state of the gradient scaler and of the exact sum from a checkpoint."""
        if self.scaler is not None and scaler:
            self.scaler.load_state_dict(scaler)
        if self.exact is not None:
            self.exact.load(quanta)

    def state(self) -> dict[str, Any]:
        """What `load` takes, by name; without what is not used."""
        scaler = {} if self.scaler is None else {"scaler": self.scaler.state_dict()}
        return scaler if self.exact is None else {**scaler, "quanta": self.exact.state()}
