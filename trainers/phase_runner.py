"""One phase of training: the model wrapped for it, its optimizer and scheduler, and one training step.

Every phase wraps the model again: unfreezing parameters inside an existing DistributedDataParallel raises no error, and
the weights of the ranks then diverge silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.data.device import to_device
from drumbeat.data.loader import Batch
from drumbeat.data.order import key
from drumbeat.data.structure import rows
from drumbeat.trainers.averaging import Averaging
from drumbeat.trainers.batch_loss import BatchLoss
from drumbeat.trainers.blame import blame
from drumbeat.trainers.changed_optimizer import Earlier, restore_changed
from drumbeat.trainers.checkpoints.extra_state import restorer, untouched
from drumbeat.trainers.checkpoints.manager import Checkpoint
from drumbeat.trainers.checkpoints.state import parameter_names, restore_training, tensors_after_a_step, training_state
from drumbeat.trainers.exact_sum import ExactSum
from drumbeat.trainers.forward import Forward, call
from drumbeat.trainers.gradient_digest import OwnGradients, digest_row
from drumbeat.trainers.guards import Buffers, FiniteCheck, Scan, can_skip, first_gradient, total_norm
from drumbeat.trainers.micro_batches import MicroBatches, is_out_of_memory, reduce_gradients
from drumbeat.trainers.replica import wrap
from drumbeat.trainers.several_optimizers import parts_of_step, rate_curves
from drumbeat.trainers.step_times import StepTimes
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tasks.logged import begin_part
from drumbeat.trainers.virtual_ranks import Division
from drumbeat.trainers.world import World


class PhaseRunner:
    """The model, optimizer and scheduler of a phase on this rank."""

    def __init__(self, *, name: str, number: int, seed: int, model: nn.Module, frozen: Sequence[nn.Module], task: Task,
                 world: World, forward: Forward, batch_size: int,
                 make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
                 make_scheduler: Callable[[torch.optim.Optimizer], Any] = lambda optimizer: None,
                 scheduler_every: Literal["step", "epoch"] = "step", clip_norm: float | None = None,
                 make_average: Callable[[nn.Module], Any] = lambda model: None,
                 average_due: Callable[[int], bool] = lambda step: True,
                 micro_batches: MicroBatches | None = None, virtual_ranks: int | None = None, mixes: bool = False,
                 checks_finite: bool = True, earlier: Earlier | None = None, scheduler_steps: int = 0,
                 make_replica: Callable[[nn.Module, World], nn.Module] = wrap) -> None:
        """`model` trains the parameters that require a gradient. `frozen` are modules in which none does, and which
        stay in evaluation mode. `batch_size` is the number of samples in a step over all ranks; `micro_batches` divides
        this rank's parts of it, and by default does not. With `virtual_ranks`, a step has the same bits at any world
        size up to this number. `make_optimizer` is called with the parameters that are
        trained, `make_scheduler` with the optimizer, and `make_average` with the model; for `average_due` see
        `Averaging`. `mixes` says whether targets are those of `data.mixing`, and
        `checks_finite` whether steps with a NaN or Inf loss or gradient are skipped. `earlier` is the optimizer of the
        checkpoint to resume from, if that differs from this one, and `scheduler_steps` how often the scheduler is
        advanced in the phase, for its errors. `make_replica` makes what is called in a step: see `replica.wrap`."""
        self.name = name
        self.number = number
        self.seed = seed
        self.model = model
        self.division = Division.of(world, virtual_ranks)
        self.loss = BatchLoss(task, world, self.division, batch_size=batch_size, seed=seed, number=number, mixes=mixes)
        self.world = world
        self.forward = forward
        self.batch_size = batch_size
        self.micro_batches = micro_batches or MicroBatches(None, world)
        self.scheduler_every = scheduler_every
        self.clip_norm = clip_norm
        self.scaler = GradScaler(world.device.type) if forward.fp16 else None
        self.checks_finite = checks_finite or forward.fp16
        self.earlier = earlier
        self.scheduler_steps = scheduler_steps
        self.frozen = frozen
        self.buffers = Buffers(model, frozen)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.names = parameter_names(model)
        self.exact = ExactSum({one: self.names[one] for one in self.trained}, self.division, world) if (
            self.division.virtual) else None
        self.make_optimizer = make_optimizer
        self.optimizer = make_optimizer(self.trained)
        self.skips = can_skip(self.optimizer)
        self.clears = [one for one in parts_of_step(self.optimizer)
                       if type(one).zero_grad is not torch.optim.Optimizer.zero_grad]
        self.scheduler = make_scheduler(self.optimizer)
        self.replica = make_replica(model, world)
        self.own_gradients = OwnGradients(self.replica)
        self.digest_row = torch.zeros(1, device=world.device)
        """The gradients of the last `update`, for the step log: see `gradient_digest`."""
        self.averaging = Averaging(self.optimizer, model, make_average(model), average_due)
        self.times = StepTimes(world, self.trained)
        self.scan = Scan(self.trained, world.device)
        self.zero = torch.zeros((), device=world.device)
        if self.scaler is not None:
            self.scaler.scale(self.zero)  # which makes its tensors
        self.sample_losses: list[Tensor] = []
        """[n]: this rank's losses of the samples of the last pass, by micro-batch; empty for a loss of the batch."""
        self.curves = rate_curves(self.optimizer)
        self.rates = [math.nan] * len(self.curves)
        """The learning rates of these groups in the last `update`; the schedule may have advanced since."""

    def start(self, parts: Sequence[Batch], checkpoint: Checkpoint | None) -> dict[str, Tensor]:
        """Runs one forward and backward pass that is discarded, then loads `checkpoint` if there is one. Returns, on
        rank 0, tensors with the names and shapes of the optimizer's tensors after its first step.

        DistributedDataParallel rebuilds its buckets after the first backward pass, which changes the order of summation
        on three or more ranks. So the first step of a resumed run must not be the first backward pass.
        """
        self.train_mode()
        with untouched(self.model):
            self.backward(parts, step=0, first=True)
        shapes = {}
        if checkpoint is None and self.world.is_main:
            shapes = tensors_after_a_step(self.make_optimizer, self.trained, self.names)
        self.discard()
        if checkpoint is not None:
            self.load(checkpoint)
        return self.state()[0] | shapes | self.averaging.trained()

    def load(self, checkpoint: Checkpoint) -> None:
        """Loads a checkpoint that was saved in this phase."""
        self.model.load_state_dict(checkpoint.model())
        saved = {"optimizer": checkpoint.state.optimizer, "scheduler": checkpoint.state.scheduler}
        restore = restore_training if self.earlier is None else partial(restore_changed, self.earlier, self.trained)
        restore(self.optimizer, self.scheduler, self.names, checkpoint.optimizer(), saved)
        self.averaging.load(checkpoint.optimizer())
        if self.scaler is not None and checkpoint.state.scaler:
            self.scaler.load_state_dict(checkpoint.state.scaler)
        if self.exact is not None:
            self.exact.load(checkpoint.state.quanta)

    def backward(self, parts: Sequence[Batch], step: int, *, first: bool = False) -> Tensor:
        """Computes gradients of the mean loss over the global batch from this rank's parts of it, in micro-batches;
        only the last one communicates. Returns this rank's part of the loss: the sum over the ranks is the mean over
        all samples, or the task's loss of the whole batch. If the config leaves the size of micro-batches open, the
        passes are repeated until they fit into the memory of all ranks. `first` is the step that is discarded."""
        targets = [to_device(part.targets, self.world.device) for part in parts]
        scale = self.loss.scale(targets)  # which may wait for the other ranks
        self.times.begin(sum(len(part.positions) for part in parts))
        passes = partial(self._passes, parts, targets, step, scale)
        loss = self._fitting(passes) if self.micro_batches.searches else passes()
        if self.exact is not None:
            self.times.own_gradients()
            while not self.exact.reduce():
                passes()
            self.buffers.share(self.world)
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
                *, reduces: bool = True) -> Tensor:
        """The forward and backward passes of a step. Those of part 0 are rank 0's last ones, so their buffers stay."""
        self.sample_losses = []
        for number, part, own in reversed([*zip(self.division.own, parts, targets, strict=True)]):
            self.buffers.keep()
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

    def update(self) -> FiniteCheck | None:
        """Takes an optimizer step, or skips it if the gradients are not finite, as they are after a loss that is not;
        all ranks then skip it, because gradients are averaged over the ranks. Returns the check, for
        `settle`; None if the config disables it.

        If the optimizer cannot skip a step on the device, the host waits for the check here.
        """
        self.rates = [float(self.optimizer.param_groups[number]["lr"]) for number in self.curves.values()]
        check = None
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
            self.scaler.update()  # a gradient that is not finite halves the scale
        gradients = [one.grad for one in self.trained if one.grad is not None]
        self.digest_row = digest_row(gradients)
        norm = None if self.clip_norm is None else total_norm(gradients)
        if self.checks_finite:
            check = FiniteCheck(self.scan(gradients, norm), len(self.optimizer.state))
        if self.clip_norm is not None and norm is not None:
            nn.utils.clip_grads_with_norm_(self.trained, self.clip_norm, norm)
        if check is not None and self.skips:
            self.optimizer.found_inf = check.failed  # type: ignore[attr-defined]
            self.optimizer.step()
            self.buffers.restore(check.failed.bool())
        elif check is None or check.passed():
            self.optimizer.step()
        else:
            self.buffers.restore()
        self.buffers.ahead = False
        self._clear_gradients()
        self.times.end()
        return check

    def settle(self, check: FiniteCheck | None, step: int = 0) -> bool:
        """Returns whether the last update was taken, and advances the scheduler and the average if it was. Called once
        for each update, before the next one and before anything reads the state. `step` is the number of steps of the
        phase up to this one."""
        if check is not None and not check.passed():
            for parameter in [*self.optimizer.state][check.states:]:  # SGD creates its momentum in a skipped step too
                del self.optimizer.state[parameter]
            return False
        if self.averaging.is_due(step):
            with self.buffers.as_trained():
                self.averaging.update()
        if self.scheduler is not None and self.scheduler_every == "step" and not isinstance(
                self.scheduler, ReduceLROnPlateau):
            self._advance()
        return True

    def discard(self) -> None:
        """Undoes the changes of the last `backward` to buffers and gradients."""
        self.buffers.restore()
        self._clear_gradients()
        self.own_gradients.take()

    def _clear_gradients(self) -> None:
        for one in self.clears:
            one.zero_grad(set_to_none=True)
        for parameter in self.trained:  # torch's method does the same, in ten times as long
            parameter.grad = None

    def at_mark(self, *, epoch: bool, monitored: float | None) -> None:
        """Advances the scheduler if an `epoch` is complete, or after an evaluation. `monitored` is then the monitored
        metric; None without a validation set."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if monitored is not None:
                self.scheduler.step(monitored)
        elif self.scheduler is not None and self.scheduler_every == "epoch" and epoch:
            self._advance()

    def _advance(self) -> None:
        """Advances the scheduler. Raises `PreflightError` if one of torch's is at its end: the preflight check finds
        that, unless it is left out."""
        try:
            self.scheduler.step()
        except Exception as error:
            if not isinstance(self.scheduler, LRScheduler):
                raise
            key, again = f"phases.{self.name}.scheduler", "drumbeat resume RUN "
            lasts = f"It must last for {self.scheduler_steps:,} steps: {again}{key}.total_steps={self.scheduler_steps}"
            raise PreflightError(Fault(
                what=f"the scheduler of phase {self.name} fails: {str(error) or type(error).__name__}", where=key,
                given=type(self.scheduler).__name__, remedy=lasts if hasattr(self.scheduler, "total_steps") else
                f"Correct its arguments, or continue without it: {again}{key}={{}}")) from error

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state of optimizer, scheduler, gradient scaler and exact sum: see `checkpoints.state.training_state`."""
        tensors, values = training_state(self.optimizer, self.scheduler, self.names)
        scaler = {} if self.scaler is None else {"scaler": self.scaler.state_dict()}
        quanta = {} if self.exact is None else {"quanta": self.exact.state()}
        return tensors | self.averaging.kept, values | scaler | quanta

    def train_mode(self) -> None:
        """Training mode, except for frozen modules: their BatchNorm statistics do not change, and they have no
        dropout."""
        self.model.train()
        for module in self.frozen:
            module.eval()
