"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.trainers.tasks.losses import known_mean, mean, per_sample
from drumbeat.trainers.tasks.outputs import main_output
from drumbeat.trainers.tasks.task import Kind, Results, WorstSample, name_of

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Of the classes from 1 on, and again: those of Okabe and Ito, which colour-blind readers can tell apart. Class 0,
often the background, has none."""
IGNORED = (128, 128, 128)


class Segmentation:
    """A class for each pixel: outputs are logits [n, classes, H, W], or a dict with these as "out" and, with
    `auxiliary`, others as "aux", as torchvision's models return. Targets are class numbers [n, H, W] of any integer
    type; pixels of the class `ignore_index` do not count.

    `loss` is any torch loss with a `reduction` that takes [n, classes, H, W] and [n, H, W], by default cross-entropy.
    The loss is the mean over the pixels that count in the whole batch, whatever rank or micro-batch they are in, with
    the loss's weights of the classes if it has them; that of "aux" is added to it, times `auxiliary`. Metrics: loss,
    accuracy (the fraction of the pixels that is correct) and mean_iou (the mean of the classes' intersections over
    unions; a class that is neither present nor predicted does not count).

    An evaluation keeps three numbers for each sample and class, and not the outputs.
    """

    kind: Kind = "other"
    metric_names: tuple[str, ...] = ("loss", "accuracy", "mean_iou")
    worst_title = "worst predictions, largest mean loss first"

    def __init__(self, *, loss: Any = None, classes: Sequence[str] = (), ignore_index: int = 255,
                 auxiliary: float = 0.0) -> None:
        self.loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.CrossEntropyLoss())
        self.output_names = list(classes)
        self.ignore_index = ignore_index
        self.auxiliary = auxiliary

    def losses(self, outputs: Any, targets: Tensor) -> Tensor:
        """float32 [n]: the sum over the pixels that count."""
        losses = self._sums(logits_of(outputs), targets)
        return losses + self.auxiliary * self._sums(outputs["aux"], targets) if self.auxiliary else losses

    def _sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        if logits.shape[:1] + logits.shape[2:] != targets.shape:
            raise ValueError(f"the outputs {list(logits.shape)} are not [n, classes, H, W] for the targets "
                             f"{list(targets.shape)}, [n, H, W]")
        counted = targets != self.ignore_index
        losses = self.loss(logits.float(), targets.long().where(counted, 0))
        if losses.shape != targets.shape:
            raise ValueError(f"the loss has the shape {list(losses.shape)}; this task needs one value for each pixel, "
                             f"{list(targets.shape)}")
        return losses.where(counted, 0).sum((1, 2))

    def weights(self, targets: Tensor) -> Tensor:
        """float32 [n]: the number of pixels that count, or the sum of their classes' weights."""
        counted = targets != self.ignore_index
        weight = getattr(self.loss, "weight", None)
        each = counted.float() if weight is None else weight.to(targets.device)[targets.long().where(counted, 0)]
        return each.where(counted, 0).sum((1, 2))

    def summary(self, outputs: Any, targets: Tensor) -> Tensor:
        """int64 [n, 3, classes]: in each sample, the pixels of each class that are correct, those that are predicted as
        the class, and those that are of it; of the pixels that count."""
        logits = logits_of(outputs)
        n, classes = logits.shape[:2]
        predicted, expected = logits.argmax(1).flatten(1), targets.flatten(1).long()
        counted = expected != self.ignore_index
        rows = classes * torch.arange(n, device=targets.device)[:, None]
        return torch.stack([(rows + values)[chosen].bincount(minlength=n * classes).view(n, classes)
                            for values, chosen in ((expected, counted & (predicted == expected)), (predicted, counted),
                                                   (expected, counted))], dim=1)

    def metrics(self, results: Results) -> dict[str, float]:
        correct, predicted, expected = results.summary.sum(0)
        total = int(expected.sum())
        return {"loss": mean(results.losses, results.weights),
                "accuracy": int(correct.sum()) / total if total else math.nan,
                "mean_iou": known_mean(_ious(correct, predicted, expected))}

    def class_rows(self, results: Results) -> list[dict[str, Any]]:
        """For each class: IoU, precision, recall, and the number of its pixels and of the samples that have it."""
        columns = results.summary.sum(0).tolist()
        ious = _ious(*results.summary.sum(0))
        present = (results.summary[:, 2] > 0).sum(0).tolist()
        return [{"name": name_of(self.output_names, number), "iou": ious[number],
                 "precision": correct / predicted if predicted else None,
                 "recall": correct / expected if expected else None, "pixels": expected, "samples": present[number]}
                for number, (correct, predicted, expected) in enumerate(zip(*columns, strict=True))]

    def sample_rows(self, results: Results) -> list[dict[str, Any]]:
        """For each sample: accuracy, mean IoU, and the IoU of each class."""
        rows = []
        for counts in results.summary:
            ious, total = _ious(*counts), int(counts[2].sum())
            rows.append({"accuracy": int(counts[0].sum()) / total if total else None, "mean_iou": known_mean(ious),
                         **{f"iou of {name_of(self.output_names, number)}": iou for number, iou in enumerate(ious)}})
        return rows

    def worst_samples(self, results: Results, most: int) -> list[WorstSample]:
        return [WorstSample(number, f"predicted, mean IoU {known_mean(_ious(*results.summary[number])):.2f}")
                for number in [*results.worst][:most]]

    def predictions(self, outputs: Any) -> Tensor:
        """uint8 [n, H, W], or int64 of more than 256 classes."""
        logits = logits_of(outputs)
        return logits.argmax(1).to(torch.uint8 if logits.shape[1] <= 256 else torch.int64)

    def probabilities(self, outputs: Any) -> None:
        return None

    def metric_inputs(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Class numbers, int64 [n, H, W] both; the metric needs the `ignore_index`."""
        return self.predictions(outputs).long(), targets.long()

    def to_text(self, value: Tensor) -> str:
        """The classes of a mask from 1 on, with the fraction of its pixels: "disc 12%, square 3%"."""
        counts = value[value != self.ignore_index].long().bincount().tolist()
        shares = [f"{name_of(self.output_names, number)} {count / value.numel():.0%}"
                  for number, count in enumerate(counts) if number and count]
        return ", ".join(shares) or name_of(self.output_names, 0)

    def draw(self, image: Tensor, value: Tensor) -> Tensor:
        """The image, with the classes from 1 on in colours with full edges, and pixels that do not count in gray."""
        mask = value.long().cpu()
        colours = torch.zeros(int(mask.max()) + 1, 3)
        colours[1:] = torch.tensor(COLOURS).float().repeat(-(-len(colours) // len(COLOURS)), 1)[:len(colours) - 1]
        painted = colours[mask]
        painted[mask == self.ignore_index] = torch.tensor(IGNORED).float()
        opacity = torch.full(mask.shape, 0.45)
        for one, other in (((slice(1, None), slice(None)), (slice(-1), slice(None))),
                           ((slice(None), slice(1, None)), (slice(None), slice(-1)))):
            differs = mask[one] != mask[other]
            opacity[one][differs] = opacity[other][differs] = 1.0
        opacity[mask == 0] = 0.0
        return (image * (1 - opacity) + painted.permute(2, 0, 1) * opacity).to(torch.uint8)


def logits_of(outputs: Any) -> Tensor:
    """The logits [n, classes, H, W] of what a model returns. Raises `TypeError` and `ValueError` if there are none."""
    found = main_output(outputs)
    if found.dim() != 4:
        raise ValueError(f"the model returns {list(found.shape)}; segmentation needs logits [n, classes, H, W]")
    return found


def _ious(correct: Tensor, predicted: Tensor, expected: Tensor) -> list[float | None]:
    """The intersection over union of each class, int64 [classes] each; None for a class without a pixel."""
    unions = predicted + expected - correct
    return [hits / union if union else None for hits, union in zip(correct.tolist(), unions.tolist(), strict=True)]
