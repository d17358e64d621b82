"""Losses with parameters of their own are trained, synchronized, saved and resumed with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from drumbeat.configs.run.records import Result
from drumbeat.launch.commands.main import main
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.checkpoints.tensors import read_tensors
from drumbeat.trainers.commands.export import export
from drumbeat.trainers.model_and_task import ModelAndTask, modules_of, on_host, parts_of, with_task, without_task
from drumbeat.trainers.tasks import Classification, Task
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.tiny import Fuse, drumbeat, latest, write_config
from tests.trainers.fake_gpu import FakeGpu, gpu
from tests.trainers.in_process import attempted, new_run
from tests.trainers.one_step import assert_same, step, torchs

__all__ = ["gpu"]

N = 7
POINTS = torch.randn(N, 6, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 1, 0, 1, 1, 0, 1])


class ArcFace(nn.Module):
    """Deng et al., "ArcFace", 2019: the cosine to a learnt center of each class, with a margin for the target."""

    def __init__(self, *, features: int, classes: int, margin: float = 0.1, scale: float = 4.0,
                 reduction: str = "mean") -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(classes, features))
        self.margin, self.scale, self.reduction = margin, scale, reduction

    def logits(self, embeddings: Tensor) -> Tensor:
        return functional.normalize(embeddings, dim=1) @ functional.normalize(self.centers, dim=1).T

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        cosines = self.logits(embeddings) - self.margin * functional.one_hot(targets, len(self.centers))
        return functional.cross_entropy(self.scale * cosines, targets, reduction=self.reduction)


class Faces(Classification):
    """The model returns embeddings, and the loss knows the classes."""

    def predictions(self, outputs: Tensor) -> Tensor:
        return self.loss.logits(outputs).argmax(1)  # type: ignore[attr-defined, no-any-return]

    def probabilities(self, outputs: Tensor) -> Tensor:
        return self.loss.logits(outputs).softmax(1)  # type: ignore[attr-defined, no-any-return]


class Fused(Faces, Fuse):
    """The same, killed at a step."""


def model_of() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 4)


def task_of() -> Faces:
    torch.manual_seed(5)
    return Faces(loss=ArcFace(features=4, classes=2))


def expected() -> Any:
    model, loss = model_of(), ArcFace(features=4, classes=2)
    loss.load_state_dict(task_of().loss.state_dict())  # type: ignore[attr-defined]
    named = {"weight": model.weight, "bias": model.bias, "task:loss.centers": loss.centers}
    return torchs(lambda: loss(model(POINTS), CLASSES), named)


@pytest.mark.parametrize("largest", [None, 1, 3])
def test_the_gradients_are_torchs(largest: int | None) -> None:
    assert_same([step(model_of(), task_of(), POINTS, CLASSES, N, largest=largest)], expected())


def rank(world: World, folder: str) -> None:
    torch.save([step(model_of(), task_of(), POINTS, CLASSES, N, world=world, largest=largest) for largest in (None, 2)],
               Path(folder, str(world.rank)))


@pytest.mark.slow
def test_on_several_ranks(tmp_path: Path) -> None:
    on_ranks(3, rank, tmp_path)
    for steps in zip(*(torch.load(tmp_path / str(rank)) for rank in range(3)), strict=True):
        assert_same(list(steps), expected())
        assert all(torch.equal(one[1]["task:loss.centers"], steps[0][1]["task:loss.centers"]) for one in steps)


class Weighted(nn.Module):
    """A task that is a module, with a learnt weight."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))


class Attribute:
    def __init__(self, value: Any) -> None:
        self.first = self.second = value


@pytest.mark.parametrize(("task", "names"), [
    (Classification(), None),
    (Classification(loss=nn.CrossEntropyLoss(weight=torch.ones(2))), None),
    (Weighted(), ["task:log_variance"]),
    (Attribute(nn.Parameter(torch.ones(2))), ["task:first"]),
    (Attribute(nn.Linear(1, 1)), ["task:first.weight", "task:first.bias"]),
    (Attribute(nn.BatchNorm1d(1, affine=False)), ["task:first.running_mean", "task:first.running_var",
                                                  "task:first.num_batches_tracked"]),
])
def test_what_is_trained_of_a_task(task: Any, names: list[str] | None) -> None:
    """Torch's losses have constant buffers, and no state."""
    model = nn.Sequential(nn.Linear(2, 2))
    both = with_task(model, task)
    if names is None:
        assert both is model
        return
    assert isinstance(both, ModelAndTask)
    assert list(both.state_dict()) == ["0.weight", "0.bias", *names]
    assert list(without_task(both.state_dict())) == ["0.weight", "0.bias"]
    assert modules_of(both)["0"] is model[0] and modules_of(both)["task"] is both.task
    doubled = {name: 2 * value for name, value in both.state_dict().items()}
    both.load_state_dict(doubled)
    assert all(torch.equal(value, doubled[name]) for name, value in both.state_dict().items())
    assert both(torch.ones(1, 2)).shape == (1, 2)


