"""What a run's model makes of new images or texts: a call on them.

    from drumbeat.trainers.inference.predictor import Predictor
    predictor = Predictor.from_run("runs/resnet50_xray/latest")
    predictor([Image.open("a.jpg"), array, "b.png"])[0].answer      # 'PNEUMONIA'

A sample goes through the transforms of the run's evaluation, and comes out as it does there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.layers import short
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.schema import Config
from drumbeat.data.images import UNREADABLE
from drumbeat.data.loader import Batch, BatchFetcher, Samples, batches, chunks, error_message
from drumbeat.trainers.build import build_forward, loader_workers
from drumbeat.trainers.evaluate import judging
from drumbeat.trainers.inference.inputs import Images, Item, texts
from drumbeat.trainers.inference.load import good_checkpoint, load_model
from drumbeat.trainers.inference.preprocessing import AsImages, how_it_reads
from drumbeat.trainers.inference.tables import headings
from drumbeat.trainers.world import World


class Prediction(NamedTuple):
    """What the model makes of a sample."""

    answer: str
    """In words: the class, the labels, the values."""
    values: dict[str, float]
    """The probability of each class or label; or the values."""


class Predicted(NamedTuple):
    """The outputs for those items that could be read."""

    outputs: Tensor
    """float32 [n, ...]."""
    items: list[Item]
    unreadable: list[str]
    """Why the others could not be."""


class Predictor:
    """A run's model, ready to be asked."""

    def __init__(self, config: Config, path: Path, device: torch.device) -> None:
        """Takes the checkpoint in the folder `path`. The training set is asked how its samples are read; where it is
        not there, the config must tell. Raises a `UserError` where it does not."""
        self.config, self.path = config, path
        reading = how_it_reads(config, path)
        self.task, self.like, self.transforms = reading.task, reading.like, reading.transforms
        self.model = load_model(config, path, device)
        world = World(rank=0, local_rank=0, size=1, device=device)
        self.forward = build_forward(config, world.device)

    @classmethod
    def from_run(cls, run: str | Path, checkpoint: str | None = None, device: str = "cpu") -> Predictor:
        """The predictor of a run's folder, with its best weights, or the last or a step's. Raises a `UserError`."""
        folder = RunDir(Path(run).absolute())
        if not folder.config.is_file():
            raise RunError(Fault(what="this is not the folder of a run", where=str(run)))
        return cls(read(folder.config), good_checkpoint(folder, checkpoint)[0], torch.device(device))

    @property
    def reads_texts(self) -> bool:
        return not isinstance(self.like, AsImages)

    def __call__(self, values: Sequence[Any]) -> list[Prediction]:
        """Images (PIL, uint8 arrays [H, W] or [H, W, 3], tensors [C, H, W], paths) or texts -> a prediction for each.
        Raises `ValueError` for one that cannot be read."""
        if not len(values):
            return []
        found = self.predict([Item(str(number), value) for number, value in enumerate(values)])
        if found.unreadable:
            raise ValueError(found.unreadable[0])
        names = headings(self.task, found.outputs)
        numbers = self.task.probabilities(found.outputs)
        if numbers is None:
            numbers = self.task.predicted(found.outputs)
        else:
            names = names[1:]
        answers = map(self.task.named, self.task.predicted(found.outputs))
        return [Prediction(answer, dict(zip(names, row, strict=True)))
                for answer, row in zip(answers, numbers.tolist(), strict=True)]

    def predict(self, items: Sequence[Item], advance: Callable[[int], None] = lambda count: None) -> Predicted:
        """The outputs for all items, in the batches of an evaluation; `advance` is told how many are done."""
        with TemporaryDirectory() as folder:
            reading = _Reading(BatchFetcher(self._samples(items, Path(folder)), indices=lambda positions: positions,
                                     transforms=self.transforms))
            parts = chunks(len(items), self.config.evaluation.batch_size, rank=0, world_size=1)
            workers = loader_workers(self.config, threads=torch.get_num_threads(), debug=len(parts) < 2)
            outputs, read, unreadable = [], [], []
            try:
                with judging(self.model, batch_statistics=self.config.evaluation.batch_statistics):
                    loader: Any = batches(reading, parts, workers=workers, pin_memory=False)  # type: ignore[arg-type]
                    for part, (batch, errors) in zip(parts, loader, strict=True):
                        if batch is not None:
                            with self.forward.autocast():
                                outputs.append(self.model(self.forward.inputs(batch.inputs)).float().cpu())
                        read += [items[position] for position in part if position not in errors]
                        unreadable += errors.values()
                        advance(len(part))
            except RuntimeError as error:
                raise RunError(_unfit(error, self.path, self.config)) from error
        return Predicted(torch.cat(outputs) if outputs else torch.empty(0), read, unreadable)

    def inputs(self, items: Sequence[Item]) -> Tensor | None:
        """What the model is shown of some images, before the batch's transforms; None for texts."""
        if self.reads_texts:
            return None
        fetch = BatchFetcher(self._samples(items, Path()), indices=lambda positions: positions,
                             transforms=self.transforms)
        inputs = fetch.__getitems__(range(len(items))).inputs
        return inputs if isinstance(inputs, Tensor) and inputs.dim() == 4 else None

    def _samples(self, items: Sequence[Item], folder: Path) -> Samples:
        if isinstance(self.like, AsImages):
            return Images(items, channels=self.like.channels, short_side=self.like.short_side,
                          tensors=self.like.tensors)
        return texts(items, self.like, folder)


def _unfit(error: RuntimeError, checkpoint: Path, config: Config) -> Fault:
    """Inputs that the model does not take: of several sizes, or of another than it was trained on."""
    remedy = "Bring them to the size and kind that the run was trained on."
    if not config.data.transforms.evaluate:
        remedy += " Its data.transforms.evaluate is empty, so nothing does that here."
    return Fault(what=f"the model cannot take this: {error_message(error).strip().splitlines()[0][:200]}",
                 where=short(checkpoint), remedy=remedy)


class _Reading(Dataset[Any]):
    """Batches of what can be read, and for each of the others, by position, why it cannot."""

    def __init__(self, fetch: BatchFetcher) -> None:
        self.fetch = fetch

    def __getitems__(self, positions: Sequence[int]) -> tuple[Batch | None, dict[int, str]]:
        try:
            return self.fetch.__getitems__(positions), {}
        except UNREADABLE:
            errors = {position: error for position in positions if (error := self._error(position))}
        good = [position for position in positions if position not in errors]
        return self.fetch.__getitems__(good) if good else None, errors

    def _error(self, position: int) -> str:
        try:
            self.fetch[position]
        except UNREADABLE as error:
            return str(error) or type(error).__name__
        return ""
