"""FLOPs of a model and memory of a rank, against numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from drumbeat.configs.load import load
from drumbeat.trainers.commands.flops_and_memory import Memory, first, memory, outputs_and_flops, size, tensors
from drumbeat.trainers.freezing import trainable
from tests.trainers.saved_runs import IMAGES, draw_images


def test_memory_by_hand(tmp_path: Path) -> None:
    """Linear, ReLU, Linear: autograd keeps the first layer's output (once, ReLU's result) and no more."""
    draw_images(tmp_path)
    (tmp_path / "saved.yaml").write_text(IMAGES.replace("ROOT", str(tmp_path)))
    phase = load(tmp_path / "saved.yaml").config.phases["only"]
    assert phase is not None
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    inputs = torch.randn(4, 10)
    needed = memory(model, trainable(model), phase, "only", inputs, torch.enable_grad(), 64)
    parameters = 4 * (10 * 20 + 20 + 20 * 5 + 5)
    assert (needed.weights, needed.gradients) == (parameters, parameters)
    assert needed.optimizer == 2 * parameters + 4 * 4  # Adam: two moments, and a counter for each tensor
    assert needed.activations == 64 * 4 * (20 + 10)
    assert outputs_and_flops(model, inputs) == ({"": [5], "0": [20], "1": [20], "2": [5]}, 2 * (10 * 20 + 20 * 5))


def test_activations_are_extrapolated_and_frozen_layers_need_no_gradient(tmp_path: Path) -> None:
    draw_images(tmp_path)
    (tmp_path / "saved.yaml").write_text(IMAGES.replace("ROOT", str(tmp_path)))
    phase = load(tmp_path / "saved.yaml", ["phases.only.freeze=['0']"]).config.phases["only"]
    assert phase is not None
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    needed = memory(model, trainable(model), phase, "only", torch.randn(4, 10), torch.enable_grad(), 8)
    last = 4 * (20 * 5 + 5)
    assert (needed.weights, needed.gradients, needed.optimizer) == (4 * (10 * 20 + 20) + last, last, 2 * last + 2 * 4)
    assert needed.activations == 8 * 4 * (20 + 10)
    exact = memory(model, trainable(model), phase, "only", torch.randn(4, 10), torch.enable_grad(), 8, exact=True)
    assert exact.gradients == last + 8 * (20 * 5 + 5)  # the sum of what is trained, in float64
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, True, True]


def test_the_total_is_the_sum_of_all_parts() -> None:
    assert Memory(weights=1, gradients=10, optimizer=100, activations=1000, average=10000).total == 11111


class Several(nn.Module):
    """Takes and returns several tensors."""

    def forward(self, a: Tensor, b: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return {"rows": (a @ torch.ones(3, 2), b)}


def test_inputs_and_outputs_of_several_tensors() -> None:
    """A product of [1, 3] and [3, 2] is 2 * 3 * 2 operations for each sample."""
    inputs = {"a": torch.ones(6, 3), "b": torch.ones(6, 1, dtype=torch.uint8)}
    assert outputs_and_flops(Several(), inputs) == ({"": [2]}, 2 * 3 * 2)
    assert size(inputs) == 6 * 3 * 4 + 6
    assert [list(one.shape) for one in tensors(first((inputs, inputs["a"]), 2))] == [[2, 3], [2, 1], [2, 3]]
    assert tensors({"a": ["text", None]}) == []
