"""One phase at work: the model wrapped for it, its optimizer and schedule, and one training step.

Every phase builds its own. Unfreezing under a standing DistributedDataParallel raises no error and lets the ranks drift
apart in silence.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from drumbeat.data.device import to_device
from drumbeat.data.loader import Batch
from drumbeat.data.order import key, micro_batches
from drumbeat.trainers.checkpoints.manager import Checkpoint
from drumbeat.trainers.checkpoints.state import (
    optimizer_numbers,
    optimizer_tensors,
    parameter_names,
    restore_optimizer,
    restore_scheduler,
    scheduler_numbers,
    tensors_after_a_step,
)
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.guards import Buffers, FiniteCheck, can_skip
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.world import World

TINY = 1e-30
"""In place of a sum of weights that is 0: a batch of samples that count for nothing has no gradient, instead of NaN."""


class PhaseRunner:
    """A phase's model, optimizer and schedule on this rank."""

    def __init__(self, *, name: str, number: int, seed: int, model: nn.Module, frozen: Sequence[nn.Module], task: Task,
                 world: World, forward: Forward, batch_size: int,
                 make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
                 make_scheduler: Callable[[torch.optim.Optimizer], Any] = lambda optimizer: None,
                 scheduler_every: Literal["step", "epoch"] = "step", clip_norm: float | None = None,
                 micro_batch_size: int | None = None, mixes: bool = False, checks_finite: bool = True) -> None:
        """`frozen` are modules of the model that stay as they are. `batch_size` counts the samples of a step over all
        ranks, and `micro_batch_size` the most that this rank computes at once. `make_optimizer` is called with the
        parameters that are trained, `make_scheduler` with the optimizer. `mixes` is whether targets come as those of
        `data.mixing`, and `checks_finite` whether steps whose gradient is not finite are left out."""
        self.name = name
        self.number = number
        self.seed = seed
        self.model = model
        self.task = task
        self.world = world
        self.forward = forward
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.scheduler_every = scheduler_every
        self.clip_norm = clip_norm
        self.mixes = mixes
        self.checks_finite = checks_finite
        self.frozen = frozen
        model.requires_grad_(True)
        for module in frozen:
            module.requires_grad_(False)
        self.buffers = Buffers(model, frozen)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.names = parameter_names(model)
        self.make_optimizer = make_optimizer
        self.optimizer = make_optimizer(self.trained)
        self.skips = can_skip(self.optimizer)
        self.scheduler = make_scheduler(self.optimizer)
        self.replica = wrap(model, world)
        self.lr = math.nan
        """The learning rate of the first parameter group in the last `update`; the schedule may have advanced since."""

    def start(self, batch: Batch, checkpoint: Checkpoint | None) -> dict[str, Tensor]:
        """One discarded forward and backward, then the state of `checkpoint`, or the state as it was. Returns, on rank
        0, tensors named and shaped as those of the optimizer will be once it has taken a step.

        DistributedDataParallel orders its buckets anew after the first backward; with three ranks or more that changes
        the order of summation. So the first step of a resumed run must not be the first backward.
        """
        self.train_mode()
        self.backward(batch, step=0)
        shapes = {}
        if checkpoint is None and self.world.is_main:
            shapes = tensors_after_a_step(self.make_optimizer, self.trained, self.names)
        self.discard()
        if checkpoint is not None:
            self.model.load_state_dict(checkpoint.model())
            restore_optimizer(self.optimizer, self.names, checkpoint.optimizer(), checkpoint.state.optimizer)
            restore_scheduler(self.scheduler, checkpoint.state.scheduler)
        return shapes or self.tensors()

    def backward(self, batch: Batch, step: int) -> Tensor:
        """Gradients of the mean loss over the global batch, from this rank's shard of it, in micro-batches; only the
        last one talks to other ranks. Returns this rank's part of the loss: the sum of the parts over the ranks is the
        mean over all samples.

        Each rank's sum is scaled by world size over batch size (or over the sum of the whole batch's weights), because
        DistributedDataParallel averages over ranks.
        """
        self.buffers.keep()
        seed_generators(key(self.seed, "step", self.number, step, self.world.rank), self.world.device)
        inputs = self.forward.inputs(batch.inputs)
        targets = to_device(batch.targets, self.world.device)
        size = len(batch.positions)
        scale = self.world.size / self._divisor(targets)
        total = torch.zeros((), device=self.world.device)
        parts = micro_batches(size, self.micro_batch_size or size)
        for part in parts:
            last = part is parts[-1]
            with nullcontext() if last or self.world.size == 1 else self.replica.no_sync():  # type: ignore[operator]
                with self.forward.autocast():
                    outputs = self.replica(_rows(inputs, part, size))
                    loss = self._losses(outputs, _rows(targets, part, size)).sum() * scale
                loss.backward()
            total += loss.detach()
        return total / self.world.size

    def update(self) -> FiniteCheck | None:
        """Takes the optimizer's step on the gradients of `backward`, or skips it if they are not finite; then they are
        not finite on any rank, because they are averages over the ranks. Returns the check, for `settle`; None if the
        config wants none.

        If the optimizer cannot skip a step on the device, the host waits for the check here.
        """
        self.lr = float(self.optimizer.param_groups[0]["lr"])
        check = None
        if self.checks_finite or self.clip_norm is not None:
            norm = nn.utils.get_total_norm([one.grad for one in self.trained if one.grad is not None])
            if self.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(self.trained, self.clip_norm, norm)
            if self.checks_finite:
                check = FiniteCheck(torch.isfinite(norm), len(self.optimizer.state))
        if check is not None and self.skips:
            self.optimizer.found_inf = (~check.finite).float()  # type: ignore[attr-defined]
            self.optimizer.step()
            self.buffers.restore(~check.finite)
        elif check is None or check.passed():
            self.optimizer.step()
        else:
            self.buffers.restore()
        self.optimizer.zero_grad(set_to_none=True)
        return check

    def settle(self, check: FiniteCheck | None) -> bool:
        """Returns whether the last update was taken, and advances the schedule if so. Called once for each update,
        before the next one, and before anything reads the state: after a skipped update, that is the one before it."""
        if check is not None and not check.passed():
            for parameter in [*self.optimizer.state][check.states:]:  # new: SGD makes its momentum without a value
                del self.optimizer.state[parameter]
            return False
        if self.scheduler is not None and self.scheduler_every == "step" and not isinstance(
                self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        return True

    def discard(self) -> None:
        """Undoes what the last `backward` has changed: buffers and gradients."""
        self.buffers.restore()
        self.optimizer.zero_grad(set_to_none=True)

    def end_epoch(self, monitored: float | None) -> None:
        """At an epoch boundary. `monitored` is the validation metric that picks the best weights; None without one."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if monitored is not None:
                self.scheduler.step(monitored)
        elif self.scheduler is not None and self.scheduler_every == "epoch":
            self.scheduler.step()

    def tensors(self) -> dict[str, Tensor]:
        return optimizer_tensors(self.optimizer, self.names)

    def numbers(self) -> dict[str, Any]:
        """What a checkpoint needs beside the tensors."""
        return {"optimizer": optimizer_numbers(self.optimizer, self.names),
                "scheduler": scheduler_numbers(self.scheduler)}

    def train_mode(self) -> None:
        """Training mode, except for what is frozen: its BatchNorm statistics and its dropout stand still."""
        self.model.train()
        for module in self.frozen:
            module.eval()

    def _losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """The loss of each sample."""
        return self._of_each(partial(self.task.losses, outputs), targets)

    def _divisor(self, targets: Any) -> Tensor | int:
        """What the sum of the global batch's losses is divided by: its samples; or where the task weighs them, the sum
        of their weights, of which each rank knows those of its own shard."""
        weights = getattr(self.task, "weights", None)
        if weights is None or weights(targets["own"] if self.mixes else targets) is None:
            return self.batch_size
        return self.world.all_reduce(self._of_each(weights, targets).sum(dtype=torch.float64)).clamp(min=TINY).float()

    def _of_each(self, found: Callable[[Any], Any], targets: Any) -> Tensor:
        """What is found for the target of each sample; for a mixed one, the mean of both targets' weighted as the
        inputs were."""
        if not self.mixes:
            return cast(Tensor, found(targets))
        own, partner = (found(targets[whose]) for whose in ("own", "partner"))
        kept: Tensor = targets["kept"]
        return cast(Tensor, own * kept + partner * (1 - kept))


def wrap(model: nn.Module, world: World) -> nn.Module:
    """The model as one replica of many. Buffers are not broadcast at each forward, but when evaluating. Without
    `device_ids`, DistributedDataParallel does not move inputs: the lengths of texts stay on the host."""
    if world.size == 1:
        return model
    parameters = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    options = cast(Mapping[str, Any], {buffers: False})
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)


def prefer_determinism(*, deterministic: bool, threads: int) -> None:
    """Sets the number of threads; with `deterministic`, chooses the kernels that give the same bits each time."""
    torch.set_num_threads(threads)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time, for nothing
    torch.backends.cudnn.benchmark = not deterministic


def set_precision(precision: Literal["auto", "bf16", "tf32", "fp32"]) -> None:
    """Sets whether a GPU rounds fp32 to TF32, 10 bits of mantissa instead of 23: with tf32 in matrix products,
    convolutions and recurrent layers, with fp32 nowhere, otherwise in the latter two alone, which is torch's default.

    These are torch's older settings. Setting them also sets the newer ones (fp32_precision); the other way round, code
    that reads the older ones (torch.backends.cudnn.flags, torch.compile) gets an error: aten/src/ATen/Context.cpp, read
    in torch 2.9 to 2.14. Some of these versions warn once that the older settings will be removed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Please use the new API settings to control TF32")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision != "fp32"


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds the generators of the CPU and of the device, in about 7 us; torch.manual_seed tries all kinds of devices,
    and takes 200 us."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)


def _rows(values: Any, part: range, size: int) -> Any:
    """A micro-batch of the samples: rows of tensors, and of tuples and dicts of them."""
    if len(part) == size:
        return values
    if isinstance(values, Tensor):
        return values[part.start:part.stop]
    if isinstance(values, Mapping):
        return {name: _rows(value, part, size) for name, value in values.items()}
    if any(isinstance(value, Tensor | Mapping | list | tuple) for value in values):
        return [_rows(value, part, size) for value in values]
    return values[part.start:part.stop]  # a plain value for each sample
