"""Runs a few samples of each set through model and loss before a run is submitted, so that an error costs seconds and
not a night in the queue.

The model is on the meta device: it has no weights, and computes the shape of its outputs immediately, whatever its
size. The loss is really computed, on zeros of that shape and the real targets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.configs.errors import Fault
from drumbeat.configs.schema import Config
from drumbeat.data.device import to_device
from drumbeat.data.loader import Batch, BatchFetcher, Samples
from drumbeat.data.structure import leaves, mapped
from drumbeat.data.user_code import CollateError, SampleError, UnreadableError, place
from drumbeat.trainers.build import Sets, build_batch_transforms, build_mixing, build_model, build_stream
from drumbeat.trainers.forward import call
from drumbeat.trainers.tasks import Classification, MultiLabel, Task
from drumbeat.trainers.tasks.losses import summed
from drumbeat.trainers.tasks.task import kept_outputs, losses_of

FEW = 4
"""The number of samples of each set."""

SMALL = 50_000_000
"""A model with at most this many parameters is built in memory if it does not run on the meta device."""

CALLED = "A model is called with a dict of inputs by their names, and with a tuple by their order."

PER_SAMPLE = ("Return one value for each sample, float32 [n], from a loss for reduction=\"none\"; or give a task of "
              "your own a `batch_loss` (docs/structures.md).")

PLACE_ERROR = re.compile(r"meta|cuda|triton|not implemented|no kernel|data-dependent", re.IGNORECASE)
"""In errors that are about the device and not about shapes: the model needs values or a GPU."""


def smoke_test(config: Config, sets: Sets, model: nn.Module, task: Task, notes: list[str] | None = None
               ) -> Fault | Batch:
    """Runs samples of each set through transforms, model and loss. Returns the first fault, because later sets would
    have the same one, or the batch of training samples. `config` includes the facts of the data
    (`drumbeat.trainers.facts`). What is perhaps wrong is added to `notes`."""
    batches: list[Batch] = []
    others = [("train", phase) for phase in sets.phase_transforms if phase]
    for name, phase in [("train", 0), ("validation", 0), ("test", 0), *others]:
        if (samples := getattr(sets, name)) is None:
            continue
        if isinstance(batch := _fetched(config, sets, name, samples, phase), Fault):
            return _in_phase(config, phase, batch)
        batches.append(batch)
        outputs = _outputs(config, name, model, batch)
        if isinstance(outputs, Fault):
            return _in_phase(config, phase, outputs)
        if outputs is not None and (fault := _loss_fault(sets.classes, name, task, outputs, batch)):
            return _in_phase(config, phase, fault)
        if batch is batches[0] and outputs is not None and notes is not None and (
                note := classes_note(sets, task, outputs)):
            notes.append(note)
    return batches[0]


def _in_phase(config: Config, phase: int, fault: Fault) -> Fault:
    """The fault of a batch with the transforms of a phase; the first phase's are not told apart."""
    name = list(config.phases)[phase] if phase else ""
    return replace(fault, what=f"in phase {name}, {fault.what}", where=f"phases.{name}.transforms") if name else fault


def _fetched(config: Config, sets: Sets, name: str, samples: Samples, phase: int) -> Batch | Fault:
    """A batch of the first samples of a set, read, transformed and collated as in this phase of the run; or a fault."""
    skip = config.data.on_error == "skip"
    if name == "train":
        fetch = BatchFetcher(samples, indices=build_stream(config, samples, phase).indices, name="data.train",
                             transforms=sets.transforms_in(phase), phase=phase, seed=config.seed,
                             mixing=build_mixing(config),
                             skip_unreadable=skip, collate=sets.collate)
    else:
        fetch = BatchFetcher(samples, indices=lambda positions: positions % len(samples), name=f"data.{name}",
                             transforms=sets.evaluate_transforms, skip_unreadable=skip, collate=sets.collate)
    try:
        return fetch.__getitems__(range(FEW))
    except SampleError as error:
        return Fault(what=str(error), where=f"data.{name}", remedy="Repair or remove the file. To use the next sample "
                     "in place of one that cannot be read: data.on_error=skip"
                     if isinstance(error, UnreadableError) and not skip else "")
    except CollateError as error:
        kind = "train" if name == "train" else "evaluate"
        return Fault(what=str(error), where=f"data.{name}" if sets.collate is None else "data.collate_fn",
                     remedy=f"Samples must have the same shape after data.transforms.{kind}; or data.collate_fn is a "
                            "function of yours, which pads them." if "stack" in str(error) else "")
    except Exception as error:
        return Fault(what=f"data.{name} cannot be read: {error_text(error)}", where=f"data.{name}",
                     given=error_place(error))


