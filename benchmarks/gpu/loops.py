"""Single training steps: of a carefully written bare loop, and of Drumbeat."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.scale import Scale
from benchmarks.loop import config_values
from benchmarks.work import images
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.schema import Config
from drumbeat.data.device import on_device
from drumbeat.data.images import Normalize
from drumbeat.data.loader import BatchFetcher, batches
from drumbeat.trainers.build import build_forward, build_sets, build_task, computes_bf16, place_model
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.guards import FiniteCheck
from drumbeat.trainers.kernels import prefer_determinism
from drumbeat.trainers.target import instantiate
from drumbeat.trainers.world import World


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A loop that can be timed."""

    step: Callable[[], object]
    settings: Callable[[], None]
    """Sets torch's switches, which hold for the whole process, to the values that this loop needs."""


def bare(scale: Scale, *, deterministic: bool, on_device: bool = False) -> Loop:
    """Fused Adam, autocast, channels_last. Each step copies its batch from pinned memory to the device, unless
    `on_device`. If it need not be deterministic, cuDNN measures which algorithms are the fastest."""
    device = scale.device
    arrays = images(pixels=scale.work.pixels, channels=scale.work.channels, samples=scale.work.batch)
    pictures, labels = arrays.inputs, arrays.targets
    if scale.on_gpu:
        pictures, labels = pictures.pin_memory(), labels.pin_memory()
    if on_device:
        pictures, labels = pictures.to(device), labels.to(device)
    model: nn.Module = instantiate(scale.work.model, "model")
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalize = Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    loss_function = nn.CrossEntropyLoss()
    bf16 = computes_bf16("auto", device)

    def step() -> None:
        inputs = normalize(pictures.to(device, non_blocking=True)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext():
            loss = loss_function(model(inputs).float(), labels.to(device, non_blocking=True))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def settings() -> None:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = not deterministic

    return Loop(step=step, settings=settings)


def config(scale: Scale, *, deterministic: bool) -> dict[str, Any]:
    """The work as a config's values."""
    values: dict[str, Any] = config_values(scale.work)
    values["data"]["train"] |= {"_target_": "benchmarks.work.repeated_images", "pause": scale.pause}
    values["data"]["workers"] = scale.loader_workers
    return values | {"name": "gpu_benchmark", "deterministic": deterministic, "launch": {
        "gpus": int(scale.on_gpu), "procs": 1, "cpus_per_rank": scale.threads}}


def ours(scale: Scale, *, deterministic: bool) -> Loop:
    """Drumbeat's step, repeated on one batch."""
    small = replace(scale, work=replace(scale.work, samples=scale.work.batch))
    built = build_config([Layer(values=config(small, deterministic=deterministic), origin="benchmark")])

    def settings() -> None:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False
        prefer_determinism(deterministic=built.deterministic, threads=scale.threads)

    settings()
    return Loop(step=_step(built, scale), settings=settings)


def _step(built: Config, scale: Scale) -> Callable[[], object]:
    """Drumbeat's step as in `trainers/loop.py`. Only this function depends on the interface of `PhaseRunner`."""
    sets = build_sets(built)
    world = World(rank=0, local_rank=0, size=1, device=scale.device)
    fetch = BatchFetcher(sets.train, indices=lambda positions: positions)
    batch = next(iter(batches(fetch, [range(scale.work.batch)], workers=0, pin_memory=scale.on_gpu)))
    runner = build_phase_runner(built, 0, place_model(built, scale.device), build_task(built, sets, scale.device),
                                world, build_forward(built, world.device))
    runner.start([batch], None)
    source, numbers = on_device(repeat(batch), scale.device), count()
    pending: list[FiniteCheck | None] = []

    def step() -> None:
        runner.backward([next(source)], next(numbers))
        if pending:
            runner.settle(pending.pop())
        pending.append(runner.update())

    return step


def images_per_second(scale: Scale, loops: dict[str, Loop]) -> dict[str, float]:
    """The speed of each loop: the median over readings, which are taken in turn (A B A B) after a warm-up."""
    readings: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(scale.rounds + 1):
        for name, loop in loops.items():
            loop.settings()
            steps = scale.steps if number else scale.warm_up
            seconds = scale.seconds(lambda loop=loop, steps=steps: [loop.step() for _ in range(steps)])  # type: ignore[misc]
            if number:
                readings[name].append(steps * scale.work.batch / seconds)
    return {name: statistics.median(several) for name, several in readings.items()}
