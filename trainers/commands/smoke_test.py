"""A few samples of each set pushed through model and loss before a run is submitted, so that what does not fit together
costs seconds and not a night in the queue.

The model is the one on the meta device: it has no weights, and tells the shape of its outputs at once, however large it
is. The loss is computed for real, on zeros of that shape and on the targets as they are.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from drumbeat.configs.errors import Fault
from drumbeat.configs.schema import Config
from drumbeat.data.device import to_device
from drumbeat.data.loader import Batch, BatchFetcher, Samples, Transform
from drumbeat.trainers.build import Sets, build_batch_transforms, build_mixing, build_model, build_stream
from drumbeat.trainers.tasks import Task

FEW = 4
"""Samples of each set."""

SMALL = 50_000_000
"""A model with no more parameters is built for real where the meta device is not enough for it."""

ONLY_THERE = re.compile(r"meta|cuda|triton|not implemented|no kernel|data-dependent", re.IGNORECASE)
"""In errors that tell of the place and not of the shapes: what cannot run without values, or without a GPU."""


def rehearse(config: Config, sets: Sets, model: nn.Module, task: Task) -> list[Fault]:
    """What does not fit together: the samples of each set, the transforms, the model, the loss. The first fault alone:
    the later sets would show it again. `config` holds the facts of the data (`drumbeat.trainers.facts`)."""
    faults: list[Fault] = []
    for name in ("train", "validation", "test"):
        samples = getattr(sets, name)
        if samples is None or faults:
            continue
        if isinstance(batch := _fetched(config, sets, name, samples), Fault):
            faults.append(batch)
            continue
        outputs = _outputs(config, name, model, batch)
        if isinstance(outputs, Fault):
            faults.append(outputs)
        elif outputs is not None and (fault := _loss_fault(sets.classes, name, task, outputs, batch)):
            faults.append(fault)
    return faults


def _fetched(config: Config, sets: Sets, name: str, samples: Samples) -> Batch | Fault:
    """The first samples of a set, read, transformed and collated as the run does it."""
    skip = config.data.on_error == "skip"
    if name == "train":
        transforms: Sequence[Transform] = sets.train_transforms
        fetch = BatchFetcher(samples, indices=build_stream(config, samples, 0).indices, transforms=transforms,
                      seed=config.seed, mixing=build_mixing(config), skip_unreadable=skip)
    else:
        fetch = BatchFetcher(samples, indices=lambda positions: positions % len(samples), skip_unreadable=skip,
                      transforms=(transforms := sets.evaluate_transforms))
    try:
        return fetch.__getitems__(range(FEW))
    except Exception as error:
        if str(error).startswith("cannot read the image"):
            return Fault(what=str(error), where=f"data.{name}", remedy="Fetch the file again, or take it out. Take the "
                         "next image in place of those that cannot be read: data.on_error=skip")
        kind = "train" if name == "train" else "evaluate"
        return Fault(what=f"the first samples of data.{name} cannot be made into a batch: {_told(error)}",
                     where=f"data.{name}", given=_place(error),
                     remedy=f"They must be readable, and of one shape after data.transforms.{kind}."
                     if transforms or "stack" in str(error) else "")


def _outputs(config: Config, name: str, model: nn.Module, batch: Batch) -> Any:
    """Zeros in the shape of the model's outputs; None where that cannot be found out here; or what is wrong."""
    parameters = list(model.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    model.train(name == "train")
    try:
        inputs = build_batch_transforms(config)(batch.inputs)
    except Exception as error:
        return Fault(what=f"data.transforms.batch cannot take a batch of data.{name}: {_told(error)}",
                     where="data.transforms.batch", given=f"{shapes(batch.inputs)}\n{_place(error)}")
    try:
        outputs = model(to_device(inputs, device))
    except Exception as error:
        if ONLY_THERE.search(f"{type(error).__name__} {error}"):
            small = device.type == "meta" and sum(parameter.numel() for parameter in parameters) <= SMALL
            return _outputs(config, name, build_model(config), batch) if small else None
        return Fault(what=f"the model cannot take a batch of data.{name}: {_told(error)}", where="model",
                     given=f"{shapes(inputs)}\n{_place(error)}",
                     remedy="Change the model, or the transforms, so that they fit together.")
    return tree_map(lambda one: torch.zeros(one.shape, dtype=one.dtype, requires_grad=one.dtype.is_floating_point)
                    if isinstance(one, Tensor) else one, outputs)


def _loss_fault(classes: Sequence[str], name: str, task: Task, outputs: Any, batch: Batch) -> Fault | None:
    """What is wrong with the loss of these outputs, if anything is. One of the targets is the last class there is,
    which few samples need not show."""
    wanted: Any = batch.targets if not isinstance(batch.targets, dict) or "own" not in batch.targets else (
        batch.targets["own"])
    if isinstance(wanted, Tensor) and wanted.dtype == torch.int64 and wanted.dim() == 1 and classes:
        wanted = wanted.clone()
        wanted[-1] = len(classes) - 1
    given = f"outputs {shapes(outputs)}; targets {shapes(wanted)}" + (
        f", {len(classes)} classes" if classes else "")
    try:
        losses = task.losses(outputs, wanted)
        if tuple(losses.shape) != (FEW,):
            return Fault(what="the loss is not one number for each sample", where="task",
                         given=f"{given}; losses {shapes(losses)}", remedy="A task's losses are float32 [n].")
        if name == "train":
            losses.sum().backward()
    except Exception as error:
        return Fault(what=f"the loss cannot be computed from the model's outputs for data.{name}: {_told(error)}",
                     where="task", given=given,
                     remedy="The model's outputs must fit the targets: as many classes, and their shape and dtype.")
    return None


def shapes(value: Any) -> str:
    """The tensors in a value: 'float32 [4, 1, 8, 8]'."""
    told = [f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}" if isinstance(one, Tensor)
            else type(one).__name__ for one in tree_leaves(value)]
    return ", ".join(told) or "nothing"


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _place(error: Exception) -> str:
    """Where it went wrong: the innermost line that is not torch's or another package's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if "site-packages" not in frame.filename and frame.filename != __file__]
    return f"at {Path(frames[-1].filename)}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
