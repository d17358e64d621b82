"""Parts of a model by name and by type."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from drumbeat.configs.errors import PreflightError
from drumbeat.trainers.model_and_task import ModelAndTask
from drumbeat.trainers.patterns import select, within


class Net(nn.Module):
    """Two blocks with BatchNorm, an embedding that is also the weight of the last layer, and a lone parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(2))
        self.embed = nn.Embedding(5, 3)
        self.last = nn.Linear(3, 5)
        self.last.weight = self.embed.weight
        self.scale = nn.Parameter(torch.ones(1))


def selected(*chosen: Any, model: nn.Module | None = None) -> tuple[list[str], list[str]]:
    """The names of the modules and of the parameters that are selected."""
    model = model or Net()
    found = select(model, chosen, "freeze")
    return ([name for name, module in model.named_modules() if module in found.modules],
            [name for name, parameter in model.named_parameters() if parameter in found.parameters])


ALL_OF_LAYER1 = ["layer1.0.weight", "layer1.0.bias", "layer1.1.weight", "layer1.1.bias"]


@pytest.mark.parametrize(("chosen", "modules", "parameters"), [
    (["layer1"], ["layer1"], ALL_OF_LAYER1),
    (["layer1.*"], ["layer1.0", "layer1.1"], ALL_OF_LAYER1),
    (["layer1.*.bias"], [], ["layer1.0.bias", "layer1.1.bias"]),
    (["scale", "layer?.1.weight"], [], ["scale", "layer1.1.weight", "layer2.1.weight"]),
    ([{"type": "torch.nn.BatchNorm1d"}], ["layer1.1", "layer2.1"],
     ["layer1.1.weight", "layer1.1.bias", "layer2.1.weight", "layer2.1.bias"]),
    ([{"type": "torch.nn.modules.batchnorm._BatchNorm"}, "layer1"], ["layer1", "layer1.1", "layer2.1"],
     [*ALL_OF_LAYER1, "layer2.1.weight", "layer2.1.bias"]),
    (["last"], ["last"], ["embed.weight", "last.bias"]),
])
def test_names_patterns_and_types(chosen: list[Any], modules: list[str], parameters: list[str]) -> None:
    """A weight that two modules share is selected with each of them."""
    found = selected(*chosen)
    assert (found[0], sorted(found[1])) == (modules, sorted(parameters))


def test_names_are_the_models_and_task_is_what_is_trained_of_the_task() -> None:
    task = nn.Linear(2, 1)
    both = ModelAndTask(Net(), task)
    assert selected("layer2.0.bias", "task", model=both) == (["task"], ["model.layer2.0.bias", "task.weight",
                                                                         "task.bias"])


@pytest.mark.parametrize(("one", "what", "fix"), [
    ("layer1x", "the model has no module 'layer1x'", "Did you mean 'layer1'?"),
    ("*.bais", r"no module or parameter of the model fits '\*.bais'", "Did you mean '*.bias'?"),
    ("zzz", "the model has no module 'zzz'", "Its modules are layer1, layer2, embed, last, scale"),
    ({"type": "torch.nn.BatchNorm2d"}, "no module of type torch.nn.BatchNorm2d", "Did you mean 'BatchNorm1d'?"),
    ({"type": "torch.nn.functional.relu"}, "is not a class of modules", "derived from torch.nn.Module"),
    ({"type": "torch.nn.BatchNorm9d"}, "has no 'BatchNorm9d'", "Did you mean 'BatchNorm"),
    ({"kind": "x"}, "neither a pattern nor a type", "{type: torch.nn.BatchNorm2d}"),
])
def test_what_selects_nothing_is_a_fault_with_the_nearest_name(one: Any, what: str, fix: str) -> None:
    with pytest.raises(PreflightError, match=what) as error:
        selected(one)
    assert fix in error.value.faults[0].remedy


def test_a_name_is_within_the_module_that_holds_it() -> None:
    assert within("backbone.conv1.weight", ["backbone"])
    assert within("backbone.conv1.weight", ["head", "*.conv?"])
    assert not within("backbone2.conv1.weight", ["backbone"])
