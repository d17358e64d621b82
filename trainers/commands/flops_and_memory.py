"""Measures the FLOPs of a model and the memory of a rank that trains it, on a few samples. These may be torch's fake
tensors, so neither the data nor memory for the weights is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from drumbeat.configs.schema import Phase
from drumbeat.data.structure import leaves, rows
from drumbeat.trainers.build_optimizer import build_optimizer
from drumbeat.trainers.forward import call
from drumbeat.trainers.freezing import frozen_parts, set_trainable
from drumbeat.trainers.model_and_task import modules_of
from drumbeat.trainers.several_optimizers import parts_of_step

SAMPLES = 4
"""The number of samples to measure with."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a rank needs in a phase."""

    weights: int
    """Parameters and buffers."""
    gradients: int
    """With virtual ranks, with their exact sum in float64."""
    optimizer: int
    """The optimizer's state, after its first step."""
    average: int = 0
    """The average of the weights, which is a copy of the model (torch's AveragedModel)."""
    activations: int
    """The tensors that autograd saves for the backward pass of a micro-batch, and the inputs of the micro-batch."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


def outputs_and_flops(model: nn.Module, inputs: Any) -> tuple[dict[str, list[int]], int]:
    """The shape of each module's output for one sample, by the module's name, and the FLOPs of a forward pass on one
    sample. torch counts matrix products and convolutions, and a multiplication with an addition as two operations."""
    shapes: dict[str, list[int]] = {}

    def recorder(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            shapes[name] = _shape(output)

        return hook

    handles = [module.register_forward_hook(recorder(name)) for name, module in modules_of(model).items()]
    model.eval()
    counter = FlopCounterMode(display=False)
    try:  # without oneDNN, whose recurrent layers are a single operation that the counter does not know
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # setting the flags warns about a device that is not used
            with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), counter:
                call(model, first(inputs, SAMPLES))
    finally:
        for handle in handles:
            handle.remove()
    return shapes, counter.get_total_flops() // SAMPLES


def _shape(output: Any) -> list[int]:
    """The shape of one sample in a module's output, or in its first tensor."""
    return next((list(one.shape[1:]) for one in tensors(output)), [])


def memory(model: nn.Module, parameters: Sequence[nn.Parameter], phase: Phase, name: str, inputs: Any,
           autocast: AbstractContextManager[Any], micro_batch: int, *, exact: bool = False) -> Memory:
    """The memory of a rank in a phase, for micro-batches of `micro_batch` samples. Those of `parameters` are trained
    that the phase does not freeze; the model is left so. `exact` says whether their gradients are summed exactly.

    Activations are measured with 2 and with `SAMPLES` samples and extrapolated linearly. `autocast` is the context of
    the forward pass; it is entered twice.
    """
    frozen = frozen_parts(model, phase, name)
    set_trainable(model.train(), parameters, frozen)
    for module in frozen.modules:
        module.eval()
    few, more = (_kept(model, first(inputs, count), autocast) for count in (2, SAMPLES))
    each = (more - few) / (SAMPLES - 2)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    return Memory(weights=weights,
                  gradients=sum(one.nbytes + exact * 8 * one.numel() * (1 + one.is_complex()) for one in trained),
                  optimizer=_optimizer_state(model, trained, phase, name),
                  average=weights if phase.average else 0,
                  activations=round(more + each * (micro_batch - SAMPLES)) + size(inputs) * micro_batch // SAMPLES)


def _kept(model: nn.Module, inputs: Any, autocast: AbstractContextManager[Any]) -> int:
    """Bytes of the tensors that autograd saves in a forward pass, without the parameters and the inputs."""
    own = {_storage(one) for one in (*model.parameters(), *model.buffers(), *tensors(inputs))}
    seen: dict[int, Tensor] = {}  # the tensors are kept so that no address is used twice

    def keep(saved: Tensor) -> Tensor:
        if _storage(saved) not in own:
            seen[_storage(saved)] = saved
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved), autocast:
        outputs = call(model, inputs)
    total = sum(saved.untyped_storage().nbytes() for saved in seen.values())
    del outputs
    return total


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _optimizer_state(model: nn.Module, trained: Sequence[nn.Parameter], phase: Phase, name: str) -> int:
    """Bytes of the optimizer's state after one step with zero gradients."""
    optimizer = build_optimizer(phase, name, model, trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter in trained:
        parameter.grad = None
    return sum(value.nbytes for one in parts_of_step(optimizer) for state in one.state.values()
               for value in state.values() if isinstance(value, Tensor))


def tensors(values: Any) -> list[Tensor]:
    """All tensors in a batch's inputs."""
    return [one for one in leaves(values) if isinstance(one, Tensor)]


def size(values: Any) -> int:
    """Bytes of a batch's inputs."""
    return sum(one.nbytes for one in tensors(values))


def first(values: Any, count: int) -> Any:
    """The first samples of a batch's inputs."""
    return rows(values, range(count), -1)
