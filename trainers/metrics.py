"""The metrics in `evaluation.metrics`: torchmetrics' or others, by their addresses.

    evaluation: {metrics: {f1: {_target_: torchmetrics.classification.MulticlassF1Score, num_classes: 10}}}

Rank 0 updates them with each chunk of a set, in the order of the set. The chunks do not depend on the number of ranks,
and so the metrics do not either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from drumbeat.configs.errors import Fault, PreflightError, nearest
from drumbeat.configs.schema import Config
from drumbeat.trainers.target import instantiate
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tasks.task import Kind

MEASURED: dict[Kind, tuple[str, ...]] = {
    "classification": ("balanced_accuracy", "f1", "auroc", "top5_accuracy", "calibration_error"),
    "multilabel": ("auroc", "average_precision"),
    "regression": (),
    "other": (),
}
"""The metrics that `drumbeat evaluate` computes besides the task's own (`tasks.measure`). A validation computes them if
one is monitored."""

METHODS = ("reset", "update", "compute")


def build_metrics(config: Config, task: Task) -> dict[str, Any]:
    """The metrics by name. Raises `PreflightError`."""
    metrics: dict[str, Any] = instantiate(config.evaluation.metrics, "evaluation.metrics")
    faults = []
    for name, metric in metrics.items():
        where, given = f"evaluation.metrics.{name}", str(config.evaluation.metrics[name])
        if missing := [method for method in METHODS if not callable(getattr(metric, method, None))]:
            faults.append(Fault(what=f"{name} is not a metric: it has no method {missing[0]}", where=where, given=given,
                                remedy="A metric has reset(), update(predictions, targets) and compute(), as those of "
                                       "torchmetrics have."))
        if name in task.metric_names:
            faults.append(Fault(what=f"the task has a metric '{name}' already", where=where, given=given,
                                remedy="Give it another name."))
    if faults:
        raise PreflightError(*faults)
    return metrics


def restart(metrics: Iterable[Any]) -> None:
    """Resets the metrics. Those of torchmetrics would gather their states from all ranks, which is prevented here,
    because rank 0 alone has them."""
    for metric in metrics:
        for part in metric.modules() if isinstance(metric, nn.Module) else ():
            vars(part)["distributed_available_fn"] = _never
        metric.reset()


def check_monitor(config: Config, task: Task) -> list[Fault]:
    """A fault if no metric has the name of the monitored one. The names of a metric that computes a dict are known
    only when it is computed."""
    monitor, metrics = config.evaluation.monitor, config.evaluation.metrics
    known = [*task.metric_names, *metrics, *MEASURED[task.kind]]
    if monitor in known or any(monitor.startswith(f"{name}_") for name in metrics):
        return []
    return [no_metric(monitor, known)]


def no_metric(monitor: str, known: Sequence[str]) -> Fault:
    return Fault(what=f"there is no metric '{monitor}'", where="evaluation.monitor", given=f"monitor: {monitor}",
                 remedy=nearest(monitor, known))


def values_of(name: str, computed: Any) -> dict[str, float]:
    """The numbers that a metric has computed: one, under its name, or those of a dict, under names that begin with
    it. What is not one number is left out. Raises `ValueError` if nothing remains."""
    several = {f"{name}_{key}": value for key, value in computed.items()} if isinstance(computed, Mapping) else {
        name: computed}
    numbers = {key: float(value) for key, value in several.items()
               if isinstance(value, bool | int | float | np.number) or (isinstance(value, Tensor) and
                                                                        value.numel() == 1)}
    if not numbers:
        raise ValueError(f"the metric '{name}' has computed {_shape(computed)}, and neither one number nor a dict of "
                         "numbers")
    return numbers


def _shape(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _never() -> bool:
    return False
