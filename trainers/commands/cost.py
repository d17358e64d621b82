"""What a model costs: its arithmetic, and the memory of a rank that trains it. Measured on a few samples that may well
be without content (torch's fake tensors), so that neither the data nor room for the weights is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from drumbeat.configs.schema import Phase
from drumbeat.trainers.build import build_optimizer, frozen_modules

SAMPLES = 4
"""Samples that the costs are measured on."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a rank needs in a phase."""

    weights: int
    """Parameters and buffers."""
    gradients: int
    optimizer: int
    """The optimizer's state; 0 before its first step, and this from then on."""
    activations: int
    """What autograd keeps of a micro-batch for the backward pass, and the micro-batch's inputs."""

    @property
    def sum(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def outputs_and_flops(model: nn.Module, inputs: Any) -> tuple[dict[str, list[int]], int]:
    """The shape of what each module, by name, returns for one sample, and the floating-point operations of a forward
    pass on one sample, by torch's count: matrix products and convolutions, a multiplication and an addition as two."""
    shapes: dict[str, list[int]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            shapes[name] = _shape(output)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    model.eval()
    counter = FlopCounterMode(display=False)
    try:  # without oneDNN, whose recurrent layers are one operation that the counter does not know
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # setting the flags warns of a device that nobody has asked for
            with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), counter:
                model(first(inputs, SAMPLES))
    finally:
        for handle in handles:
            handle.remove()
    return shapes, counter.get_total_flops() // SAMPLES


def _shape(output: Any) -> list[int]:
    """The shape of a sample in a module's output, or in the first tensor of it."""
    if isinstance(output, Tensor):
        return list(output.shape[1:])
    parts = output.values() if isinstance(output, Mapping) else output
    return next((_shape(part) for part in parts if isinstance(part, Tensor | Mapping | list | tuple)), []) if (
        isinstance(parts, list | tuple) or isinstance(output, Mapping)) else []


def memory(model: nn.Module, phase: Phase, name: str, inputs: Any, autocast: AbstractContextManager[Any],
           micro_batch: int) -> Memory:
    """What a rank needs in a phase, for micro-batches of so many samples. The phase's freezing stays on the model.

    Activations are measured on 2 and on `SAMPLES` samples, and drawn out in a straight line. `autocast` is that of
    the forward pass, entered twice.
    """
    frozen = frozen_modules(model, phase, name)
    model.requires_grad_(True).train()
    for module in frozen:
        module.requires_grad_(False).eval()
    few, more = (_kept(model, first(inputs, count), autocast) for count in (2, SAMPLES))
    each = (more - few) / (SAMPLES - 2)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Memory(weights=sum(one.nbytes for one in (*model.parameters(), *model.buffers())),
                  gradients=sum(one.nbytes for one in trained),
                  optimizer=_optimizer_state(trained, phase, name),
                  activations=round(more + each * (micro_batch - SAMPLES)) + size(inputs) * micro_batch // SAMPLES)


def _kept(model: nn.Module, inputs: Any, autocast: AbstractContextManager[Any]) -> int:
    """Bytes that autograd keeps after a forward pass, the parameters and the inputs themselves not counted."""
    own = {_storage(one) for one in (*model.parameters(), *model.buffers(), *tensors(inputs))}
    seen: dict[int, Tensor] = {}  # the tensors too, for as long as an address must not be used again

    def keep(saved: Tensor) -> Tensor:
        if _storage(saved) not in own:
            seen[_storage(saved)] = saved
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved), autocast:
        outputs = model(inputs)
    total = sum(saved.untyped_storage().nbytes() for saved in seen.values())
    del outputs
    return total


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _optimizer_state(trained: Sequence[nn.Parameter], phase: Phase, name: str) -> int:
    """Bytes of the optimizer's state, after one step on gradients of zero."""
    optimizer = build_optimizer(phase, name, trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter in trained:
        parameter.grad = None
    return sum(value.nbytes for state in optimizer.state.values() for value in state.values()
               if isinstance(value, Tensor))


def tensors(values: Any) -> list[Tensor]:
    """All tensors in a batch's inputs."""
    if isinstance(values, Tensor):
        return [values]
    parts = values.values() if isinstance(values, Mapping) else values if isinstance(values, list | tuple) else ()
    return [one for part in parts for one in tensors(part)]


def size(values: Any) -> int:
    """Bytes of a batch's inputs."""
    return sum(one.nbytes for one in tensors(values))


def first(values: Any, count: int) -> Any:
    """The first samples of a batch's inputs."""
    if isinstance(values, Mapping):
        return {name: first(value, count) for name, value in values.items()}
    if isinstance(values, list | tuple) and tensors(values):
        return [first(value, count) for value in values]
    return values[:count]
