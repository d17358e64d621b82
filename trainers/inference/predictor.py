"""Inference: a run's model applied to new images or texts.

    from drumbeat.trainers.inference.predictor import Predictor
    predictor = Predictor.from_run("runs/resnet50_xray/latest")
    predictor([Image.open("a.jpg"), array, "b.png"])[0].prediction      # 'PNEUMONIA'

Samples go through the transforms of the run's evaluation, so the outputs are the same as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
from drumbeat.data.loader import Batch, BatchFetcher, Samples, batches, chunks, error_message
from drumbeat.data.user_code import CollateError, SampleError, reason
from drumbeat.trainers.build import build_forward, loader_workers
from drumbeat.trainers.evaluate import evaluation_mode
from drumbeat.trainers.inference.inputs import ImageFormat, Images, ImageTensors, Item, texts
from drumbeat.trainers.inference.load import good_checkpoint, load_model
from drumbeat.trainers.inference.preprocessing import build_preprocessing
from drumbeat.trainers.inference.tables import output_names
from drumbeat.trainers.model_and_task import on_host, parts_of
from drumbeat.trainers.tasks.task import kept_outputs
from drumbeat.trainers.world import World


class Prediction(NamedTuple):
    """The prediction for one sample."""

    prediction: str
    """The class, labels or values as text."""
    values: dict[str, float]
    """The probability of each class or label; for a regression, the values."""


class Outputs(NamedTuple):
    """The model's outputs for the items that could be read."""

    outputs: Tensor
    """float32 [n, ...]."""
    items: list[Item]
    unreadable: list[str]
    """For each of the other items, why it could not be read."""


class Predictor:
    """A run's model, loaded for inference."""

    def __init__(self, config: Config, path: Path, device: torch.device) -> None:
        """Loads the checkpoint in the folder `path`. Samples are read as the training set reads them; if it is not on
        this machine, as the config says. Raises a `UserError`."""
        self.config, self.path = config, path
        preprocessing = build_preprocessing(config, path)
        task, self.transforms = preprocessing.task, preprocessing.transforms
        if task.kind == "other":
            raise RunError(Fault(what=f"the predictions of {type(task).__name__} fit no table", where="task",
                                 given=str(config.task.get("_target_")),
                                 remedy="To evaluate the run on its own sets: drumbeat evaluate"))
        self.sample_format = preprocessing.sample_format
        parts_of(task).to(device)
        self.model = load_model(config, path, device, task)
        self.select = partial(kept_outputs, task)
        self.task = on_host(task)
        """For outputs on the CPU."""
        world = World(rank=0, local_rank=0, size=1, device=device)
        self.forward = build_forward(config, world.device)

    @classmethod
    def from_run(cls, run: str | Path, checkpoint: str | None = None, device: str = "cpu") -> Predictor:
        """The predictor for a run's folder. `checkpoint` is "best" (the default), "last" or a step. Raises a
        `UserError`."""
        folder = RunDir(Path(run).absolute())
        if not folder.config.is_file():
            raise RunError(Fault(what="this is not a run folder", where=str(run)))
        return cls(read(folder.config), good_checkpoint(folder, checkpoint)[0], torch.device(device))

    @property
    def reads_texts(self) -> bool:
        return not isinstance(self.sample_format, ImageFormat)

    def __call__(self, values: Sequence[Any]) -> list[Prediction]:
        """Images (PIL, arrays [H, W] or [H, W, 3] and tensors [C, H, W] of uint8 or uint16, paths) or texts -> a
        prediction for each. Raises `ValueError` for one that cannot be read."""
        if not len(values):
            return []
        found = self.predict([Item(str(number), value) for number, value in enumerate(values)])
        if found.unreadable:
            raise ValueError(found.unreadable[0])
        predictions, numbers = self.task.predictions(found.outputs), self.task.probabilities(found.outputs)
        names = output_names(self.task, found.outputs)
        if numbers is None:
            numbers, names = predictions, names if len(names) > 1 else ["prediction"]
        return [Prediction(self.task.to_text(prediction), dict(zip(names, row, strict=True)))
                for prediction, row in zip(predictions, numbers.tolist(), strict=True)]

    def predict(self, items: Sequence[Item], advance: Callable[[int], None] = lambda count: None) -> Outputs:
        """The outputs for all items, in batches of the evaluation's size. `advance` is called with the number of items
        in each batch."""
        with TemporaryDirectory() as folder:
            fetch = _ReadableBatches(BatchFetcher(self._samples(items, Path(folder)),
                                                  indices=lambda positions: positions, transforms=self.transforms))
            parts = chunks(len(items), self.config.evaluation.batch_size, rank=0, world_size=1)
            workers = loader_workers(self.config, threads=torch.get_num_threads(), debug=len(parts) < 2)
            outputs, read, unreadable = [], [], []
            try:
                with evaluation_mode(self.model, batch_statistics=self.config.evaluation.batch_statistics):
                    loader: Any = batches(fetch, parts, workers=workers, pin_memory=False)  # type: ignore[arg-type]
                    for part, (batch, errors) in zip(parts, loader, strict=True):
                        if batch is not None:
                            with self.forward.autocast():
                                found = self.forward.outputs(self.model, batch.inputs)
                                outputs.append(self.select(found).float().cpu())
                        read += [items[position] for position in part if position not in errors]
                        unreadable += errors.values()
                        advance(len(part))
            except (RuntimeError, CollateError) as error:
                raise RunError(_unfit(error, self.path, self.config)) from error
        return Outputs(torch.cat(outputs) if outputs else torch.empty(0), read, unreadable)

    def inputs(self, items: Sequence[Item]) -> Tensor | None:
        """Images as they enter the batch transforms, [n, C, H, W]; None for texts."""
        if self.reads_texts:
            return None
        fetch = BatchFetcher(self._samples(items, Path()), indices=lambda positions: positions,
                             transforms=self.transforms)
        inputs = fetch.__getitems__(range(len(items))).inputs
        return inputs if isinstance(inputs, Tensor) and inputs.dim() == 4 else None

    def _samples(self, items: Sequence[Item], folder: Path) -> Samples:
        if isinstance(self.sample_format, ImageFormat):
            return (ImageTensors if self.sample_format.tensors else Images)(items, self.sample_format)
        return texts(items, self.sample_format, folder)


def _unfit(error: RuntimeError | CollateError, checkpoint: Path, config: Config) -> Fault:
    """For inputs that the model cannot take: of different sizes, or not of the size it was trained on."""
    remedy = "Resize or convert them to what the run was trained on."
    if not config.data.transforms.evaluate:
        remedy += " Its data.transforms.evaluate is empty, so inputs are not resized here."
    return Fault(what=f"the model cannot take these inputs: {error_message(error).strip().splitlines()[0][:200]}",
                 where=short(checkpoint), remedy=remedy)


class _ReadableBatches(Dataset[Any]):
    """Batches of the samples that can be read and, by position, the error of each that cannot."""

    def __init__(self, fetch: BatchFetcher) -> None:
        self.fetch = fetch

    def __getitems__(self, positions: Sequence[int]) -> tuple[Batch | None, dict[int, str]]:
        try:
            return self.fetch.__getitems__(positions), {}
        except SampleError:
            errors = {position: error for position in positions if (error := self._error(position))}
        good = [position for position in positions if position not in errors]
        return self.fetch.__getitems__(good) if good else None, errors

    def _error(self, position: int) -> str:
        try:
            self.fetch[position]
        except SampleError as error:
            return reason(error.__cause__ or error)
        return ""
