"""Weights as other programs save them: what fits is taken, and what does not is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from drumbeat.models.pretrained import read_weights
from drumbeat.models.transfer import ResNet18, ResNet50ConcatPool

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def resnet() -> State:
    torch.manual_seed(1)
    return models.resnet18().state_dict()


@pytest.fixture(scope="module")
def own() -> State:
    torch.manual_seed(2)
    return ResNet18(classes=3).state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


WRAPPED: list[Callable[[State], Any]] = [
    lambda state: state,
    lambda state: prefixed(state, "module."),
    lambda state: prefixed(state, "_orig_mod."),
    lambda state: prefixed(state, "_orig_mod.module."),
    lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3},
    lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.zeros(1)}}, "param_groups": []}},
    lambda state: {"state_dict": prefixed(state, "model.")},
    lambda state: {name: value for name, value in state.items() if not name.startswith("fc.")},
    lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
    lambda state: state | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)},
    lambda state: {name: value.half() if value.is_floating_point() else value for name, value in state.items()},
]


@pytest.mark.parametrize("wrap", WRAPPED)
def test_torchvisions_weights_in_every_wrapping(tmp_path: Path, resnet: State, wrap: Callable[[State], Any]) -> None:
    """The backbone is taken, and the head is new, whatever last layer the file has."""
    torch.save(wrap(resnet), tmp_path / "weights.pth")
    torch.manual_seed(3)
    model = ResNet18(classes=2, weights=str(tmp_path / "weights.pth"))
    torch.manual_seed(3)
    plain = ResNet18(classes=2)
    for name in ("conv1.weight", "layer4.1.bn2.running_var"):
        taken = model.backbone.state_dict()[name]
        torch.testing.assert_close(taken, resnet[name], rtol=1e-3, atol=1e-3)
        assert taken.dtype == torch.float32
    assert torch.equal(model.head.weight, plain.head.weight)
    lines = model.weights_text.splitlines()
    assert lines[0] == f"weights from {tmp_path}/weights.pth"
    assert lines[1].startswith("  taken     backbone: 1") or lines[1].startswith("  taken     backbone.conv1")
    assert lines[-1].startswith("  new       head: 2 tensors")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_our_own_export_with_its_head(tmp_path: Path, own: State, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    save_file(own, file) if suffix == ".safetensors" else torch.save(own, file)
    model = ResNet18(classes=3, weights=str(file))
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert model.weights_text == f"weights from {file}\n  taken     backbone, head: 122 tensors"


def test_our_own_export_with_another_number_of_classes(tmp_path: Path, own: State) -> None:
    file = tmp_path / "weights.pt"
    torch.save(own, file)
    model = ResNet18(classes=5, weights=str(file))
    assert torch.equal(model.backbone.conv1.weight, own["backbone.conv1.weight"])
    assert model.weights_text == f"""\
weights from {file}
  taken     backbone: 120 tensors
  left out  head: 2 tensors
  new       head: 2 tensors (head.weight is [5, 512], [3, 512] in the file)"""


def test_only_the_last_layer_of_a_larger_head_is_new(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(ResNet50ConcatPool(classes=2).state_dict(), file)
    model = ResNet50ConcatPool(classes=4, weights=str(file))
    assert model.weights_text.splitlines()[-2:] == [
        "  left out  head.8: 2 tensors",
        "  new       head.8: 2 tensors (head.8.weight is [4, 512], [2, 512] in the file)"]


@pytest.mark.parametrize("make", [models.resnet34, models.resnet50, models.vgg11, lambda: nn.Linear(2, 2)])
def test_another_network_is_refused_on_one_screen(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    """ResNet-34 has every weight of ResNet-18, and more in the same layers."""
    torch.save(make().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="do not fit this network") as error:
        ResNet18(classes=2, weights=str(tmp_path / "weights.pth"))
    assert len(str(error.value).splitlines()) <= 5
    assert max(map(len, str(error.value).splitlines())) < 300


def test_a_model_without_memory_takes_weights_too(tmp_path: Path, resnet: State) -> None:
    torch.save(resnet, tmp_path / "weights.pth")
    with torch.device("meta"):
        model = ResNet18(classes=2, weights=str(tmp_path / "weights.pth"))
    assert torch.equal(model.backbone.conv1.weight, resnet["conv1.weight"])
    assert model.head.weight.is_meta


def test_what_holds_no_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt holds no weights: keys epoch, loss"):
        read_weights(tmp_path / "a.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b\.pt holds Python objects and not only weights"):
        read_weights(tmp_path / "b.pt")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_weights(tmp_path / "c.pt")
