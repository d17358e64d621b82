"""What a config would train, before anything does: its model layer by layer, what it costs, and what it is shown.

    python -m drumbeat.trainers.commands.show [--sheet FILE] < config      what `drumbeat show CONFIG` runs

The model is built without memory for its weights and run on samples without content, where it lets itself: shapes and
sizes are then those of the real thing. Where it does not, it is built in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.layers import Layer, short
from drumbeat.configs.load import build_config
from drumbeat.configs.preconditions import innermost, needs_data, with_hint
from drumbeat.configs.schema import Config, Phase
from drumbeat.configs.text_table import aligned
from drumbeat.data.loader import as_tensor
from drumbeat.data.order import micro_batches, shard
from drumbeat.trainers.build import (
    Sets,
    build_forward,
    build_model,
    build_sets,
    frozen_modules,
)
from drumbeat.trainers.commands.cost import SAMPLES, memory, outputs_and_flops, tensors
from drumbeat.trainers.contact_sheet import CPU, draw_sheet, training_fetcher
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.target import instantiate

ROWS = 30
"""Layers in the table: as many levels of the model are shown as fit."""


def show(config: Config, sheet: Path) -> list[str]:
    """The lines to print. Raises `PreflightError` where the model cannot be built."""
    sets, absent = _sets(config)
    config = with_facts(config, facts_of(sets.train) if sets else {})
    model, weightless = _model(config)
    lines = [f"model      {config.model.get('_target_')}: {_count(model.parameters())} parameters"]
    if weightless:
        lines.append(f"{'':<11}built without the weights {config.model['weights']}: {weightless}")
    try:
        forward = build_forward(config, CPU.device)
        inputs = forward.inputs(_samples(config, sets))
        model, given, mode = _runnable(config, model, inputs)
        with mode:
            shapes, flops = outputs_and_flops(model, given)
    except Exception as error:  # whatever a model or a transform of the user's makes of samples without content
        reason = absent or f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        lines += ["", *_table(config, model, {}), "",
                  f"not shown  output shapes, FLOPs and memory: {reason}"]
    else:
        made_up = "" if sets else ", worked out from the transforms: there is no data"
        lines += [f"input      {'; '.join(map(_tensor, tensors(given)))}{made_up}",
                  f"forward    {_metric(flops, 'FLOPs')} for each sample",
                  "", *_table(config, model, shapes), "", *_memory(config, model, given, mode, forward)]
    lines += ["", _sheet(config, sets, sheet) if sets else f"not shown  samples: {absent}"]
    return lines


def _sets(config: Config) -> tuple[Sets | None, str]:
    """The sets; or why there are none. Raises `PreflightError` where only they say how large the model is."""
    try:
        return build_sets(config), ""
    except PreflightError as error:
        if needs_data(config.model):
            raise PreflightError(*with_hint(error.faults, config.data.download_hint)) from None
        return None, error.faults[0].what


def _model(config: Config) -> tuple[nn.Module, str]:
    """The model without memory for its weights, where its constructor allows; without pretrained ones where they cannot
    be had, and then why. Raises `PreflightError`."""
    reason = ""
    for wanted in (config, replace(config, model=config.model | {"weights": None})):
        for mode in (FakeTensorMode(allow_non_fake_inputs=True), nullcontext()):
            try:
                with mode:
                    return build_model(wanted), reason
            except PreflightError as error:
                last = error
        if not config.model.get("weights"):
            raise last
        reason = reason or last.faults[0].what.splitlines()[0]
    raise last


def _samples(config: Config, sets: Sets | None) -> Any:
    """Inputs of a few training samples; without a set, a blank picture as the transforms leave it."""
    if sets is not None:
        return training_fetcher(config, sets).__getitems__(range(SAMPLES)).inputs
    node = innermost(config.data.train)
    picture: Any = Image.new("L" if node.get("channels") == 1 else "RGB", (640, 480))
    transforms = instantiate(config.data.transforms.train, "data.transforms.train")
    if not transforms:
        raise ValueError("nothing tells the size of a sample")
    for transform in transforms:
        picture = transform(picture)
    picture = as_tensor(picture) if isinstance(picture, Image.Image) else picture
    return picture.expand(SAMPLES, *picture.shape)


def _runnable(config: Config, model: nn.Module, inputs: Any) -> tuple[nn.Module, Any, AbstractContextManager[Any]]:
    """The model, inputs for it, and the context to run it in: without content if it runs like that, else real."""
    mode = next((one.fake_mode for one in model.parameters() if hasattr(one, "fake_mode")), None)
    if mode is not None:
        fake = torch.utils._pytree.tree_map_only(Tensor, mode.from_tensor, inputs)
        try:
            with mode, torch.no_grad():
                model.eval()(fake)
            return model, fake, mode
        except Exception:  # the model must know values: lengths, for example
            model = _real(config)
    return model, inputs, nullcontext()


def _real(config: Config) -> nn.Module:
    """The model in memory."""
    try:
        return build_model(config)
    except PreflightError:
        return build_model(replace(config, model=config.model | {"weights": None}))


def _table(config: Config, model: nn.Module, shapes: dict[str, list[int]]) -> list[str]:
    """The layers as far down as there is room for: name, kind, output of a sample, parameters, what each phase does."""
    frozen = {name: frozen_modules(model, phase, name) for name, phase in _phases(config)}
    named = [(name, module) for name, module in model.named_modules() if name]
    levels = [name.count(".") for name, _ in named]
    depth = next((level for level in range(max(levels, default=0), 0, -1)
                  if sum(one <= level for one in levels) <= ROWS), 0)
    rows = [("layer", "kind", "output", "parameters", *frozen)]
    for (name, module), level in zip(named, levels, strict=True):
        if level <= depth:
            output = " x ".join(map(str, shapes[name])) if name in shapes else ""
            own = sum(one.numel() for one in module.parameters())
            rows.append(("  " * level + name.rpartition(".")[2], type(module).__name__, output,
                         f"{own:,}" if own else "",
                         *(_held(module, modules) for modules in frozen.values())))
    return aligned(rows, right={3})


def _held(module: nn.Module, frozen: Sequence[nn.Module]) -> str:
    """Whether a phase trains a module."""
    held = {one for each in frozen for one in each.parameters()}
    own = list(module.parameters())
    still = sum(one in held for one in own)
    return "" if not own else "trained" if not still else "frozen" if still == len(own) else "partly"


def _memory(config: Config, model: nn.Module, inputs: Any, mode: AbstractContextManager[Any],
            forward: Forward) -> list[str]:
    """The memory of a rank in each phase."""
    gpus = torch.cuda.device_count() if config.launch.gpus is None else config.launch.gpus
    ranks = (config.launch.nodes or 1) * (gpus or config.launch.procs)
    rows: list[Sequence[str]] = [("phase", "batch", "weights", "gradients", "optimizer", "activations", "sum")]
    for name, phase in _phases(config):
        mine = shard(phase.batch_size or config.batch_size, 0, ranks)
        batch = max(map(len, micro_batches(len(mine), config.micro_batch_size or len(mine))))
        try:
            with mode:
                needed = memory(model, phase, name, inputs, forward.autocast(), batch)
        except Exception as error:  # an optimizer or a model of the user's
            rows.append((name, str(batch), f"cannot be told: {type(error).__name__}", "", "", "", ""))
            continue
        rows.append((name, str(batch), *(_metric(one, "B") for one in (
            needed.weights, needed.gradients, needed.optimizer, needed.activations, needed.sum))))
    arithmetic = "bfloat16" if forward.bf16 else "float32"
    return [f"memory     of each of {ranks} ranks, a micro-batch at a time" if ranks > 1 else
            "memory     of one rank, a micro-batch at a time",
            *aligned(rows, right=set(range(1, 7))),
            f"{'':<11}Activations: what autograd keeps of the batch, counted on 2 and {SAMPLES}",
            f"{'':<11}samples in {arithmetic}. The libraries' own memory comes on top."]


def _sheet(config: Config, sets: Sets, file: Path) -> str:
    """A line about the sheet of samples. Raises `PreflightError` where it cannot be written."""
    try:
        batch = training_fetcher(config, sets).__getitems__(range(min(24, len(sets.train))))
    except Exception as error:  # of the files, or of a transform of the user's
        return f"not shown  samples: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if draw_sheet(config, sets, batch, file):
        return f"sheet      {short(file)}: samples as the model sees them in training"
    return "not shown  samples: they are no images"


def _phases(config: Config) -> list[tuple[str, Phase]]:
    return [(name, phase) for name, phase in config.phases.items() if phase is not None]


def _count(parameters: Iterable[Tensor]) -> str:
    return f"{sum(one.numel() for one in parameters):,}"


def _tensor(one: Tensor) -> str:
    return f"{' x '.join(map(str, one.shape[1:])) or 'a number'}, {str(one.dtype).removeprefix('torch.')}"


def _metric(value: float, unit: str) -> str:
    """A count with the prefix that leaves three or four digits."""
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
    sys.exit(main())
