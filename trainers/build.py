"""Config sections -> objects. The only file that knows both what a config says and what the classes take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from configs.errors import Fault, PrepareError
from configs.schema import Config, Phase
from configs.text import inline
from data.loader import Samples, Transform
from data.order import key
from trainers.target import all_of, instantiate
from trainers.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The sets of samples, and what is done to them. A set that the config leaves out is None."""

    train: Samples
    validation: Samples | None
    test: Samples | None
    train_transforms: Sequence[Transform]
    evaluate_transforms: Sequence[Transform]

    @property
    def classes(self) -> list[str]:
        """The names of the classes, where the training set knows them."""
        return list(getattr(self.train, "classes", []))


def build_sets(config: Config) -> Sets:
    """The datasets and the per-sample transforms. Raises `PrepareError` with the faults of all of them."""
    data = config.data
    train, validation, test, for_training, for_evaluation = all_of([
        partial(_build_set, data.train, "data.train", needed=True),
        partial(_build_set, data.validation, "data.validation"),
        partial(_build_set, data.test, "data.test"),
        partial(instantiate, data.transforms.train, "data.transforms.train"),
        partial(instantiate, data.transforms.evaluate, "data.transforms.evaluate"),
    ])
    return Sets(train=train, validation=validation, test=test, train_transforms=for_training,
                evaluate_transforms=for_evaluation)


def _build_set(node: dict[str, Any], key: str, *, needed: bool = False) -> Samples | None:
    if not node:
        if needed:
            raise PrepareError(Fault(what="no training set", where=key,
                                     remedy="Name one: data: {train: {_target_: data.images.ImageFolder, root: ...}}"))
        return None
    samples = instantiate(node, key)
    if not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
        raise PrepareError(Fault(what=f"{key} is not a map-style dataset", where=f"{key}._target_",
                                 given=node["_target_"],
                                 remedy="It needs __len__ and __getitem__, which returns (input, target)."))
    return cast(Samples, samples)


def build_model(config: Config) -> nn.Module:
    """The model, its random weights drawn from the run's seed alone. Raises `PrepareError`."""
    torch.manual_seed(key(config.seed, "weights"))
    model = instantiate(config.model, "model")
    if not isinstance(model, nn.Module):
        raise PrepareError(Fault(what="the model is not a torch.nn.Module", where="model._target_",
                                 given=str(config.model.get("_target_")), remedy="Name a class or a function that "
                                 "returns a module."))
    return model


def build_batch_transforms(config: Config) -> nn.Sequential:
    """What is done to each batch on the device."""
    return nn.Sequential(*instantiate(config.data.transforms.batch, "data.transforms.batch"))


def build_task(config: Config, classes: Sequence[str], device: torch.device | None = None) -> Task:
    """The task, told the names of the classes where it wants to know them; its losses' own tensors on the device."""
    named = {"classes": list(classes)} if classes and "classes" not in config.task else {}
    task = instantiate({**config.task, **named}, "task")
    for part in vars(task).values():
        if isinstance(part, nn.Module):
            part.to(device)
    return cast(Task, task)


def build_optimizer(phase: Phase, name: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The phase's optimizer over the parameters that are not frozen."""
    return cast(torch.optim.Optimizer, instantiate(phase.optimizer, f"phases.{name}.optimizer", list(parameters)))


def build_scheduler(phase: Phase, name: str, optimizer: torch.optim.Optimizer) -> Any:
    """The phase's learning-rate scheduler; None for a constant rate."""
    return instantiate(phase.scheduler, f"phases.{name}.scheduler", optimizer) if phase.scheduler else None


def frozen_modules(model: nn.Module, phase: Phase, name: str) -> list[nn.Module]:
    """The modules that the phase freezes. Raises `PrepareError` for a name the model does not have."""
    modules = dict(model.named_modules())
    for frozen in phase.freeze:
        if frozen not in modules:
            top = [child for child, _ in model.named_children()]
            raise PrepareError(Fault(what=f"the model has no module '{frozen}'", where=f"phases.{name}.freeze",
                                     given=inline(phase.freeze),
                                     remedy=f"Its modules are {', '.join(top)} and theirs."))
    return [modules[frozen] for frozen in phase.freeze]


def loader_workers(config: Config, *, threads: int, debug: bool) -> int:
    """Loader processes for a rank with so many cores; none in debug, where a breakpoint must stop this process."""
    if debug:
        return 0
    return min(8, threads - 1) if config.data.workers is None else config.data.workers


def computes_bf16(precision: Literal["auto", "bf16", "fp32"], device: torch.device) -> bool:
    """Whether the forward pass runs in bfloat16: asked for, or auto and multiplied by the hardware itself."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or "avx512_bf16" in _cpu_flags())


def _cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line for line in lines if line.startswith("flags")), "")
