"""A model together with the parts of its task that are trained: a loss with parameters of its own."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from drumbeat.trainers.checkpoints.extra_state import as_tensors, has_extra_state
from drumbeat.trainers.tasks import Task

PREFIX = "task:"
"""Before the names of the task's tensors in a state dict. No module's name begins so."""


class ModelAndTask(nn.Module):
    """Called as the model. Parameters, buffers and state are those of both, so they are trained, synchronized over
    ranks, saved and resumed together. In a state dict, the model's names are as without a task."""

    def __init__(self, model: nn.Module, task: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.model(*inputs, **named)

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        own = self.task.state_dict(*args, **options)
        return dict(self.model.state_dict(*args, **options)) | {f"{PREFIX}{name}": value for name, value in own.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        self.task.load_state_dict({name.removeprefix(PREFIX): value for name, value in state_dict.items()
                                   if name.startswith(PREFIX)}, strict, assign)
        return self.model.load_state_dict(without_task(state_dict), strict, assign)


def with_task(model: nn.Module, task: Task | None) -> nn.Module:
    """The model with the task's trained parts; the model itself if there are none."""
    parts = None if task is None else parts_of(task)
    return model if parts is None or not _is_trained(parts) else ModelAndTask(model, as_tensors(parts))


def without_task(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's part of a state dict."""
    return {name: value for name, value in state.items() if not name.startswith(PREFIX)}


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """The modules by the names that a config gives them: the model's, and "task" for the trained parts of the task."""
    if isinstance(model, ModelAndTask):
        return dict(model.model.named_modules()) | {"task": model.task}
    return dict(model.named_modules())


def parts_of(task: Task) -> nn.Module:
    """The task itself if it is a module; otherwise a module with the modules and parameters in its attributes, each
    under its first name."""
    if isinstance(task, nn.Module):
        return task
    parts = nn.Module()
    for name, value in vars(task).items():
        if isinstance(value, nn.Module) and value not in parts.children():
            parts.add_module(name, value)
        elif isinstance(value, nn.Parameter) and all(value is not one for one in parts.parameters()):
            parts.register_parameter(name, value)
    return parts


def on_host(task: Task) -> Task:
    """The task for outputs on the CPU: a copy if tensors of its parts are on a device."""
    parts = parts_of(task)
    tensors = [*parts.parameters(), *parts.buffers()]
    if all(one.device.type == "cpu" for one in tensors):
        return task
    copies: dict[int, Any] = {id(one): nn.Parameter(one.detach().cpu(), one.requires_grad)
                              if isinstance(one, nn.Parameter) else one.cpu() for one in tensors}
    return deepcopy(task, copies)


def _is_trained(parts: nn.Module) -> bool:
    """Whether there is something to train or to save: parameters, extra state, or buffers that are not those of torch's
    losses, which are constant."""
    return any(True for _ in parts.parameters()) or any(map(has_extra_state, parts.modules())) or any(
        True for module in parts.modules() if not isinstance(module, _Loss) for _ in module.buffers(recurse=False))
