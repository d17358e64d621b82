"""Checks that end a run before it goes wrong unnoticed: NaN or Inf losses, and ranks whose weights differ."""

from __future__ import annotations

import math
import operator
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from drumbeat.data.loader import Batch
from drumbeat.trainers.world import World

IN_A_ROW = 20
"""A run is given up after this many skipped steps, one after the other: it does not train any more."""
SHOWN = 8
"""The largest number of positions that an error names."""


class NotFiniteError(Exception):
    """The loss or the gradient of a step is NaN or Inf. The step was not taken: weights and buffers are as before it. A
    restart would fail at the same step, because the same samples and weights give the same gradient."""


class NeverFiniteError(NotFiniteError):
    """The same, where to skip the step does not help: as many in a row were skipped as may be (`IN_A_ROW`), or the
    weights or the last evaluation are NaN or Inf already."""


class DivergedError(Exception):
    """The weights of the ranks differ."""


WRITERS = (_BatchNorm.forward, _InstanceNorm.forward)
"""Torch's norms: their running statistics are for evaluation. A subclass with another forward pass may read them."""


class Buffers:
    """A copy of the buffers that a forward pass may change: those of all modules that are not frozen.

    Buffers are copied as integers, because a float NaN times 0 is NaN. They are grouped by type and device, because
    foreach kernels are fast for tensors of one type on one device (aten/src/ATen/native/ForeachUtils.h, read in torch
    2.14).
    """

    def __init__(self, model: nn.Module, frozen: Iterable[nn.Module] = ()) -> None:
        still = {part for module in frozen for part in module.modules()}
        moving = [module for module in model.modules() if module not in still]
        self.places = [(module._buffers, name) for module in moving
                       for name, value in module._buffers.items() if value is not None]
        self.read = [(buffers, name) for module in moving if type(module).forward not in WRITERS
                     for buffers, name in self.places if buffers is module._buffers]
        """Those that a forward pass in training may depend on."""
        self.live: list[Tensor | None] = []
        """The buffers at the last `keep`, by place."""
        self.groups: list[tuple[list[Tensor], list[Tensor]]] = []
        """The same as integers, by type: each group and its copy."""
        self.ahead = False
        """Whether they are those of a forward pass whose step is not taken."""

    def keep(self) -> None:
        """Copies the buffers before the first forward pass of a step, and restores them before each other one."""
        if self.ahead:
            self.restore()
        elif self.places:
            self._keep()
        self.ahead = True

    @torch.no_grad()
    def _keep(self) -> None:
        live = [buffers[name] for buffers, name in self.places]
        if len(live) != len(self.live) or any(map(operator.is_not, live, self.live)):
            by_type: dict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
            for values in (as_integers(value) for value in live if value is not None):
                by_type[values.dtype, values.device].append(values)
            self.live = live
            self.groups = [(group, [torch.empty_like(values) for values in group]) for group in by_type.values()]
        for group, kept in self.groups:
            torch._foreach_copy_(kept, group)

    @torch.no_grad()
    def restore(self, condition: Tensor | None = None) -> None:
        """Restores the buffers from the copies. With `condition`, a bool scalar on the device, the device restores them
        only if it is true, and the host does not wait for its value. Modules may also have replaced a buffer by a new
        tensor of the same shape."""
        self.ahead = False
        for group, kept in self.groups:
            if condition is not None:
                kept = list(torch._foreach_sub(kept, group))
                torch._foreach_mul_(kept, condition.to(kept[0]))
                torch._foreach_add_(kept, group)
            torch._foreach_copy_(group, kept)
        for (buffers, name), before in zip(self.places, self.live, strict=True):
            if (now := buffers[name]) is not before and condition is None:
                buffers[name] = before
            elif now is not before and before is not None and now is not None and now.shape == before.shape:
                buffers[name] = torch.where(cast(Tensor, condition), before, now)

    @torch.no_grad()
    def share(self, world: World) -> None:
        """Gives all ranks rank 0's values of those that the next forward pass may depend on."""
        values = [as_integers(buffer).view(torch.uint8) for buffers, name in self.read
                  if (buffer := buffers[name]) is not None]
        if world.size > 1 and values:
            every = world.broadcast(torch.cat([value.to(world.device) for value in values]))
            torch._foreach_copy_(values, [*every.split([len(value) for value in values])])

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """The buffers have their values after the last step, also if the forward pass of the next one has changed
        them."""
        if not self.ahead:
            yield
            return
        now = [buffers[name] for buffers, name in self.places]
        values = [[one.clone() for one in group] for group, _ in self.groups]
        self.restore()
        try:
            yield
        finally:
            for (group, _), changed in zip(self.groups, values, strict=True):
                torch._foreach_copy_(group, changed)
            for (buffers, name), value in zip(self.places, now, strict=True):
                buffers[name] = value
            self.ahead = True


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The 2-norm of all gradients: as torch.nn.utils.get_total_norm, which first groups them by device and type. For
    the four gradients of a small network that takes 60 us, and this takes 30."""
    if len({(one.device, one.dtype, one.layout) for one in gradients}) != 1 or gradients[0].layout != torch.strided:
        return nn.utils.get_total_norm(gradients)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def first_gradient(scale: Tensor | float, loss: Tensor) -> Tensor:
    """The gradient from which the backward pass of a loss starts: `scale`, or NaN if the loss is NaN or Inf. The
    gradients of a loss that is NaN may be finite: that of log(-1) is. So all ranks learn of it from their gradients,
    which are averaged."""
    return torch.rsub(loss, scale, alpha=0)


class Scan:
    """Whether gradients are finite, in one pass over all of them. torch has such a pass for its gradient scaler, which
    multiplies them, here by 1. It takes neither sparse nor complex gradients, nor those of several devices."""

    def __init__(self, parameters: Iterable[Tensor], device: torch.device) -> None:
        """`device` is that of the result."""
        self.one = torch.ones((), device=device)
        self.fits = all(one.device == device and one.is_floating_point() for one in parameters)

    def __call__(self, gradients: list[Tensor], norm: Tensor | None = None) -> Tensor:
        """float32 scalar: 1 if a gradient is NaN or Inf, otherwise 0. A `norm` of them that is known says it, too."""
        if norm is None and not (self.fits and all(one.layout is torch.strided for one in gradients)):
            norm = total_norm(gradients)
        if norm is not None:
            return (~norm.isfinite()).float()
        found = torch.zeros_like(self.one)
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, self.one)
        return found


class FiniteCheck:
    """Whether the gradient of a step is finite, and with it the loss (`first_gradient`). The host can read it while the
    device computes the next step."""

    def __init__(self, failed: Tensor, states: int) -> None:
        self.failed = failed
        """float32 scalar on the device: 1 if the gradient is NaN or Inf, otherwise 0."""
        self.on_host, self.copied = failed, None
        if failed.is_cuda:
            self.on_host = failed.to("cpu", non_blocking=True)  # torch pins the memory of such a copy
            self.copied = torch.cuda.current_stream(failed.device).record_event()
        self.states = states
        """The number of parameters with optimizer state before the step."""

    def passed(self) -> bool:
        """Waits until the device has computed the gradient, but not for later work of the device."""
        if self.copied is not None:
            self.copied.synchronize()
        return float(self.on_host) == 0


SKIP = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)
"""Optimizers whose fused kernels change nothing if `found_inf` is 1 (torch/amp/grad_scaler.py and torch/optim, read in
torch 2.14). Subclasses are not included, because their step may do more."""


def can_skip(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the device can skip a step of the optimizer, by the optimizer's attribute `found_inf`."""
    return type(optimizer) in SKIP and getattr(optimizer, "_step_supports_amp_scaling", False)


INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}
"""The integer type by the number of bytes of an item; a complex128 is read as two integers."""


def as_integers(tensor: Tensor) -> Tensor:
    """[n]: the memory of a tensor, from its first to its last item, as integers. The memory is shared."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.detach().as_strided((span if tensor.numel() else 0,), (1,)).view(INTEGERS[tensor.element_size()])


def not_finite(step: int, loss: Tensor, parts: Sequence[Batch], world: World, losses: Sequence[Tensor] = (),
               names: Sequence[str] = ()) -> NotFiniteError:
    """The error of this rank when the loss or the gradient of the run's step number `step` is not finite. It names the
    samples of this rank's `parts`, unless the cause may be another rank: those alone whose `losses` are not finite, if
    there are some. `names` are those of the whole set, if it has names."""
    value = float(loss)
    rows = (~torch.cat([*losses]).isfinite()).nonzero().flatten().tolist() if losses else []
    finite = math.isfinite(value)
    if world.size > 1 and (finite or (losses and not rows)):
        return NotFiniteError(f"NaN or Inf gradient at step {step}; the loss of rank {world.rank} is finite")
    pairs = [f"{position} (sample {index}{f', {names[index]}' if names else ''})" for part in parts
             for position, index in zip(part.positions.tolist(), part.indices.tolist(), strict=True)]
    rest = "; the other losses are finite" if 0 < len(rows) < len(pairs) else ""
    pairs = [pairs[row] for row in rows] or pairs
    more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    return NotFiniteError(f"NaN or Inf {'gradient' if finite else 'loss'} at step {step} on rank {world.rank}: the "
                          f"loss is {value:.6g}; positions {', '.join(pairs[:SHOWN])}{more}{rest}")


def all_finite(model: nn.Module) -> bool:
    """Whether no weight is NaN or Inf."""
    return all(bool(value.isfinite().all()) for value in model.parameters())


def weights_digest(model: nn.Module) -> Tensor:
    """int64 scalar: the sum of all parameters, read as integers."""
    sums = [value.detach().view(INTEGERS[value.element_size()]).sum(dtype=torch.int64) for value in model.parameters()]
    return torch.stack(sums).sum()


def compare_ranks(model: nn.Module, world: World, step: int) -> None:
    """Raises `DivergedError`, on all ranks, if the weights of the ranks are not the same to the bit."""
    if world.size == 1:
        return
    digests = [int(digest) for digest in world.all_gather(weights_digest(model))]
    (common, count), *others = Counter(digests).most_common()
    if others:
        odd = [rank for rank, digest in enumerate(digests) if digest != common]
        whose = "no two ranks' weights are the same" if count == 1 else (
            f"the weights of rank{'s' * (len(odd) > 1)} {', '.join(map(str, odd))} differ from the others'")
        raise DivergedError(f"{whose} after step {step}")
