"""Measures the speed of this machine at reading samples, decoding images and training steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch

from drumbeat.configs.schema import Config
from drumbeat.data.images import ImageFiles
from drumbeat.trainers.build import Sets, build_forward, build_task, place_model
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.world import World

SECONDS = 3.0
"""The duration of each measurement."""
WARM_UP = 3
"""Steps that are not counted."""


def mean_size(images: ImageFiles) -> float:
    """The mean number of bytes of a decoded image, from the first few that can be read."""
    sizes = []
    for index in range(min(8, len(images))):
        with suppress(ValueError):
            sizes.append(images.decode(index).nbytes)
    return float(np.mean(sizes)) if sizes else 0.0


def rate(work: Callable[[int], int]) -> float:
    """Samples per second of work(0), work(1), ..., each of which returns its number of samples."""
    work(0)
    began, done, step = time.perf_counter(), 0, 1
    while time.perf_counter() - began < SECONDS:
        done += work(step)
        step += 1
    return done / (time.perf_counter() - began)


def median_rate(work: Callable[[int], int]) -> float:
    """The same, by the median time of each, after `WARM_UP`: the first training steps choose kernels and allocate
    memory, and other programs delay single steps."""
    for number in range(WARM_UP):
        samples = work(number)
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        samples = work(WARM_UP + len(times))
        times.append(time.perf_counter() - start)
    return samples / median(times)


def decode(images: ImageFiles, number: int) -> int:
    """Decodes one image. Returns 1, or 0 if it cannot be read."""
    try:
        images.decode(number % len(images))
    except ValueError:
        return 0
    return 1


def step_rate(config: Config, sets: Sets, batch: Any, device: torch.device) -> float:
    """Samples per second of a training step of the first phase."""
    world = World(rank=0, local_rank=0, size=1, device=device)
    config = replace(with_facts(config, facts_of(sets.train)), virtual_ranks=None)
    task = build_task(config, sets, device)
    runner = build_phase_runner(config, 0, place_model(config, device, task), task, world,
                                build_forward(config, world.device))
    runner.start([batch], None)

    def step(number: int) -> int:
        runner.backward([batch], number)
        runner.settle(runner.update())
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return len(batch.positions)

    return median_rate(step)
