"""What a task is: the meaning of a model's outputs, its loss and its metrics; and the results of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

Kind = Literal["classification", "multilabel", "regression"]


class Results(NamedTuple):
    """An evaluated set, sample by sample in the order of the set; the same on every rank and at any world size."""

    losses: Tensor
    """float32 [n]."""
    outputs: Tensor
    """float32 [n, ...]."""
    targets: Tensor
    """As the set gives them, [n, ...]."""
    subset: Tensor | None = None
    """int64 [n]: the indices of these samples in the set, if some could not be read and were left out; None for all."""

    @property
    def indices(self) -> list[int]:
        """The index of each sample in the set."""
        return list(range(len(self.losses))) if self.subset is None else [int(index) for index in self.subset]


@dataclass(frozen=True)
class WorstSample:
    """A sample on the sheet of the worst ones."""

    index: int
    """Among the results."""
    title: str
    """The prediction and the target, in two lines."""


class Task(Protocol):
    """What training, evaluation and inference call. Metrics always include "loss".

    A task may also have `weights(targets) -> float32 [n] or None`: the weight of each sample in the mean loss. The mean
    of a batch is then the sum of `losses` over the sum of the weights.
    """

    kind: Kind
    """Decides how predictions are drawn and printed."""
    metric_names: tuple[str, ...]
    """The names of the metrics."""
    output_names: list[str]
    """The names of the classes, labels or values, in the order of the outputs; empty if unknown."""
    worst_title: str
    """What `worst_samples` returns, as a title: "misclassified samples, largest loss first"."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """float32 [n]: the loss of each sample."""

    def metrics(self, results: Results) -> dict[str, float]:
        """The metrics of an evaluated set, under the names in `metric_names`."""

    def worst_samples(self, results: Results, most: int) -> list[WorstSample]:
        """At most `most` samples: the misclassified ones, or of a regression those with the largest losses, worst
        first."""

    def predictions(self, outputs: Tensor) -> Tensor:
        """The prediction for each sample: int64 [n], bool [n, labels] or float32 [n, values]."""

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """float32 [n, classes or labels], in the order of `output_names`; None for a regression."""

    def to_text(self, value: Tensor) -> str:
        """The prediction or the target of one sample as text."""


def worst_among(task: Task, results: Results, candidates: Tensor, most: int) -> list[WorstSample]:
    """The samples among `candidates` (bool [n]) with the largest losses, titled by prediction and target."""
    indices = candidates.nonzero().flatten()
    worst = indices[results.losses[indices].argsort(descending=True, stable=True)][:most]
    predictions = task.predictions(results.outputs)
    return [WorstSample(index, f"predicted {task.to_text(predictions[index])}\nactual "
                               f"{task.to_text(results.targets[index])}") for index in worst.tolist()]


def name_of(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)
