"""The smoke test: a few samples of each set go through model and loss before a run is submitted."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import SCREEN, PreflightError
from drumbeat.configs.load import load
from drumbeat.configs.schema import Config
from drumbeat.trainers.build import Sets
from drumbeat.trainers.commands.preflight import preflight
from drumbeat.trainers.commands.smoke_test import classes_note
from drumbeat.trainers.tasks import Classification
from tests.tiny import Net, Pictures, write_config
from tests.trainers.saved_runs import TEXTS, draw_images, write_texts

HERE = "tests.trainers.commands.test_smoke_test"


class Ternary(Pictures):
    """Three classes, of which the third is rare."""

    classes = ("bottom", "top", "neither")


class Uneven(Pictures):
    """Images of different sizes."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = super().__getitem__(index)
        return picture[:, : 2 + index % 5], label


class Damaged(Pictures):
    """A dataset whose samples cannot be read."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise OSError("no such image")


class Floats(Pictures):
    """Targets that are not class numbers."""

    def __getitem__(self, index: int) -> tuple[Tensor, float]:  # type: ignore[override]
        picture, label = super().__getitem__(index)
        return picture, float(label)


class Signed(Pictures):
    """Labels -1 and 1."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = super().__getitem__(index)
        return picture, 2 * label - 1


class Summed(Classification):
    """A task that sums its losses."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().losses(outputs, targets).sum()


class ReadsValues(Net):
    """A forward pass that depends on the values of its inputs, so the meta device is not enough for it."""

    def forward(self, pictures: Tensor) -> Tensor:
        assert pictures.mean().item() < 1e9
        return super().forward(pictures)


class NeedsCuda(nn.Module):
    """A model with a kernel that exists only for GPUs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, pictures: Tensor) -> Tensor:
        raise RuntimeError("this kernel only runs on CUDA")


def dataset_of(name: str, kind: str) -> str:
    """An override that replaces a dataset of the config by one of this kind."""
    return f"data.{name}={{_target_: {HERE}.{kind}, n: 30}}"


def error_message(folder: Path, *changes: str) -> str:
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(folder), changes).config)
    return " ".join(str(caught.value).split())


def texts_config(folder: Path, *changes: str) -> Config:
    (folder / "texts.yaml").write_text(TEXTS.replace("ROOT", str(folder)))
    return load(folder / "texts.yaml", changes).config


def test_more_classes_than_the_model_has(tmp_path: Path) -> None:
    """Although none of the checked samples is of the third class."""
    message = error_message(tmp_path, *(dataset_of(name, "Ternary") for name in ("train", "validation", "test")))
    assert ("cannot be computed from the model's outputs for data.train: IndexError: Target 2 is out of bounds"
            in message)
    assert "where task given outputs float32 [4, 2]; targets int64 [4], 3 classes" in message


@pytest.mark.parametrize("model", ["Single", "Net"])
def test_labels_below_zero(tmp_path: Path, model: str) -> None:
    """With one output, binary cross-entropy would train on them without an error."""
    message = error_message(tmp_path, *(dataset_of(name, "Signed") for name in ("train", "validation", "test")),
                            f"model._target_={HERE}.{model}")
    assert "data.train has the label -1 where data.train given outputs float32" in message


class Single(Net):
    """One output, for two classes."""

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(pictures)[:, :1]


@dataclass
class Logits:
    """What torch's tree functions do not take apart."""

    logits: Tensor
    loss: Tensor | None = None


class Output(OrderedDict[str, Tensor]):
    """As Hugging Face's: items that are attributes too."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __reduce__(self) -> Any:
        return type(self), tuple(self.values())


@dataclass
class HuggingFaceLogits(Output):
    logits: Tensor

    def __post_init__(self) -> None:
        self["logits"] = self.logits


class Structured(Net):
    def __init__(self, *, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind

    def forward(self, pictures: Tensor) -> Any:
        return globals()[self.kind](super().forward(pictures))


class ByAttribute(Classification):
    """A task of the user's."""

    def losses(self, outputs: Any, targets: Tensor) -> Tensor:
        return super().losses(outputs.logits, targets)


@pytest.mark.parametrize("task", ["", f"{HERE}.ByAttribute"])
@pytest.mark.parametrize("kind", ["Logits", "HuggingFaceLogits"])
def test_outputs_with_attributes(tmp_path: Path, kind: str, task: str) -> None:
    own = f"{{_target_: {task}}}" if task else "{}"
    preflight(load(write_config(tmp_path), [f"model._target_={HERE}.Structured", f"model.kind={kind}", f"task={own}"]
                   ).config)


def test_inputs_of_another_size(tmp_path: Path) -> None:
    crop = "data.transforms.train=[{_target_: torchvision.transforms.v2.RandomCrop, size: 6}]"
    message = error_message(tmp_path, crop)
    assert "the model cannot take a batch of data.train: RuntimeError: " in message
    assert "where model given float32 [4, 1, 6, 6] at " in message
    assert "tests/tiny.py:" in message


def test_a_size_of_a_later_phase_that_the_model_cannot_take(tmp_path: Path) -> None:
    crop = "phases.finetune.transforms=[{_target_: torchvision.transforms.v2.RandomCrop, size: 6}]"
    message = error_message(tmp_path, crop)
    assert "in phase finetune, the model cannot take a batch of data.train: RuntimeError: " in message
    assert "where phases.finetune.transforms given float32 [4, 1, 6, 6] at " in message


