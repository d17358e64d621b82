"""Builds objects from config sections. The only module that knows both the config and the classes."""

from __future__ import annotations

import inspect
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.utils.data import IterableDataset

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.preconditions import merged
from drumbeat.configs.schema import Config
from drumbeat.data.cache import open_cache
from drumbeat.data.images import ImageFiles
from drumbeat.data.loader import Collate, Samples, ShardedBatchSampler, Transform
from drumbeat.data.mixing import Mixing
from drumbeat.data.order import Stream, key
from drumbeat.data.sampling import LengthBuckets, SampleStream
from drumbeat.data.schedule import Schedule
from drumbeat.data.splits import underlying
from drumbeat.trainers.build_transforms import as_module, build_transforms, fused_transforms
from drumbeat.trainers.checkpoints.extra_state import as_tensors
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.model_and_task import parts_of, with_task
from drumbeat.trainers.target import Ready, all_of, function_at, instantiate, locate
from drumbeat.trainers.tasks import Task

Precision = Literal["auto", "bf16", "fp16", "tf32", "fp32"]


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The datasets and their transforms. A dataset that the config leaves out is None."""

    train: Samples
    validation: Samples | None
    test: Samples | None
    train_transforms: Sequence[Transform]
    evaluate_transforms: Sequence[Transform]
    collate: Collate | None = None
    """Makes a batch of a list of samples; None to stack them."""
    phase_transforms: Mapping[int, Sequence[Transform]] = field(default_factory=dict)
    """Those of training samples in phases that have their own, by the number of the phase."""

    @property
    def classes(self) -> list[str]:
        """The names of the classes or labels; empty if the training set does not know them."""
        return list(getattr(self.train, "classes", []))

    def transforms_in(self, phase: int) -> Sequence[Transform]:
        """The transforms of training samples in a phase."""
        return self.phase_transforms.get(phase, self.train_transforms)

    @property
    def task_arguments(self) -> dict[str, list[str]]:
        """Arguments of a task: the names of the training set's `classes` or `values`."""
        names = {"classes": self.classes, "values": list(getattr(self.train, "value_names", []))}
        return {name: value for name, value in names.items() if value}


def build_sets(config: Config) -> Sets:
    """The datasets and the per-sample transforms. Raises one `PreflightError` with all faults, each once."""
    data, phases = config.data, {number: (name, phase.transforms) for number, (name, phase) in enumerate(
        config.phases.items()) if phase is not None and phase.transforms}
    try:
        train, validation, test, for_training, for_evaluation, collate, *for_phases = all_of([
            partial(_build_set, data.train, "data.train", needed=True),
            partial(_build_set, data.validation, "data.validation"),
            partial(_build_set, data.test, "data.test"),
            partial(build_transforms, data.transforms.train, "data.transforms.train"),
            partial(build_transforms, data.transforms.evaluate, "data.transforms.evaluate"),
            partial(_build_collate, data.collate_fn),
            *(partial(build_transforms, nodes, f"phases.{name}.transforms") for name, nodes in phases.values()),
        ])
    except PreflightError as error:
        raise PreflightError(*merged(error.faults, data.root)) from error
    (for_evaluation, for_training, *for_phases), side = fused_transforms(
        config, [for_evaluation, for_training, *for_phases])
    for images in filter(None, map(image_set, (train, validation, test))):
        if images.short_side == "auto":
            images.short_side = side
    return Sets(train=train, validation=validation, test=test, train_transforms=for_training,
                evaluate_transforms=for_evaluation, collate=collate,
                phase_transforms=dict(zip(phases, for_phases, strict=True)))


def image_set(samples: Any) -> ImageFiles | None:
    """The set of image files that a dataset is, or is a part of; None for other datasets."""
    found = None if samples is None else underlying(samples, ImageFiles)
    return found and found[0]


def use_caches(config: Config, sets: Sets, *, processes: int,
               progress: Callable[[str, int, int], None] = lambda name, done, total: None) -> None:
    """Fills `data.cache` and lets all sets read their images from it. `progress` is called with the name of the set,
    the number of images that are done, and their total number. Raises `PreflightError` if the cache cannot be
    written."""
    if config.data.cache is None:
        return
    folder = Path(os.path.expandvars(config.data.cache))
    if unset := re.search(r"\$\{?(\w+)", str(folder)):
        raise PreflightError(Fault(
            what=f"the variable {unset[1]} is not set on {socket.gethostname()}", where="data.cache",
            given=config.data.cache, remedy="Set it, or name another folder."))
    for name in ("train", "validation", "test"):
        images = image_set(getattr(sets, name))
        if images is not None:
            try:
                images.cache = open_cache(images, folder, workers=processes, progress=partial(progress, name))
            except OSError as error:
                raise PreflightError(Fault(what=f"the cache cannot be written: {error.strerror}", where="data.cache",
                                           given=str(folder), remedy="Choose another folder, or remove data.cache."
                                           )) from error


def build_stream(config: Config, samples: Samples, number: int) -> SampleStream:
    """The order in which phase `number` reads the set. Raises `PreflightError`."""
    if not config.data.sampling:
        return Stream(len(samples), config.seed, number, config.data.shuffle)
    return cast(SampleStream, instantiate(config.data.sampling, "data.sampling", samples, config.seed, number))


