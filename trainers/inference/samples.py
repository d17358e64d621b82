"""What an evaluation keeps of each sample, from which `drumbeat compare` computes metrics again.

    RUN/evaluation/SPLIT-STEP/samples.safetensors

Rows are in the order of the set. Texts are kept as JSON in bytes, because a safetensors file holds numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from drumbeat.configs.output_file import replacing
from drumbeat.configs.run.files import DamagedError, open_file
from drumbeat.data.sample_names import sample_groups, sample_names
from drumbeat.trainers.tasks import Results, Task
from drumbeat.trainers.tasks.classification import Classification
from drumbeat.trainers.tasks.losses import rows
from drumbeat.trainers.tasks.segmentation import Segmentation
from drumbeat.trainers.tasks.task import HasSampleRows

Array = NDArray[Any]

NAME = "samples.safetensors"
MAX_BYTES = 2**33
"""No file of samples is larger."""
MOST_RANKED = 20
"""With more classes or labels, their probabilities are not kept, from which the areas under ROC curves are computed."""
INDEX = "{:012d}"
"""The name of a sample of a set without names."""


@dataclass(frozen=True, kw_only=True)
class KeptSamples:
    """The samples of an evaluated set.

    `arrays` always has "losses", float32 [n], and with weighted losses "weights", float32 [n]. The others depend on
    `kind`:

    - "classification": "targets" and "predictions" int64 [n]; "probabilities" float32 [n, classes] of few classes, and
      "in_top5" bool [n] of more than five
    - "multilabel": "targets" and "predictions" bool [n, labels]; "probabilities" float32 [n, labels] of few labels
    - "regression": "targets" and "predictions" float32 [n, values]
    - "elements" (a class for each element of a sample): "correct" and "counted" int64 [n]
    - "segmentation": "pixels" int64 [n, 3, classes]: see `Segmentation.summary`
    - "other": a column float64 [n] for each number in the task's own rows
    """

    kind: str
    names: Sequence[str]
    groups: Sequence[str] | None
    """The group of each sample, such as its patient; None if the set tells none."""
    outputs: Sequence[str]
    """The names of the classes, labels or values."""
    arrays: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def taken(self, numbers: Array) -> KeptSamples:
        """These samples, in this order; int64 [m]."""
        groups = None if self.groups is None else [self.groups[number] for number in numbers.tolist()]
        return KeptSamples(kind=self.kind, names=[self.names[number] for number in numbers.tolist()], groups=groups,
                           outputs=self.outputs, arrays={name: array[numbers] for name, array in self.arrays.items()})


def kept_samples(task: Task, results: Results, samples: Any) -> KeptSamples:
    """What is kept of the results of a set, `samples`."""
    with torch.no_grad():  # a task may have parameters
        kind, arrays = _arrays(task, results)
    arrays["losses"] = results.losses.numpy()
    if results.weights is not None:
        arrays["weights"] = results.weights.numpy()
    names = sample_names(samples)
    groups = _groups(samples)
    return KeptSamples(kind=kind, names=[names[index] if names else INDEX.format(index) for index in results.indices],
                       groups=None if groups is None else [groups[index] for index in results.indices],
                       outputs=task.output_names, arrays=arrays)


def _arrays(task: Task, results: Results) -> tuple[str, dict[str, Array]]:
    if isinstance(task, Segmentation):
        return "segmentation", {"pixels": results.summary.numpy()}
    if task.kind == "other":
        own = task.sample_rows(results) if isinstance(task, HasSampleRows) else []
        return "other", {name: np.array([np.nan if row[name] is None else row[name] for row in own], dtype=np.float64)
                         for name in (own[0] if own else {}) if not any(isinstance(row[name], str) for row in own)}
    predictions = task.predictions(results.outputs)
    if task.kind == "regression":
        return task.kind, {"targets": rows(results.targets).float().numpy(), "predictions": predictions.numpy()}
    probabilities = task.probabilities(results.outputs)
    assert probabilities is not None
    if isinstance(task, Classification) and (probabilities.dim() > 2 or not task.counted(results.targets).all()):
        counted = task.counted(results.targets)
        correct = (predictions == results.targets) & counted
        return "elements", {name: values.reshape(len(values), -1).sum(1).numpy()
                            for name, values in (("correct", correct), ("counted", counted))}
    targets = results.targets.long() if task.kind == "classification" else rows(results.targets).bool()
    arrays = {"targets": targets.numpy(), "predictions": predictions.numpy()}
    if (count := probabilities.shape[1]) <= MOST_RANKED:
        arrays["probabilities"] = probabilities.numpy()
    if task.kind == "classification" and count > 5:
        arrays["in_top5"] = (probabilities.topk(5).indices == targets[:, None]).any(1).numpy()
    return task.kind, arrays


def _groups(samples: Any) -> Sequence[str] | None:
    """The groups that a set tells, such as patients."""
    try:
        return sample_groups(samples)
    except ValueError:
        return None


def write_samples(kept: KeptSamples, file: Path) -> None:
    """Writes the file. Raises like `replacing`."""
    texts = {"names": kept.names, "outputs": kept.outputs} | ({"groups": kept.groups} if kept.groups else {})
    arrays = {name: np.ascontiguousarray(array) for name, array in kept.arrays.items()}
    with replacing(file) as new:
        save_file(arrays | {f"text:{name}": _bytes(values) for name, values in texts.items()}, new,
                  {"kind": kept.kind})


def read_samples(file: Path) -> KeptSamples | None:
    """The samples of a file; None if there is none. Raises `DamagedError`."""
    try:
        with open_file(file, MAX_BYTES) as opened:
            data = opened.read()
    except FileNotFoundError:
        return None
    try:
        header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
        arrays = load(data)
        texts = {name: json.loads(arrays.pop(f"text:{name}").tobytes()) for name in ("names", "outputs", "groups")
                 if f"text:{name}" in arrays}
        kept = KeptSamples(kind=header["__metadata__"]["kind"], names=texts["names"], outputs=texts["outputs"],
                           groups=texts.get("groups"), arrays=arrays)
        if {len(kept), *map(len, arrays.values())} != {len(kept)} or len(kept.groups or kept.names) != len(kept):
            raise ValueError("its columns have different lengths")
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(file, f"it is not what an evaluation writes: {error}") from error
    return kept


def _bytes(texts: Sequence[Any]) -> Array:
    """Texts as JSON. A set of the user's may have paths or numbers as names and groups."""
    return np.frombuffer(json.dumps(list(map(str, texts))).encode(), dtype=np.uint8)
