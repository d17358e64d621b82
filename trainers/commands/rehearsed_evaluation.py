"""The rehearsal of an evaluation: of a few samples, with all metrics and pictures; and the memory of the whole one."""

from __future__ import annotations

import contextlib
import dataclasses
import io

from torch import nn

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Samples
from drumbeat.trainers.build import Sets, build_forward
from drumbeat.trainers.contact_sheet import CPU
from drumbeat.trainers.evaluate import Few
from drumbeat.trainers.metrics import build_metrics
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tracking import NullTracker
from drumbeat.trainers.validation import Evaluator
from drumbeat.trainers.world import World

EVALUATED = 4
"""The number of samples that are evaluated, in two chunks."""

MUCH = 10**9
"""Bytes of an evaluation's results that are worth a note."""


def few_of(samples: Samples) -> Few:
    """Those of the samples of a set that are evaluated."""
    return Few(samples, EVALUATED)


def rehearse_evaluation(config: Config, sets: Sets, few: Few, model: nn.Module, task: Task, name: str,
                        world: World = CPU) -> list[str]:
    """Evaluates `few` samples of the set `name` as a run evaluates its validation set. Returns a note if the results of
    the whole set take much memory."""
    evaluator = Evaluator(
        model=model, task=task, sets=dataclasses.replace(sets, validation=few), world=world, tracker=NullTracker(),
        forward=build_forward(config, world.device), batch_size=EVALUATED // 2, workers=0, max_skipped=1.0,
        batch_statistics=config.evaluation.batch_statistics, skip_unreadable=config.data.on_error == "skip",
        monitor=config.evaluation.monitor, mode=config.evaluation.mode, images=config.tracking.images,
        metrics=build_metrics(config, task))
    with contextlib.redirect_stdout(io.StringIO()):
        results = evaluator.results("validation", few)
        evaluator.record(Progress(step=1), "", 0.0, few, results)
    if results is None or not len(results.losses):
        return []
    n, each = len(few.of), results.nbytes / len(results.losses)
    if n * each < MUCH:
        return []
    return [f"an evaluation of data.{name} keeps {n * each / 1e9:.1f} GB in the memory of rank 0, {each / 1e6:.1f} MB "
            f"for each of {n:,} samples; a task with a `summary` keeps less"]