def test_validation_that_the_model_cannot_take(tmp_path: Path) -> None:
    """This would otherwise fail in the first evaluation, an epoch later."""
    resize = "data.transforms.evaluate=[{_target_: torchvision.transforms.v2.CenterCrop, size: 6}]"
    assert "the model cannot take a batch of data.validation: RuntimeError: " in error_message(tmp_path, resize)


@pytest.mark.parametrize(("change", "message"), [
    (dataset_of("train", "Uneven"), "of data.train cannot be put into one batch: RuntimeError: stack expects each "
                                    "tensor to be equal size"),
    (dataset_of("test", "Damaged"), "sample 0 of data.test: OSError: no such image (tests/trainers/commands/"),
    (dataset_of("train", "Floats"), "targets float64 [4]"),
    (f"task._target_={HERE}.Summed", "the loss is not one number for each sample where task given outputs float32 "
                                     "[4, 2]; targets int64 [4], 2 classes; losses float32 []"),
    ("data.transforms.batch=[{_target_: torch.nn.Linear, in_features: 5, out_features: 5}]",
     "data.transforms.batch cannot take a batch of data.train"),
])
def test_what_does_not_fit(tmp_path: Path, change: str, message: str) -> None:
    changes = [change, "data.transforms.train=[]"] if "Uneven" in change else [change]
    assert message in error_message(tmp_path, *changes)


def test_a_model_that_needs_values_is_tried_for_real(tmp_path: Path) -> None:
    reads = f"model._target_={HERE}.ReadsValues"
    assert preflight(load(write_config(tmp_path), [reads]).config)["parameters"] > 0
    crop = "data.transforms.train=[{_target_: torchvision.transforms.v2.RandomCrop, size: 6}]"
    assert "the model cannot take a batch of data.train" in error_message(tmp_path, reads, crop)


def test_what_only_a_gpu_can_do_is_no_fault(tmp_path: Path) -> None:
    config = load(write_config(tmp_path), [f"model._target_={HERE}.NeedsCuda", "phases.head.freeze=[]"]).config
    assert preflight(config)["parameters"] == 6


def test_mixed_samples(tmp_path: Path) -> None:
    assert preflight(load(write_config(tmp_path), ["data.mix={_target_: drumbeat.data.Mixup}"]).config)["steps"]


def test_a_model_sized_by_the_data_is_tried_with_their_sizes(tmp_path: Path) -> None:
    """An LSTM reads the lengths of its texts, which exist for models on the meta device too, whatever their size."""
    write_texts(tmp_path)
    assert preflight(texts_config(tmp_path, "model.hidden_size=8000"))["parameters"] > 256_000_000
    with pytest.raises(PreflightError, match="3 outputs for each sample, the data has 2"):
        preflight(texts_config(tmp_path, "model.hidden_size=8000", "model.classes=3"))


def test_an_image_folder_for_a_model_of_texts(tmp_path: Path) -> None:
    """As the file of texts; in the place of the set, which then has no vocabulary; and with the sizes written out."""
    draw_images(tmp_path)
    write_texts(tmp_path)
    folder = f"data.train={{_target_: drumbeat.data.ImageFolder, root: {tmp_path}/test}}"
    sized = ["model={vocab_size: 9, classes: 2}", "task._target_=drumbeat.trainers.tasks.Classification",
             "data.test={}", "data.transforms.train=[{_target_: torchvision.transforms.v2.Resize, size: [8, 8]}]"]
    for changes, message in (
        ([f"data.test.file={tmp_path}/test"], f"{tmp_path}/test is a folder, but must be a file where data.test"),
        ([folder], "the training set has no fact 'vocab_size' where model.vocab_size given vocab_size: "
                   "from_data, and the dataset is drumbeat.data.ImageFolder"),
        ([folder, *sized], "the model cannot take a batch of data.train: TypeError: this model reads texts, (ids, "
                           "lengths), and was given one tensor [4, 3, 8, 8]"),
    ):
        with pytest.raises(PreflightError) as caught:
            preflight(texts_config(tmp_path, *changes))
        assert message in " ".join(str(caught.value).split())
        assert len(str(caught.value).splitlines()) <= SCREEN


class Named:
    def __init__(self, classes: list[str]) -> None:
        self.classes = classes


@pytest.mark.parametrize(("classes", "outputs", "told"), [
    (4, torch.zeros(4, 8), True), (4, torch.zeros(4, 1000), True), (4, torch.zeros(4, 4), False),
    (2, torch.zeros(4, 1), False), (2, torch.zeros(4), False), (0, torch.zeros(4, 8), False),
    (2, torch.zeros(4, 3, 8, 8), False)])
def test_as_many_outputs_as_classes(classes: int, outputs: Tensor, told: bool) -> None:
    """Otherwise they may be embeddings, whose largest number is no class."""
    sets = Sets(train=Named([*"abcd"[:classes]]), validation=None, test=None,  # type: ignore[arg-type]
                train_transforms=[], evaluate_transforms=[])
    note = classes_note(sets, Classification(), outputs)
    assert note.startswith(f"the outputs are {outputs.shape[-1]:,} for each sample, and data.train has 4 classes; if "
                           "these are embeddings, give the task a `select`") == told
    assert bool(note) == told
