"""What a run would refuse about its batches is found before it is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.commands.preflight import preflight
from drumbeat.trainers.tasks import Classification
from tests.tiny import Pictures, write_config

HERE = "tests.trainers.commands.test_batch_checks"


class Alike(Classification):
    """A loss of the whole batch."""

    def batch_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs @ outputs.T).square().mean() + super().losses(outputs, targets).mean()


class Sized(Pictures):
    """Images of different sizes, with a text of its own for each, as a dict."""

    def __getitem__(self, index: int) -> Any:
        picture, label = super().__getitem__(index)
        return {"image": picture[:, : 4 + index % 4], "note": "x" * index, "label": label}


def lists(samples: list[Any]) -> Any:
    images, labels = [sample["image"] for sample in samples], torch.tensor([sample["label"] for sample in samples])
    return {"images": images, "notes": [sample["note"] for sample in samples], "label": labels}


def flat(samples: list[Any]) -> Any:
    """As for a graph: one long tensor, and which sample each of its rows belongs to."""
    images = [sample["image"].flatten() for sample in samples]
    owners = torch.cat([torch.full((len(image),), row) for row, image in enumerate(images)])
    return {"images": torch.cat(images), "owners": owners, "label": torch.tensor([one["label"] for one in samples])}


class Means(nn.Module):
    """Logits from the mean of each image. The names of its arguments are those of the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, images: Any, notes: list[str] | None = None, owners: Tensor | None = None) -> Any:
        if owners is not None:
            images = [images[owners == number] for number in range(int(owners.max()) + 1)]
        elif notes is not None and len(notes) != len(images):
            raise ValueError("each image has a note")
        means = torch.stack([image.float().mean() for image in images])[:, None]
        return {"logits": self.layer(means / 255), "means": means}


def changes(collate: str, *more: str) -> list[str]:
    sets = [f"data.{name}={{_target_: {HERE}.Sized, n: 30}}" for name in ("train", "validation", "test")]
    return [*sets, f"data.collate_fn={{_target_: {HERE}.{collate}}}", f"model={{_target_: {HERE}.Means}}",
            "data.transforms.train=[]", "data.transforms.batch=[]", "phases.head.freeze=[]", *more]


def message(folder: Path, *changed: str, world_size: int = 1) -> str:
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(folder), changed).config, world_size=world_size)
    return " ".join(str(caught.value).split())


def test_lists_of_items_are_cut_as_tensors_are(tmp_path: Path) -> None:
    """In batches of 12, in micro-batches of 4."""
    assert preflight(load(write_config(tmp_path), changes("lists")).config)["notes"] == []


def test_what_has_not_a_row_for_each_sample_is_not_cut(tmp_path: Path) -> None:
    found = message(tmp_path, *changes("flat"))
    assert found.startswith("error: a batch cannot be cut into micro-batches, because it has not a row for each of 4 "
                            "samples where micro_batch_size given 4 of the 12 samples of a rank inputs: ['images'] is "
                            "uint8 [")
    assert preflight(load(write_config(tmp_path), changes("flat", "micro_batch_size=null")).config)["notes"] == []


def test_a_loss_of_the_whole_batch_needs_it(tmp_path: Path) -> None:
    task = f"task._target_={HERE}.Alike"
    found = message(tmp_path, task)
    assert found.startswith("error: a loss of the whole batch cannot be computed in micro-batches")
    assert "4 of the 6 samples of a rank" in message(tmp_path, task, world_size=2)
    assert "auto: as many as fit of the 12 samples" in message(tmp_path, task, "micro_batch_size=auto")
    assert preflight(load(write_config(tmp_path), [task, "micro_batch_size=null"]).config, world_size=2)["notes"] == []
    mixed = message(tmp_path, task, "micro_batch_size=null", "data.mix={_target_: drumbeat.data.Mixup}")
    assert mixed.startswith("error: mixed samples need a loss of each sample")


def test_only_tensors_are_mixed(tmp_path: Path) -> None:
    found = message(tmp_path, *changes("lists", "data.mix={_target_: drumbeat.data.Mixup}"))
    assert "data.mix needs one tensor as the input and one as the target" in found


def test_a_model_that_does_not_know_the_inputs(tmp_path: Path) -> None:
    found = message(tmp_path, *changes("lists", "model={_target_: tests.tiny.Net}"))
    assert "unexpected keyword argument 'images'" in found
    assert "A model is called with a dict of inputs by their names, and with a tuple by their order." in found


def test_labels_that_are_to_be_ignored_need_a_loss_that_does_so(tmp_path: Path) -> None:
    sets = [f"data.{name}={{_target_: {HERE}.Unlabelled, n: 30}}" for name in ("train", "validation", "test")]
    assert "data.train has the label -100" in message(tmp_path, *sets)
    loss = "task={_target_: drumbeat.trainers.tasks.Classification, loss: {_target_: torch.nn.CrossEntropyLoss}}"
    assert preflight(load(write_config(tmp_path), [*sets, loss]).config)["notes"] == []


class Unlabelled(Pictures):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = super().__getitem__(index)
        return picture, -100 if index % 2 else label


class Masked(Pictures):
    """A class for each pixel."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture, label = super().__getitem__(index)
        return picture, torch.full(picture.shape[1:], label)


class Pixelwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layer(pictures.float() / 255)  # type: ignore[no-any-return]


@pytest.mark.parametrize("mix", ["CutMix", "Mixup"])
def test_masks_are_not_cut_from_two_images(tmp_path: Path, mix: str) -> None:
    """Mixup weighs each pixel's class, and CutMix would weigh a whole mask by the area of the pasted part."""
    sets = [f"data.{name}={{_target_: {HERE}.Masked, n: 30}}" for name in ("train", "validation", "test")]
    changed = [*sets, f"model={{_target_: {HERE}.Pixelwise}}", "data.transforms.train=[]", "data.transforms.batch=[]",
               "phases.head.freeze=[]", f"data.mix={{_target_: drumbeat.data.{mix}}}"]
    if mix == "Mixup":
        preflight(load(write_config(tmp_path), changed).config)
    else:
        assert message(tmp_path, *changed).startswith("error: CutMix mixes the targets of two samples as wholes")


def test_views_of_masks_are_not_averaged(tmp_path: Path) -> None:
    sets = [f"data.{name}={{_target_: {HERE}.Masked, n: 30}}" for name in ("train", "validation", "test")]
    changed = [*sets, f"model={{_target_: {HERE}.Pixelwise}}", "data.transforms.train=[]", "data.transforms.batch=[]",
               "phases.head.freeze=[]",
               "evaluation.views=[{_target_: torchvision.transforms.v2.functional.horizontal_flip}]"]
    assert message(tmp_path, *changed).startswith("error: the outputs of several views cannot be averaged")