def build_batch_sampler(config: Config, samples: Samples, schedule: Schedule, stream: SampleStream, *, rank: int,
                 world_size: int, first: int) -> Iterable[Any]:
    """The positions that a rank reads in each step, starting at step `first`. Raises `PreflightError`."""
    if config.data.bucket_batches is None:
        return ShardedBatchSampler(schedule, rank=rank, world_size=world_size, first=first)
    lengths = getattr(samples, "lengths", None)
    if lengths is None:
        raise PreflightError(Fault(what=f"the dataset {type(samples).__name__} has no `lengths`",
                                   where="data.bucket_batches", given=str(config.data.bucket_batches),
                                   remedy="Add an attribute `lengths`, int64 [n], or remove bucket_batches."))
    return LengthBuckets(schedule, stream, lengths, batches=config.data.bucket_batches, rank=rank,
                         world_size=world_size, first=first)


def build_mixing(config: Config) -> Mixing | None:
    """How training samples are mixed; None for no mixing. Raises `PreflightError`."""
    return cast(Mixing, instantiate(config.data.mix, "data.mix")) if config.data.mix else None


def _build_set(node: dict[str, Any], key: str, *, needed: bool = False) -> Samples | None:
    if not node:
        if needed:
            raise PreflightError(Fault(what="no training set", where=key,
                                       remedy="Name one: data: {train: {_target_: drumbeat.data.ImageFolder, "
                                              "root: ...}}"))
        return None
    samples = instantiate(node, key)
    missing = [name for name in ("__len__", "__getitem__") if not hasattr(samples, name)]
    if missing or isinstance(samples, IterableDataset):
        raise PreflightError(Fault(
            what=f"{key} can only be iterated over, and not be asked for a sample by its index" if "__getitem__" in
                 missing or isinstance(samples, IterableDataset) else f"{key} does not know how many samples it has",
            where=f"{key}._target_", given=node["_target_"],
            remedy="The order of samples, several ranks and resuming need a map-style dataset: one with __len__() and "
                   "__getitem__(index). docs/structures.md shows how to index a file of records. A stream that "
                   "fits into memory: self.samples = list(stream)"))
    return cast(Samples, samples)


def _build_collate(node: dict[str, Any]) -> Collate | None:
    """What makes a batch of samples: a function with its arguments, or the object of a class."""
    key = "data.collate_fn"
    if not node:
        return None
    if "_target_" in node and not inspect.isclass(function := locate(str(node["_target_"] or ""), key)):
        return partial(function, **instantiate({name: value for name, value in node.items() if name != "_target_"},
                                               key))
    return cast(Collate, instantiate(node, key))


def build_model(config: Config) -> nn.Module:
    """The model. Its random weights depend only on the run's seed. Raises `PreflightError`."""
    torch.manual_seed(key(config.seed, "weights"))
    model = instantiate(config.model, "model")
    if not isinstance(model, nn.Module):
        raise PreflightError(Fault(what="the model is not a torch.nn.Module", where="model._target_",
                                   given=str(config.model.get("_target_")), remedy="Name a class or a function that "
                                   "returns a module."))
    return as_tensors(model)


def place_model(config: Config, device: torch.device, task: Task | None = None) -> nn.Module:
    """The model on its device, with its convolutions in the configured memory order, together with what is trained of
    the task. Raises `PreflightError`."""
    model = build_model(config).to(device)
    if config.channels_last and any(parameter.dim() == 4 for parameter in model.parameters()):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return with_task(model, task)


def build_batch_transforms(config: Config) -> nn.Sequential:
    """The transforms of each batch, on the device."""
    return nn.Sequential(*map(as_module, build_transforms(config.data.transforms.batch, "data.transforms.batch")))


def build_forward(config: Config, device: torch.device) -> Forward:
    """How a batch enters the model on a device. Raises `PreflightError`."""
    return Forward(device=device, transforms=build_batch_transforms(config), channels_last=config.channels_last,
                   bf16=computes_bf16(config.precision, device), fp16=config.precision == "fp16",
                   views=build_transforms(config.evaluation.views, "evaluation.views"))


def build_task(config: Config, sets: Sets | None, device: torch.device | None = None) -> Task:
    """The task, with the names of the training set's classes or values; its tensors are on the device. Parameters of a
    loss depend only on the run's seed. A `loss` may be a function of outputs and targets."""
    torch.manual_seed(key(config.seed, "task"))
    node: dict[str, Any] = {**(sets.task_arguments if sets else {}), **config.task}
    if function := function_at(node.get("loss"), "task.loss", lacks=2):
        node["loss"] = Ready(function)
    task = cast(Task, instantiate(node, "task"))
    if device is not None:
        parts_of(task).to(device)
    return task


def loader_workers(config: Config, *, threads: int, debug: bool) -> int:
    """The number of loader workers of a rank with `threads` cores; 0 in debug, so that breakpoints in datasets work."""
    if debug:
        return 0
    return min(8, threads - 1) if config.data.workers is None else config.data.workers


def computes_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether the forward pass runs in bfloat16: if configured, or with auto if the hardware multiplies it natively."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or "avx512_bf16" in _cpu_flags())


def _cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line for line in lines if line.startswith("flags")), "")