def test_what_moves_the_parts_of_a_task_moves_the_task() -> None:
    task: Task = Attribute(nn.Parameter(torch.ones(2)))  # type: ignore[assignment]
    parts_of(task).to(torch.float64)
    assert task.first.dtype == torch.float64  # type: ignore[attr-defined]


def test_results_are_read_with_the_parts_of_a_task_on_the_cpu(gpu: FakeGpu) -> None:
    """The task itself stays where the next training step needs it, and nothing is copied on a CPU."""
    task = task_of()
    assert on_host(task) is task
    gpu.place(parts_of(task))
    with gpu.watched():
        with pytest.raises(RuntimeError, match="at least two devices, cpu and cuda:0"):
            task.predictions(torch.zeros(5, 4))
        host = on_host(task)
        assert host.predictions(torch.zeros(5, 4)).device.type == "cpu"
    assert {one.device.type for one in parts_of(task).parameters()} == {"cuda"}


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layer(pictures.flatten(1))  # type: ignore[no-any-return]


HERE = "tests.trainers.test_model_and_task"


@pytest.mark.slow
@pytest.mark.usefixtures("warm_programs")
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    """On two ranks; and the centers are evaluated, and are not exported with the model."""
    changes = [f"model={{_target_: {HERE}.Embedding}}", "phases.head.freeze=[]", "phases.finetune.freeze=[task]"]
    loss = f"loss: {{_target_: {HERE}.ArcFace, features: 4, classes: 2}}"
    digests, metrics = [], []
    for name in ("straight", "resumed"):
        folder = tmp_path / name
        folder.mkdir()
        config = str(write_config(folder))
        fuse = folder / "fuse"
        fuse.mkdir()
        task = f"Fused, folder: {fuse}, at: [10]" if name == "resumed" else "Faces"
        drumbeat(folder, config, "--procs", "2", *changes, f"task={{_target_: {HERE}.{task}, {loss}}}")
        run = latest(folder)
        result = Result.require(run.result)
        digests.append(result.weights_sha256)
        metrics.append(result.test)
        assert run.newest_attempt().number == (name == "resumed")  # type: ignore[union-attr]
    assert digests[0] == digests[1] and metrics[0] == metrics[1]
    saved = read_tensors(run.checkpoints / "last" / "model.safetensors")
    assert list(saved) == ["layer.bias", "layer.weight", "task:loss.centers"]
    reports = []
    for ranks in ("1", "2"):  # predictions and probabilities are computed with the trained centers
        assert main(["evaluate", str(run.path), "--checkpoint", "last", "--procs", ranks]) == 0
        (folder,) = (run.path / "evaluation").iterdir()
        reports.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert {"metrics.json", "predictions.csv", "roc.png"} <= reports[0].keys()
    assert reports[0] == reports[1]
    export(run, tmp_path / "model.pt", "last")
    export(run, tmp_path / "model.safetensors", "last")
    assert sorted(torch.load(tmp_path / "model.pt")) == sorted(read_tensors(tmp_path / "model.safetensors")) == [
        "layer.bias", "layer.weight"]


class Annealed(nn.CrossEntropyLoss):
    """Counts its calls, and weighs the loss by them; nothing in it is a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def get_extra_state(self) -> list[int]:
        return self.calls

    def set_extra_state(self, state: list[int]) -> None:
        self.calls = [*state]

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls.append(len(self.calls))
        return super().forward(outputs, targets) * 0.9 ** len(self.calls)


def test_extra_state_of_a_loss_is_saved_and_resumed(tmp_path: Path) -> None:
    changes = ["task.loss={_target_: tests.trainers.test_model_and_task.Annealed}"]
    straight, losses = attempted(new_run(tmp_path / "straight"), None, changes)
    run = new_run(tmp_path / "stopped")
    _, before = attempted(run, 5, changes)
    resumed, after = attempted(run, None, changes)
    assert before + after == losses
    assert weights_sha256(resumed.model.state_dict()) == weights_sha256(straight.model.state_dict())
