"""The sum of the virtual ranks' gradients, with the same bits however they are grouped and in whatever order.

Before they are added, the gradients of a tensor are rounded to multiples of one quantum, 2^e: in float64,
q = (g + M) - M with M = 1.5 * 2^(52 + e). All sums of such numbers below 2^(53 + e) are multiples of 2^e with at most
53 bits, which a float64 holds, so no addition rounds, and additions without rounding associate. This is pre-rounding:
Demmel and Nguyen, "Fast Reproducible Floating-Point Summation", ARITH 2013, with the splitting of Rump, Ogita and
Oishi, "Accurate Floating-Point Summation Part I", SIAM J. Sci. Comput. 31 (2008).

The quantum of a tensor follows from the largest value in its gradients in the steps before, so no step has to look at
its gradients twice. If one is too large for it, all ranks see that in what they have reduced, and compute the step
again with a coarser quantum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.trainers.virtual_ranks import Division
from drumbeat.trainers.world import World

HEADROOM = 10
"""A gradient may become 2^10 times as large in a step as it was before, until a step is computed again."""
LEAST = -900
"""The exponent of a quantum before the first gradient, for which any gradient but 0 is too large."""
ROOM = 51
"""The sum of all parts stays below 2^(51 + e): M is chosen for a float64 with 53 bits, of which it takes two."""
ABSENT = -1.0
"""Stands for the largest value of a gradient that a part does not have."""
CHUNK = {"cpu": 2**16, "cuda": 2**24}
"""Elements rounded at a time: on the CPU so few that float64 copies of them stay in the cache of a core."""


class ExactSum:
    """Adds up the gradients of the parts of a step, over all ranks."""

    def __init__(self, parameters: Mapping[Tensor, str], division: Division, world: World) -> None:
        """`parameters` are those that are trained, with their names."""
        self.world = world
        self.count = division.count
        self.names = {one: name for one, name in parameters.items() if one.numel()}
        sizes = [_real(one).numel() for one in self.names]
        self.strides = [_real(torch.empty_like(one, device="meta")).stride() for one in self.names]
        """Of each parameter's gradient, so that it is [n] in its memory."""
        rows, device = len(sizes), world.device
        self.flat = torch.zeros(sum(sizes) + rows * self.count + self.count, dtype=torch.float64, device=device)
        """What is reduced: the sums of all gradients, and behind them the next two."""
        *sums, norms, self.losses = self.flat.split([*sizes, rows * self.count, self.count])
        self.sums: Sequence[Tensor] = sums
        """The sum of each parameter's gradients, [n], in the order of its memory."""
        self.norms = norms.view(rows, self.count)
        """The largest absolute value of each parameter's gradient in each part."""
        self.scratch = torch.empty(min(CHUNK.get(device.type, CHUNK["cuda"]), max(sizes, default=0)),
                                   dtype=torch.float64, device=device)
        self.exponents = torch.full((rows,), LEAST)
        """int64 [parameters], on the host: e of each one's quantum 2^e."""
        self.last: list[Tensor | None] = [None] * rows
        """The gradients of the last part, whose memory the sums are returned in."""
        self.is_new = True

    @torch.no_grad()
    def add(self, part: int, loss: Tensor) -> None:
        """Adds the gradients of a part, and takes them away from the parameters. `loss` is its part of the loss."""
        if self.is_new:
            self.norms.zero_()
            self.losses.zero_()
        self.last = [parameter.grad for parameter in self.names]
        found: list[tuple[int, Tensor]] = []
        for number, (parameter, strides) in enumerate(zip(self.names, self.strides, strict=True)):
            if parameter.grad is not None:
                found.append((number, _in_a_row(parameter.grad, strides, self.names[parameter])))
                parameter.grad = None
            elif self.is_new:
                self.sums[number].zero_()
        for (number, values), exponent in zip(found, self.exponents[[one for one, _ in found]].tolist(), strict=True):
            self._add(values, self.sums[number], math.ldexp(1.5, 52 + exponent))
        self.norms[:, part] = ABSENT
        if found:
            self.norms[[number for number, _ in found], part] = _largest([values for _, values in found])
        self.losses[part] = loss.double() + 0.0  # 0 instead of -0, because the others' zeros are added
        self.is_new = False

    def _add(self, values: Tensor, sums: Tensor, shift: float) -> None:
        size = len(self.scratch)
        for start in range(0, len(values), size):
            some, total = values[start:start + size], sums[start:start + size]
            rounded = total if self.is_new else self.scratch[:len(some)]
            rounded.copy_(some).add_(shift).sub_(shift)
            if not self.is_new:
                total.add_(rounded)

    @torch.no_grad()
    def reduce(self) -> bool:
        """Gives each parameter the sum of its gradients over all parts, or no gradient if no part has one. Returns
        False if a finite gradient was too large for its quantum, which is coarser then: the parts must be added again.
        All ranks call it, and decide the same at any world size."""
        self.world.all_reduce(self.flat)
        self.is_new = True
        norms = self.norms.cpu()
        finite = norms.isfinite()
        peaks = norms.where(finite, 0).clamp(min=0).amax(1)
        needed = torch.frexp(peaks).exponent.long() + HEADROOM + math.ceil(math.log2(self.count)) - ROOM
        too_large = peaks * self.count > torch.ldexp(torch.ones_like(peaks), self.exponents + ROOM)
        if bool((too_large & (needed > self.exponents)).any()):
            self.exponents = needed.where(too_large, self.exponents)
            return False
        if bool(finite.all()):  # it falls slowly, so that one small gradient does not make the next one too large
            self.exponents = torch.maximum(needed, self.exponents - 1).where(peaks > 0, self.exponents)
        has_gradient = (norms != ABSENT).any(1).tolist()
        for parameter, sums, strides, own, exists in zip(self.names, self.sums, self.strides, self.last, has_gradient,
                                                         strict=True):
            if exists:
                fits = own is not None and _lies(_real(own), strides)
                gradient = own if own is not None and fits else torch.empty_like(parameter)
                _in_a_row(gradient, strides).copy_(sums)
                parameter.grad = gradient
        self.last = [None] * len(self.last)
        return True

    def loss(self) -> Tensor:
        """This rank's part of the loss of the step, float64: on rank 0 the sum over all parts, and 0 on the others; the
        same on all if it is NaN or Inf, and so is the sum of theirs."""
        total: Tensor = self.losses.sum()
        return total if self.world.is_main else total.where(~total.isfinite(), 0)

    def state(self) -> dict[str, int]:
        """The exponents of the quanta by the parameters' names. The sums of the next step depend on them."""
        return dict(zip(self.names.values(), self.exponents.tolist(), strict=True))

    def load(self, state: Mapping[str, int]) -> None:
        """Takes them from a checkpoint."""
        own = self.state() | {name: int(value) for name, value in state.items()}
        self.exponents = torch.tensor([own[name] for name in self.names.values()], dtype=torch.int64)


