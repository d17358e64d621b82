"""How fast this machine reads the samples and trains on them, and what follows for loader workers and the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from drumbeat.configs.schema import Config
from drumbeat.data.loader import ShardedBatchSampler
from drumbeat.data.order import micro_batches, shard
from drumbeat.data.sampling import LengthBuckets
from drumbeat.data.schedule import Schedule
from drumbeat.data.text import padding_waste
from drumbeat.trainers.build import Sets, build_stream, image_set
from drumbeat.trainers.contact_sheet import training_fetcher
from drumbeat.trainers.doctor.throughput import decode, mean_size, rate, step_rate
from drumbeat.trainers.micro_batches import largest

TRIED = 16
"""Samples of the step that is timed first."""
LONGEST_STEP = 5.0
"""Seconds. If a step on a rank's whole part of the batch would take longer, a smaller one is timed."""


def rank_batch(config: Config) -> int:
    """The most samples of the first phase's batch that one rank computes at a time, by the ranks that the config
    names (launch.*), and micro_batch_size."""
    phase = next(phase for phase in config.phases.values() if phase is not None)
    size = phase.batch_size or config.batch_size
    gpus = torch.cuda.device_count() if config.launch.gpus is None else config.launch.gpus
    ranks = min(size, config.virtual_ranks or (config.launch.nodes or 1) * (gpus or config.launch.procs))
    part = len(shard(size, ranks - 1, ranks))
    return len(micro_batches(part, largest(config.micro_batch_size, part))[-1])


def speed_facts(config: Config, sets: Sets) -> Iterator[tuple[str, str]]:
    """Label and text: the speed of one loader worker, of decoding alone, and of the model on this machine."""
    whole = rank_batch(config)
    fetch = training_fetcher(config, sets)
    torch.set_num_threads(1)
    few = min(whole, TRIED)
    first = fetch.__getitems__(range(few))
    delivered = rate(lambda step: len(fetch.__getitems__(range(step * few, (step + 1) * few)).positions))
    images = image_set(sets.train)
    decoding = 0.0 if images is None else rate(partial(decode, images))
    yield "speed", f"one loader worker reads {delivered:,.0f} samples/s" + (
        f"; decoding alone {decoding:,.0f}/s" if images is not None else "")

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    taken, batch = step_rate(config, sets, first, device), few
    if few < whole:
        batch = max(few, min(whole, int(taken * LONGEST_STEP)))
        taken = step_rate(config, sets, fetch.__getitems__(range(batch)), device) if batch > few else taken
    where = "this machine's first GPU" if device.type == "cuda" else f"this machine's {cores} cores"
    part = "" if batch == whole else f" of the {whole:,} of a rank, which would take more than {LONGEST_STEP:g} s"
    yield "speed", (f"phase {next(iter(config.phases))} trains {taken:,.0f} samples/s on {where}, in steps of "
                    f"{batch:,} samples{part}")
    yield from _advice(config, images, delivered=delivered, decoding=decoding, taken=taken,
                       on="GPU" if device.type == "cuda" else "rank")


def _advice(config: Config, images: Any, *, delivered: float, decoding: float, taken: float, on: str
            ) -> Iterator[tuple[str, str]]:
    workers = taken / delivered
    yield "advice", (f"use {max(1, round(workers + 0.5))} loader workers for each {on} as fast as this one"
                     if workers > 0.9 else f"one loader worker for each {on} is enough")
    if decoding and config.data.cache is None:
        without = 1 / max(1 / delivered - 1 / decoding, 1e-6)
        size = mean_size(images) * len(images)
        useful = "is worth it" if delivered < taken * 1.5 and without > 2 * delivered else "is not needed"
        yield "advice", f"data.cache {useful}: {without:,.0f} samples/s from it; it takes {size / 1e6:,.0f} MB"


def padding_fact(config: Config, samples: Any) -> str:
    """The fraction of padding in the first batches, with and without sorting by length, as text."""
    lengths = np.asarray(samples.lengths)
    table = Schedule(len(lengths), config.batch_size, 1)
    stream = build_stream(config, samples, 0)
    window = config.data.bucket_batches or 50
    sorted_batches = LengthBuckets(table, stream, lengths, batches=window, rank=0, world_size=1)
    waste = [padding_waste(lengths, (stream.indices(np.asarray(positions)) for positions in islice(several, 500)))
             for several in (sorted_batches, ShardedBatchSampler(table, rank=0, world_size=1))]
    return f"{waste[0]:.0%} of a batch with data.bucket_batches={window}, {waste[1]:.0%} without"
