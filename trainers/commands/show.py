"""Shows what a config would train: the model layer by layer, its FLOPs and memory, and training samples.

    python -m drumbeat.trainers.commands.show [--sheet FILE] < config      what `drumbeat show CONFIG` runs

The model is built and run with fake tensors, without memory for its weights, if it allows it: shapes and sizes are the
same as with real ones. Otherwise it is built in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from drumbeat.configs.errors import PreflightError, hang
from drumbeat.configs.layers import Layer, short
from drumbeat.configs.load import build_config
from drumbeat.configs.preconditions import innermost, needs_data, with_hint
from drumbeat.configs.schema import Config, Phase
from drumbeat.configs.terminal import print_text_only
from drumbeat.configs.text_table import aligned
from drumbeat.data.order import micro_batches, shard
from drumbeat.data.structure import as_tensor, mapped
from drumbeat.data.user_code import CollateError, SampleError
from drumbeat.trainers.build import (
    Sets,
    build_forward,
    build_model,
    build_sets,
    build_task,
)
from drumbeat.trainers.build_transforms import build_transforms
from drumbeat.trainers.commands.flops_and_memory import SAMPLES, memory, outputs_and_flops, tensors
from drumbeat.trainers.commands.shown_groups import groups_table
from drumbeat.trainers.commands.shown_schedules import schedule_lines
from drumbeat.trainers.commands.smoke_test import error_text
from drumbeat.trainers.contact_sheet import CPU, draw_sheet, training_fetcher
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.forward import Forward, call
from drumbeat.trainers.freezing import frozen_parts, trainable
from drumbeat.trainers.micro_batches import largest
from drumbeat.trainers.model_and_task import modules_of, with_task
from drumbeat.trainers.position import build_schedules, with_phase_values
from drumbeat.trainers.starting_weights import check_fitting

ROWS = 30
"""The largest number of layers in the table. It has as many levels of the model as fit."""


def show(config: Config, sheet: Path) -> list[str]:
    """The lines to print. Raises `PreflightError` if the model cannot be built."""
    sets, no_data = _sets(config)
    config = with_facts(config, facts_of(sets.train) if sets else {})
    config = with_phase_values(config, build_schedules(config, len(sets.train)) if sets else ())
    model, no_weights = _model(config, sets)
    lines = [f"model      {config.model.get('_target_')}: {_count(model.parameters())} parameters"]
    if no_weights:
        lines.append(f"{'':<11}built without the weights {config.model['weights']}: {no_weights}")
    lines += _starting_weights(config, model)
    try:
        forward = build_forward(config, CPU.device)
        inputs = forward.inputs(_samples(config, sets))
        model, inputs, mode = _runnable(config, sets, model, inputs)
        with mode:
            shapes, flops = outputs_and_flops(model, inputs)
    except Exception as error:  # a model or a transform of the user's may raise anything
        reason = no_data or f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        lines += ["", *_table(config, model, {}), "",
                  f"not shown  output shapes, FLOPs and memory: {reason}"]
    else:
        made_up = "" if sets else ", derived from the transforms, because there is no data"
        lines += [f"input      {'; '.join(map(_tensor, tensors(inputs)))}{made_up}",
                  f"forward    {_metric(flops, 'FLOPs')} for each sample",
                  "", *_table(config, model, shapes), "", *_memory(config, model, inputs, mode, forward)]
    lines += groups_table(config, model)
    lines += ["", *schedule_lines(config)]
    lines += ["", _sheet(config, sets, sheet) if sets else f"not shown  samples: {no_data}"]
    return lines


def _starting_weights(config: Config, model: nn.Module) -> list[str]:
    """What the model takes of the weights that the run starts from, or why that is unknown."""
    try:
        return [*filter(None, [check_fitting(config.initialize, model)])]
    except PreflightError as error:
        return [f"not shown  weights: {error.faults[0].what}"]


def _sets(config: Config) -> tuple[Sets | None, str]:
    """The sets, or None and the reason. Raises `PreflightError` if the size of the model depends on them."""
    try:
        return build_sets(config), ""
    except PreflightError as error:
        if needs_data(config.model):
            raise PreflightError(*with_hint(error.faults, config.data.download_hint)) from None
        return None, error.faults[0].what


def _model(config: Config, sets: Sets | None) -> tuple[nn.Module, str]:
    """The model with its task, built with fake tensors if its constructor allows it; without pretrained weights if they
    cannot be loaded, and the reason. Raises `PreflightError`."""
    reason = ""
    for variant in (config, replace(config, model=config.model | {"weights": None})):
        for mode in (FakeTensorMode(allow_non_fake_inputs=True), nullcontext()):
            try:
                with mode:
                    return _built(variant, sets), reason
            except PreflightError as error:
                last = error
        if not config.model.get("weights"):
            raise last
        reason = reason or last.faults[0].what.splitlines()[0]
    raise last


def _built(config: Config, sets: Sets | None) -> nn.Module:
    model = build_model(config)
    try:
        return with_task(model, build_task(config, sets))
    except PreflightError:
        if sets is None:  # the task may need the names of the classes
            return model
        raise


def _samples(config: Config, sets: Sets | None) -> Any:
    """Inputs of a few training samples; without data, a blank image after the transforms."""
    if sets is not None:
        return training_fetcher(config, sets).__getitems__(range(SAMPLES)).inputs
    node = innermost(config.data.train)
    image: Any = Image.new("L" if node.get("channels") == 1 else "RGB", (640, 480))
    transforms = build_transforms(config.data.transforms.train, "data.transforms.train")
    if not transforms:
        raise ValueError("without data and transforms, the size of a sample is unknown")
    for transform in transforms:
        image = transform(image)
    image = as_tensor(image) if isinstance(image, Image.Image) else image
    return image.expand(SAMPLES, *image.shape)


def _runnable(config: Config, sets: Sets | None, model: nn.Module,
              inputs: Any) -> tuple[nn.Module, Any, AbstractContextManager[Any]]:
    """The model, its inputs, and the context to run it in: with fake tensors if possible, otherwise with real ones."""
    mode = next((one.fake_mode for one in model.parameters() if hasattr(one, "fake_mode")), None)
    if mode is not None:
        fake = mapped(lambda one: mode.from_tensor(one) if isinstance(one, Tensor) else one, inputs)
        try:
            with mode, torch.no_grad():
                call(model.eval(), fake)
            return model, fake, mode
        except Exception:  # the model reads values, for example lengths
            model = _real(config, sets)
    return model, inputs, nullcontext()


def _real(config: Config, sets: Sets | None) -> nn.Module:
    """The model in memory."""
    try:
        return _built(config, sets)
    except PreflightError:
        return _built(replace(config, model=config.model | {"weights": None}), sets)


def _table(config: Config, model: nn.Module, shapes: dict[str, list[int]]) -> list[str]:
    """A table of the layers: name, type, output shape of a sample, parameters, and whether each phase trains it."""
    frozen = {name: frozen_parts(model, phase, name).parameters for name, phase in _phases(config)}
    named = [(name, module) for name, module in modules_of(model).items() if name]
    levels = [name.count(".") for name, _ in named]
    depth = next((level for level in range(max(levels, default=0), 0, -1)
                  if sum(one <= level for one in levels) <= ROWS), 0)
    rows = [("layer", "type", "output", "parameters", *frozen)]
    for (name, module), level in zip(named, levels, strict=True):
        if level <= depth:
            output = " x ".join(map(str, shapes[name])) if name in shapes else ""
            own = sum(one.numel() for one in module.parameters())
            rows.append(("  " * level + name.rpartition(".")[2], type(module).__name__, output,
                         f"{own:,}" if own else "",
                         *(_training_of(module, parameters) for parameters in frozen.values())))
    return aligned(rows, right={3})


def _training_of(module: nn.Module, frozen: Collection[nn.Parameter]) -> str:
    """Whether a phase trains a module."""
    own = list(module.parameters())
    count = sum(one in frozen or not one.requires_grad for one in own)
    return "" if not own else "trained" if not count else "frozen" if count == len(own) else "partly"


def _memory(config: Config, model: nn.Module, inputs: Any, mode: AbstractContextManager[Any],
            forward: Forward) -> list[str]:
    """The memory of a rank in each phase."""
    gpus = torch.cuda.device_count() if config.launch.gpus is None else config.launch.gpus
    ranks = (config.launch.nodes or 1) * (gpus or config.launch.procs)
    parameters = trainable(model)
    averages = any(phase.average for _, phase in _phases(config))
    rows: list[Sequence[str]] = [("phase", "batch", "weights", "gradients", "optimizer", *["average"] * averages,
                                  "activations", "total")]
    for name, phase in _phases(config):
        mine = shard(phase.batch_size or config.batch_size, 0, config.virtual_ranks or ranks)
        batch = max(map(len, micro_batches(len(mine), largest(config.micro_batch_size, len(mine)))))
        try:
            with mode:
                needed = memory(model, parameters, phase, name, inputs, forward.autocast(), batch,
                                exact=config.virtual_ranks is not None)
        except Exception as error:  # an optimizer or a model of the user's may raise anything
            rows.append((name, str(batch), f"unknown: {type(error).__name__}", "", "", *[""] * averages, "", ""))
            continue
        rows.append((name, str(batch), *(_metric(one, "B") for one in (
            needed.weights, needed.gradients, needed.optimizer, *[needed.average] * averages, needed.activations,
            needed.total))))
    precision = "bfloat16" if forward.bf16 else "float16" if forward.fp16 else "float32"
    virtual = f"Gradients: with their sum over {config.virtual_ranks} virtual ranks, 8 bytes for each value. " if (
        config.virtual_ranks) else ""
    return [f"memory     of each of {ranks} ranks, for one micro-batch" if ranks > 1 else
            "memory     of one rank, for one micro-batch",
            *aligned(rows, right=set(range(1, len(rows[0])))),
            hang(" " * 11, f"{virtual}Activations: tensors that autograd saves for the batch, measured with 2 and "
                           f"{SAMPLES} samples in {precision}. The memory of the libraries is not included.")]


def _sheet(config: Config, sets: Sets, file: Path) -> str:
    """A line about the sheet of samples. Raises `PreflightError` if it cannot be written."""
    try:
        batch = training_fetcher(config, sets).__getitems__(range(min(24, len(sets.train))))
    except Exception as error:  # unreadable files, or an error in a transform of the user's
        return f"not shown  samples: {error if isinstance(error, SampleError | CollateError) else error_text(error)}"
    if draw_sheet(config, sets, batch, file):
        return f"sheet      {short(file)}: samples as the model sees them in training"
    return "not shown  samples: they are not images"


def _phases(config: Config) -> list[tuple[str, Phase]]:
    return [(name, phase) for name, phase in config.phases.items() if phase is not None]


def _count(parameters: Iterable[Tensor]) -> str:
    return f"{sum(one.numel() for one in parameters):,}"


def _tensor(one: Tensor) -> str:
    return f"{' x '.join(map(str, one.shape[1:])) or 'a scalar'}, {str(one.dtype).removeprefix('torch.')}"


def _metric(value: float, unit: str) -> str:
    """A number with an SI prefix."""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 1000 or prefix == "T":
            break
        value /= 1000
    return f"{value:,.0f} {prefix}{unit}" if not prefix or value >= 100 else f"{value:.2f} {prefix}{unit}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet", type=Path, default=Path("show.png"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = build_config([Layer(values=json.load(sys.stdin), origin="config")])
    try:
        print("\n".join(show(config, args.sheet.absolute())))
    except PreflightError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    print_text_only()
    sys.exit(main())