def _largest(each: list[Tensor]) -> Tensor:
    """float64 [n]: the largest absolute value in each tensor; NaN if it has one."""
    if each[0].device.type != "cpu":
        return torch.stack(torch._foreach_norm(each, math.inf)).double()
    ends = [torch.stack(values.aminmax()).double() for values in each]  # a tenth of the time of a norm on the CPU
    return torch.stack(ends).abs().amax(1)


def _real(values: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones."""
    return torch.view_as_real(values.detach()) if values.is_complex() else values.detach()


def _lies(values: Tensor, strides: Sequence[int]) -> bool:
    """Whether they are in memory with these strides; those of single rows do not count."""
    return all(size < 2 or one == other for size, one, other in zip(
        values.shape, values.stride(), strides, strict=True))


def _in_a_row(gradient: Tensor, strides: Sequence[int], name: str = "") -> Tensor:
    """[n]: a gradient in the order of these strides, which leave no gaps; the same memory if it lies there with them.
    Raises `PreflightError` for a sparse one."""
    if gradient.layout is not torch.strided:
        raise PreflightError(Fault(
            what=f"{name} has a sparse gradient, which cannot be summed exactly", where="virtual_ranks",
            given=str(gradient.layout), remedy="Give its module sparse: false, or set virtual_ranks: null."))
    values = _real(gradient)
    if not _lies(values, strides):
        values = torch.empty_strided(values.shape, strides, dtype=values.dtype, device=values.device).copy_(values)
    return values.as_strided((values.numel(),), (1,))