def _outputs(config: Config, name: str, model: nn.Module, batch: Batch) -> Any:
    """Zeros in the shape of the model's outputs; None if it cannot be determined here; or a fault."""
    parameters = list(model.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    model.train(name == "train")
    try:
        inputs = build_batch_transforms(config)(batch.inputs)
    except Exception as error:
        return Fault(what=f"data.transforms.batch cannot take a batch of data.{name}: {error_text(error)}",
                     where="data.transforms.batch", given=f"{shapes(batch.inputs)}\n{error_place(error)}")
    try:
        outputs = call(model, to_device(inputs, device))
    except Exception as error:
        if PLACE_ERROR.search(f"{type(error).__name__} {error}"):
            small = device.type == "meta" and sum(parameter.numel() for parameter in parameters) <= SMALL
            return _outputs(config, name, build_model(config), batch) if small else None
        return Fault(what=f"the model cannot take a batch of data.{name}: {error_text(error)}", where="model",
                     given=f"{shapes(inputs)}\n{error_place(error)}",
                     remedy=float64_remedy(error) or "Change the model or the transforms so that they fit together. "
                     + (CALLED if isinstance(inputs, tuple | dict) else ""))
    return mapped(lambda one: torch.zeros(one.shape, dtype=one.dtype, requires_grad=one.dtype.is_floating_point)
                  if isinstance(one, Tensor) else one, outputs)


def classes_note(sets: Sets, task: Task, outputs: Any) -> str:
    """A note if the outputs of a classification are more or fewer than the classes of the training set; '' otherwise.
    One output is for two classes."""
    scores = kept_outputs(task, outputs)
    if type(task) is not Classification or not sets.classes or not isinstance(scores, Tensor) or scores.dim() != 2:
        return ""
    if scores.shape[1] in (1, len(sets.classes)):
        return ""
    return (f"the outputs are {scores.shape[1]:,} for each sample, and data.train has {len(sets.classes)} classes; if "
            "these are embeddings, give the task a `select`: otherwise accuracy compares the largest of them with the "
            "label")


def _loss_fault(classes: Sequence[str], name: str, task: Task, outputs: Any, batch: Batch) -> Fault | None:
    """A fault in the loss of these outputs, or None. One of the targets is set to the last class, which a few samples
    may not include."""
    targets: Any = batch.targets if not isinstance(batch.targets, dict) or "own" not in batch.targets else (
        batch.targets["own"])
    if isinstance(targets, Tensor) and targets.dtype == torch.int64 and targets.dim() == 1 and classes:
        targets = targets.clone()
        targets[-1] = len(classes) - 1
    given = f"outputs {shapes(outputs)}; targets {shapes(targets)}" + (
        f", {len(classes)} classes" if classes else "")
    try:
        if wrong := _wrong_labels(task, outputs, targets):
            return Fault(what=f"data.{name} has the label {wrong[0]:g}", where=f"data.{name}", given=given,
                         remedy="Classes are numbered from 0 on, and labels are 0 or 1. To ignore a label, name the "
                                "loss: {_target_: torch.nn.CrossEntropyLoss, ignore_index: -100}")
        losses = summed(losses_of(task, outputs, targets, FEW))
        if tuple(losses.shape) != (FEW,):
            return Fault(what="the loss is not one number for each sample", where="task",
                         given=f"{given}; losses {shapes(losses)}", remedy=PER_SAMPLE)
        if name == "train":
            losses.sum().backward()
    except Exception as error:
        return Fault(what=f"the loss cannot be computed from the model's outputs for data.{name}: {error_text(error)}",
                     where="task", given=given,
                     remedy="The model's outputs must fit the targets: as many classes, and their shape and dtype.")
    return None


def _wrong_labels(task: Task, outputs: Any, targets: Any) -> list[float]:
    """The targets that are below the range of our tasks, or not from 0 to 1 where they must be. Binary cross-entropy
    computes something for them all the same."""
    if type(task) not in (Classification, MultiLabel) or not isinstance(targets, Tensor) or targets.dtype.is_complex:
        return []
    outputs = kept_outputs(task, outputs)
    values = targets.flatten().tolist()
    if type(task) is MultiLabel or (type(task) is Classification and outputs.dim() <= 2 and (
            outputs.dim() == 1 or outputs.shape[1] == 1)):
        return [value for value in values if not 0 <= value <= 1]
    if type(task) is not Classification or targets.is_floating_point():
        return []
    ignored = None if targets.dim() == 1 and task.loss is task.default_loss else task.ignore_index
    return [value for value in values if value < 0 and value != ignored]


def shapes(value: Any) -> str:
    """The tensors in a value: 'float32 [4, 1, 8, 8]'."""
    texts = [f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}" if isinstance(one, Tensor)
            else type(one).__name__ for one in leaves(value)]
    return ", ".join(texts) or "nothing"


def error_text(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def float64_remedy(error: Exception) -> str:
    """What to do if the error is that of float64 inputs, which numpy computes, in a float32 model; '' for others."""
    return ("The inputs are float64, and the model's weights are not: return float32 from the dataset or a transform, "
            "as in array.astype('float32')." if "double" in str(error).lower() else "")


def error_place(error: Exception) -> str:
    """The innermost line of the traceback that is the user's."""
    return f"at {found}" if (found := place(error)) else ""
