"""One rank of an evaluation whose memory and time are measured: ours, or torchmetrics' as its documentation has it.

    torchrun --standalone --nproc-per-node RANKS -m benchmarks.evaluated WORK ours|peer FOLDER

Each rank writes what it has used to FOLDER/rankR.json. WORK is the JSON of a `Work`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics import classification as of_classes
from torchmetrics.functional.classification import multiclass_auroc, multiclass_average_precision

from drumbeat.data.loader import one_thread
from drumbeat.data.memory import Arrays
from drumbeat.trainers.evaluate import evaluate
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.tasks import Classification, Segmentation, Task
from drumbeat.trainers.tasks.measure import measure
from drumbeat.trainers.world import join

FEATURES = 64
STATUS = Path("/proc/self/status")
PAGE = 4
"""The size of a page of memory, in kilobytes."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The set and the model of an evaluation. The outputs are float32 [samples, classes, pixels, pixels], or without
    pixels [samples, classes]."""

    samples: int
    classes: int
    batch: int
    pixels: int = 0
    all_metrics: bool = True
    """Whether everything is computed that `drumbeat evaluate` does, or what a validation does: loss and accuracy."""

    @property
    def megabytes(self) -> float:
        """Of all outputs."""
        return self.samples * self.classes * max(1, self.pixels**2) * 4 / 1e6


WORKS = {
    "50,000 samples x 1,000 classes, all metrics": Work(samples=50_000, classes=1_000, batch=250),
    "50,000 samples x 1,000 classes, validation": Work(samples=50_000, classes=1_000, batch=250, all_metrics=False),
    "masks of 256 px x 21 classes, 128 samples": Work(samples=128, classes=21, batch=4, pixels=256),
}


def model_and_set(work: Work) -> tuple[nn.Module, Arrays]:
    """A linear model of 64 features, or of 3 channels, and a set whose targets are often its predictions."""
    torch.manual_seed(0)
    sides = [work.pixels] * 2 if work.pixels else []
    features = 3 if work.pixels else FEATURES
    model: nn.Module = nn.Conv2d(features, work.classes, 1) if work.pixels else nn.Linear(features, work.classes)
    inputs = torch.randn(work.samples, features, *sides)
    with torch.no_grad():
        targets = torch.cat([model(some + torch.randn_like(some)).argmax(1) for some in inputs.split(work.batch)])
    return model, Arrays(inputs, targets)


def ours(work: Work, model: nn.Module, samples: Arrays, ranks: Any) -> dict[str, float | None]:
    """Evaluates on all ranks. Returns the metrics on rank 0."""
    task: Task = Segmentation() if work.pixels else Classification()
    forward = Forward(device=torch.device("cpu"), transforms=nn.Identity(), channels_last=False, bf16=False)
    results = evaluate(model, task, samples, [], forward=forward, world=ranks, batch_size=work.batch, workers=0)
    if results is None:
        return {}
    with one_thread():
        return measure(task, results).metrics if work.all_metrics else dict(task.metrics(results))


def peer(work: Work, model: nn.Module, samples: Arrays) -> dict[str, float | None]:
    """The same metrics with torchmetrics, updated with each batch."""
    metrics, ranking = _metrics(work)
    losses, model = [], model.eval()
    with torch.no_grad():
        for inputs, targets in zip(samples.inputs.split(work.batch), samples.targets.split(work.batch), strict=True):
            outputs = model(inputs)
            losses.append(nn.functional.cross_entropy(outputs, targets, reduction="none").flatten(1).mean(1)
                          if work.pixels else nn.functional.cross_entropy(outputs, targets, reduction="none"))
            metrics.update(outputs, targets)
            if ranking:
                ranking.update(outputs, targets)
    found = {name: float(value) for name, value in metrics.compute().items() if value.numel() == 1}
    return {"loss": float(torch.cat(losses).double().mean()), **found, **(ranking.compute() if ranking else {})}


class Ranking:
    """The metrics that need all outputs at once. They share one copy, as the compute groups of a `MetricCollection`
    do, and sort it once each."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.outputs.append(outputs.softmax(1))
        self.targets.append(targets)

    def compute(self) -> dict[str, float]:
        outputs, targets = torch.cat(self.outputs), torch.cat(self.targets)
        return {"auroc": float(multiclass_auroc(outputs, targets, self.classes)),
                "average_precision": float(multiclass_average_precision(outputs, targets, self.classes))}


def _metrics(work: Work) -> tuple[MetricCollection, Ranking | None]:
    count = work.classes
    if work.pixels:
        return MetricCollection({"accuracy": of_classes.MulticlassAccuracy(count, average="micro"),
                                 "mean_iou": of_classes.MulticlassJaccardIndex(count)}), None
    accuracy: dict[str, Metric | MetricCollection] = {"accuracy": of_classes.MulticlassAccuracy(count, average="micro")}
    if not work.all_metrics:
        return MetricCollection(accuracy), None
    return MetricCollection({
        **accuracy, "balanced_accuracy": of_classes.MulticlassAccuracy(count),
        "f1": of_classes.MulticlassF1Score(count), "top5_accuracy": of_classes.MulticlassAccuracy(
            count, average="micro", top_k=5),
        "confusion": of_classes.MulticlassConfusionMatrix(count),
        "calibration_error": of_classes.MulticlassCalibrationError(count)}), Ranking(count)


@contextmanager
def measured(used: dict[str, Any]) -> Iterator[None]:
    """Notes the seconds of the wall clock and of the CPU, and the peak of the resident memory above that of the start,
    in MB. Linux resets the peak of a process that writes 5 to its own clear_refs (man 5 proc_pid_clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    began, cpu, before = time.perf_counter(), time.process_time(), _kilobytes("VmRSS")
    yield
    used |= {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu,
             "megabytes": max(PAGE, _kilobytes("VmHWM") - before) / 1e3}


def _kilobytes(name: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))


def main(work: Work, who: str, folder: Path) -> None:
    torch.set_num_threads(1)
    model, samples = model_and_set(work)
    used: dict[str, Any] = {}
    with join("cpu") as world:
        small = Work(**(asdict(work) | {"samples": 2 * work.batch}))
        few = Arrays(samples.inputs[:small.samples], samples.targets[:small.samples])

        def metrics(work: Work, samples: Arrays) -> dict[str, float | None]:
            return ours(work, model, samples, world) if who == "ours" else peer(work, model, samples)

        metrics(small, few)  # imports, threads and connections
        with measured(used):
            used["metrics"] = metrics(work, samples)
    (folder / f"rank{world.rank}.json").write_text(json.dumps(used))


if __name__ == "__main__":
    main(Work(**json.loads(sys.argv[1])), sys.argv[2], Path(sys.argv[3]))
