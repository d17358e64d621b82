"""Weights as other programs save them: what fits is taken, and what does not is said."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from drumbeat.models.pretrained import best_match, check, describe, read_weights, renamed, take
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


def table(model: nn.Module, found: State, *, strict: bool = False, load: bool = True) -> str:
    """Loads what fits, and describes it."""
    expected = model.state_dict(keep_vars=True)
    match = best_match(expected, found)
    check(match, expected, found, strict=strict)
    if load:
        take(model, match, found)
    return describe(match, expected, found, "FILE")


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


WRAPPED: list[Callable[[State], Any]] = [
    lambda state: state,
    lambda state: prefixed(state, "module."),
    lambda state: prefixed(state, "_orig_mod."),
    lambda state: prefixed(state, "_orig_mod.module."),
    lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3},
    lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.zeros(1)}}, "param_groups": []},
                   "args": argparse.Namespace(lr=0.1)},
    lambda state: {"state_dict": prefixed(state, "model.")},
    lambda state: {"state_dict": prefixed(state, "model.net.")},
    lambda state: {"state_dict": prefixed(state, "model.") | {"criterion.weight": torch.ones(3)}},
    lambda state: {name: value for name, value in state.items() if not name.startswith("fc.")},
    lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
    lambda state: state | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)},
    lambda state: {name: value.half() if value.is_floating_point() else value for name, value in state.items()},
]


@pytest.mark.parametrize("number", range(len(WRAPPED)))
def test_torchvisions_weights_in_every_wrapping(tmp_path: Path, resnet: State, number: int) -> None:
    """The backbone is taken, and the head is new, whatever last layer the file has; in torch's old format, too."""
    torch.save(WRAPPED[number](resnet), tmp_path / "weights.pth", _use_new_zipfile_serialization=number % 2 == 0)
    model = ResNet18(classes=2)
    before = model.head.weight.detach().clone()
    lines = table(model, read_weights(tmp_path / "weights.pth")).splitlines()
    for name in ("conv1.weight", "layer4.1.bn2.running_var"):
        taken = model.backbone.state_dict()[name]
        torch.testing.assert_close(taken, resnet[name], rtol=1e-3, atol=1e-3)
        assert taken.dtype == torch.float32
    assert torch.equal(model.head.weight, before)
    assert lines[0] == "weights from FILE"
    assert lines[1].startswith("  taken     backbone: 1") or lines[1].startswith("  taken     backbone.conv1")
    assert lines[-1].startswith("  new       head: 2 tensors")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_whole_model_with_its_head(tmp_path: Path, own: State, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    save_file(own, file) if suffix == ".safetensors" else torch.save(own, file)
    model = ResNet18(classes=3)
    assert table(model, read_weights(file), strict=True) == "weights from FILE\n  taken     backbone, head: 122 tensors"
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_another_number_of_classes(own: State) -> None:
    model = ResNet18(classes=5)
    assert table(model, own) == """\
weights from FILE
  taken     backbone: 120 tensors
  left out  head: 2 tensors
  new       head: 2 tensors (head.weight is [5, 512], [3, 512] in the file)"""
    assert torch.equal(model.backbone.conv1.weight, own["backbone.conv1.weight"])


def test_only_the_last_layer_of_a_larger_head_is_new() -> None:
    """Its bias would fit, but a layer is taken as a whole."""
    with torch.device("meta"):
        found = ResNet50ConcatPool(classes=2, hidden_size=8).state_dict()
        model = ResNet50ConcatPool(classes=2, hidden_size=16)
    assert table(model, found, load=False).splitlines()[-2:] == [
        "  left out  head.4, head.6, head.8: 9 tensors",
        "  new       head.4, head.6, head.8: 8 tensors (head.4.weight is [16, 4096], [8, 4096] in the file)"]


def test_another_network_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"none of the .* tensors has the name and the shape") as error:
        table(ResNet18(classes=2), nn.Linear(2, 2).state_dict())
    assert ": nearest in the file is " in str(error.value)
    assert len(str(error.value).splitlines()) == 4


@pytest.mark.parametrize(("make", "what"), [
    (models.resnet34, "of the file are not in the network"),
    (models.resnet18, "head.weight, head.bias of the network are not taken"),
])
def test_strict_takes_all_or_nothing(make: Callable[[], nn.Module], what: str) -> None:
    """ResNet-34 has every weight of the ResNet-18's backbone, and more in the same layers."""
    model = ResNet18(classes=2)
    expected = {name: value for name, value in model.state_dict().items()
                if make is models.resnet18 or name.startswith("backbone.")}
    found = make().state_dict()
    with pytest.raises(ValueError, match=what):
        check(best_match(expected, found), expected, found, strict=True)


def test_tied_weights_are_needed_once() -> None:
    """As safetensors saves them. They stay tied."""
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "last": nn.Linear(3, 5, bias=False)})
    model["last"].weight = model["embed"].weight  # type: ignore[assignment]
    wanted = torch.randn(5, 3)
    assert table(model, {"embed.weight": wanted}, strict=True) == "weights from FILE\n  taken     embed: 1 tensor"
    assert torch.equal(model["last"].weight, wanted)  # type: ignore[arg-type]
    assert model["last"].weight is model["embed"].weight


def test_names_are_replaced_from_their_beginning() -> None:
    found = {"encoder.a.weight": torch.ones(1), "encoder2.weight": torch.ones(2), "fc.weight": torch.ones(3)}
    assert [*renamed(found, {"encoder": "backbone", "fc.weight": "head.weight"})] == [
        "backbone.a.weight", "encoder2.weight", "head.weight"]
    blocks = {f"layer.{number}.attention.query.{end}": torch.ones(1) for number in (0, 11)
              for end in ("weight", "bias")}
    assert [*renamed(blocks, {"layer.*.attention.query": "blocks.*.q"})] == [
        "blocks.0.q.weight", "blocks.0.q.bias", "blocks.11.q.weight", "blocks.11.q.bias"]
    assert [*renamed(blocks, {"layer.0": "first", "layer.*": "*"})][1:3] == [
        "first.attention.query.bias", "11.attention.query.weight"]
    assert [*renamed(found, {"encoder": ""})] == ["a.weight", "encoder2.weight", "fc.weight"]
    with pytest.raises(ValueError, match="no name in the file begins with 'encodr'; did you mean 'encoder"):
        renamed(found, {"encodr": "backbone"})


def test_a_model_without_memory_is_matched(resnet: State) -> None:
    with torch.device("meta"):
        model = ResNet18(classes=2)
    assert table(model, resnet, load=False) == """\
weights from FILE
  taken     backbone: 120 tensors
  left out  fc: 2 tensors
  new       head: 2 tensors (head.weight is [2, 512], [1000, 512] in the file)"""


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def test_what_holds_no_weights_is_refused_and_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt holds no weights: keys epoch, loss"):
        read_weights(tmp_path / "a.pt")
    for number, harm in enumerate((nn.Linear(2, 2), {"state_dict": {"a": torch.ones(1)}, "args": Harmful()})):
        torch.save(harm, tmp_path / f"b{number}.pt")
        with pytest.raises(ValueError, match=rf"b{number}\.pt holds Python objects and not only weights"):
            read_weights(tmp_path / f"b{number}.pt")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_weights(tmp_path / "c.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_cut_cannot_be_read(tmp_path: Path, suffix: str) -> None:
    file, state = tmp_path / f"weights{suffix}", {"weight": torch.ones(1000)}
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot be read"):
        read_weights(file)
