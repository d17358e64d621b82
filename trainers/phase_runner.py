"""One phase of training: the model wrapped for it, its optimizer and scheduler, and one training step.

Every phase wraps the model again: unfreezing parameters inside an existing DistributedDataParallel raises no error, and
the weights of the ranks then diverge silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.data.loader import Batch
from drumbeat.trainers.averaging import Averaging
from drumbeat.trainers.changed_optimizer import Earlier, restore_changed
from drumbeat.trainers.checkpoints.extra_state import untouched
from drumbeat.trainers.checkpoints.manager import Checkpoint
from drumbeat.trainers.checkpoints.state import restore_training, tensors_after_a_step, training_state
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.gradient_digest import digest_row
from drumbeat.trainers.gradients import Gradients
from drumbeat.trainers.guards import FiniteCheck, Scan, can_skip, total_norm
from drumbeat.trainers.micro_batches import MicroBatches
from drumbeat.trainers.replica import wrap
from drumbeat.trainers.several_optimizers import parts_of_step, rate_curves
from drumbeat.trainers.tasks import Task
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
        self.model = model
        self.world = world
        self.forward = forward
        self.batch_size = batch_size
        self.gradients = Gradients(
            number=number, seed=seed, model=model, frozen=frozen, task=task, world=world, forward=forward,
            batch_size=batch_size, micro_batches=micro_batches, virtual_ranks=virtual_ranks, mixes=mixes,
            checks_finite=checks_finite, make_replica=make_replica)
        self.times = self.gradients.times
        self.buffers = self.gradients.buffers
        self.trained = self.gradients.trained
        self.names = self.gradients.names
        self.scheduler_every = scheduler_every
        self.clip_norm = clip_norm
        self.checks_finite = checks_finite or forward.fp16
        self.earlier = earlier
        self.scheduler_steps = scheduler_steps
        self.frozen = frozen
        self.make_optimizer = make_optimizer
        self.optimizer = make_optimizer(self.trained)
        self.skips = can_skip(self.optimizer)
        self.clears = [one for one in parts_of_step(self.optimizer)
                       if type(one).zero_grad is not torch.optim.Optimizer.zero_grad]
        self.scheduler = make_scheduler(self.optimizer)
        self.digest_row = torch.zeros(1, device=world.device)
        """The gradients of the last `update`, for the step log: see `gradient_digest`."""
        self.averaging = Averaging(self.optimizer, model, make_average(model), average_due)
        self.scan = Scan(self.trained, world.device)
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
            self.gradients.compute(parts, step=0, first=True)
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
        self.gradients.load(checkpoint.state.scaler, checkpoint.state.quanta)

    def backward(self, parts: Sequence[Batch], step: int) -> Tensor:
        """Computes the gradients of a step of the phase. Returns this rank's part of the loss: see `Gradients`."""
        return self.gradients.compute(parts, step)

    def update(self) -> FiniteCheck | None:
        """Takes an optimizer step, or skips it if the gradients are not finite, as they are after a loss that is not;
        all ranks then skip it, because gradients are averaged over the ranks. Returns the check, for
        `settle`; None if the config disables it.

        If the optimizer cannot skip a step on the device, the host waits for the check here.
        """
        self.rates = [float(self.optimizer.param_groups[number]["lr"]) for number in self.curves.values()]
        check = None
        if (scaler := self.gradients.scaler) is not None:
            scaler.unscale_(self.optimizer)
            scaler.update()  # a gradient that is not finite halves the scale
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
        self.gradients.discard()
        self._clear_gradients()

    def _clear_gradients(self) -> None:
        for one in self.clears:
            one.zero_grad(set_to_none=True)
        self.gradients.clear()

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
        return tensors | self.averaging.kept, values | self.gradients.state()

    def train_mode(self) -> None:
        """Training mode, except for frozen modules: their BatchNorm statistics do not change, and they have no
        dropout."""
        self.model.train()
        for module in self.frozen:
            module.eval()
