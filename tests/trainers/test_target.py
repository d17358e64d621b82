"""`_target_` to object, and what is said where that cannot be."""

from __future__ import annotations

import math

import pytest
import torch

from drumbeat.configs.errors import PreflightError
from drumbeat.trainers.target import function_at, instantiate, locate


def fault(node: object) -> str:
    with pytest.raises(PreflightError) as caught:
        instantiate(node, "model")
    return str(caught.value)


def test_nested_targets_and_lists_are_built() -> None:
    layers = [{"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}, {"_target_": "torch.nn.ReLU"}]
    made = instantiate({"_target_": "torch.nn.Sequential"}, "model", *instantiate(layers, "layers"))
    assert [type(layer).__name__ for layer in made] == ["Linear", "ReLU"]
    assert made[0].weight.shape == (2, 3)


def test_plain_values_stay_what_they_are() -> None:
    assert instantiate({"a": [1, {"b": None}]}, "x") == {"a": [1, {"b": None}]}


def test_a_misspelt_name_gets_the_nearest_one() -> None:
    text = fault({"_target_": "torch.nn.Liner"})
    assert "torch.nn has no 'Liner'" in text
    assert "Did you mean 'Linear'?" in text
    assert "model._target_" in text


def test_a_misspelt_argument_gets_the_nearest_one() -> None:
    text = fault({"_target_": "torch.nn.Linear", "in_features": 3, "out_feature": 2})
    assert "torch.nn.Linear has no argument 'out_feature'" in text
    assert "Did you mean 'out_features'?" in text
    assert "model.out_feature" in text


def test_a_missing_argument_is_named() -> None:
    assert "out_features" in fault({"_target_": "torch.nn.Linear", "in_features": 3})


def test_an_unknown_package_is_named() -> None:
    text = fault({"_target_": "torchvison.models.resnet18"})
    assert "there is no package 'torchvison' to import" in text
    assert "in the current folder, in PYTHONPATH, or installed" in " ".join(text.split())


def test_a_target_that_is_no_class_or_function() -> None:
    assert "torch.pi cannot be called" in fault({"_target_": "torch.pi"})


def test_a_function_with_the_name_of_its_module() -> None:
    assert callable(locate("torchvision.models.alexnet", "model"))


def test_a_module_is_no_target() -> None:
    text = fault({"_target_": "drumbeat.models.transfer"})
    assert "drumbeat.models.transfer cannot be called" in text
    assert "not a module" in text


@pytest.mark.parametrize("address", ["", None, "torch..Linear"])
def test_an_address_that_names_nothing(address: str | None) -> None:
    assert "this is not the address of a class or a function" in fault({"_target_": address})


def test_faults_of_several_arguments_are_told_together() -> None:
    text = fault({"_target_": "torch.nn.Sequential", "args": [
        {"_target_": "torch.nn.Liner"}, {"_target_": "torch.nn.Dropot"}]})
    assert "Did you mean 'Linear'?" in text
    assert "Did you mean 'Dropout'?" in text


def test_an_error_inside_a_target_keeps_its_words() -> None:
    text = fault({"_target_": "drumbeat.data.ImageFolder", "root": "/nowhere/at/all"})
    assert "the image folder /nowhere/at/all does not exist" in text


def test_a_text_in_place_of_a_number_is_named() -> None:
    """Not with the words of the comparison that failed in torch: '<=' not supported between instances."""
    with pytest.raises(PreflightError) as caught:
        instantiate({"_target_": "torch.optim.AdamW", "lr": "1e-2s"}, "phases.train.optimizer",
                    [torch.nn.Parameter(torch.zeros(1))])
    assert str(caught.value) == """\
error: phases.train.optimizer.lr must be a number
  where  phases.train.optimizer.lr
  given  lr: 1e-2s"""


def test_positional_arguments_reach_the_target() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = instantiate({"_target_": "torch.optim.SGD", "lr": 0.5}, "optimizer", [weight])
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_variables_are_read_where_the_object_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTPUTS", "2")
    node = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": "${oc.decode:${oc.env:OUTPUTS}}"}
    assert instantiate(node, "model").weight.shape == (2, 3)
    assert instantiate(["a ${oc.env:OUTPUTS}", "${other}"], "x") == ["a 2", "${other}"]
    monkeypatch.delenv("OUTPUTS")
    text = fault(node)
    assert "Environment variable 'OUTPUTS' not found" in " ".join(text.split())
    assert "model.out_features" in text


def test_an_error_does_not_name_a_secret() -> None:
    text = fault({"_target_": "torch.nn.ReLU", "api_key": "abc"})
    assert "torch.nn.ReLU has no argument 'api_key'" in text
    assert "***" in text and "abc" not in text


def test_a_function_that_lacks_values_is_not_called() -> None:
    loss = function_at({"_target_": "torchvision.ops.sigmoid_focal_loss", "gamma": 0.0, "alpha": -1}, "loss", lacks=2)
    assert loss is not None
    assert loss(torch.zeros(1), torch.ones(1)).tolist() == pytest.approx([math.log(2)])
    for node in ({"_target_": "torch.nn.CrossEntropyLoss"}, {"_target_": "math.sqrt"}, {"a": 1}, None,
                 {"_target_": "torchvision.ops.sigmoid_focal_loss", "gama": 2}):
        assert function_at(node, "loss", lacks=2) is None
