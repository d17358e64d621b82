"""A run of segmentation: killed and resumed it computes the same, and an evaluation is the same on two ranks."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor, nn

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.data.demo.shapes import write_shapes
from drumbeat.launch.commands.main import main
from drumbeat.trainers.tasks import Segmentation
from tests.same_bits import assert_same_bits
from tests.tiny import drumbeat, latest

CONFIG = """
name: masks
batch_size: 4
micro_batch_size: 2
precision: fp32
model: {_target_: tests.trainers.test_segmentation_runs.TwoHeads, num_classes: from_data}
task: {_target_: tests.trainers.test_segmentation_runs.Killed, auxiliary: 0.4, file: never}
data:
  train: &set
    _target_: drumbeat.data.SegmentationFolder
    root: shapes/train
    classes: [ground, disc, square, triangle]
  validation: {<<: *set, root: shapes/val}
  transforms:
    train:
      - {_target_: torchvision.transforms.v2.RandomCrop, size: 48}
      - {_target_: torchvision.transforms.v2.RandomHorizontalFlip}
    batch: [{_target_: drumbeat.data.Normalize, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}]
  workers: 0
phases:
  train: {epochs: 2, optimizer: {_target_: torch.optim.SGD, lr: 0.05, momentum: 0.9}}
evaluation:
  batch_size: 2
  monitor: dice
  mode: max
  metrics:
    dice: {_target_: torchmetrics.classification.MulticlassF1Score, num_classes: 4, ignore_index: 255}
checkpoints: {every_steps: 2}
tracking: {every_steps: 2, images: 4}
launch: {gpus: 0, cpus_per_rank: 1}
"""


class TwoHeads(nn.Module):
    """Returns what torchvision's models return, from two convolutions."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head, self.aux = nn.Conv2d(8, num_classes, 1), nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.body(images)
        return {"out": self.head(found), "aux": self.aux(found)}


class Killed(Segmentation):
    """Segmentation in a rank that is killed when it computes its ninth training loss, if `file` does not exist yet."""

    def __init__(self, *, file: str, **options: Any) -> None:
        super().__init__(**options)
        self.file = Path(file)
        self.calls = 0

    def losses(self, outputs: Any, targets: Tensor) -> Tensor:
        self.calls += outputs["out"].requires_grad
        if self.calls == 9 and self.file.name != "never" and not self.file.exists():
            self.file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(outputs, targets)


def weights(run: RunDir) -> dict[str, Tensor]:
    newest = max((run.path / "checkpoints").glob("step-*"))
    return load_file(newest / "model.safetensors")


@pytest.mark.slow
def test_it_resumes_exactly_and_two_ranks_evaluate_the_same(tmp_path: Path) -> None:
    assert not any(write_shapes(tmp_path / "shapes", np.random.default_rng(0), (10, 7)))
    (tmp_path / "masks.yaml").write_text(CONFIG)
    drumbeat(tmp_path, "masks.yaml", "--procs", "1", "name=straight")
    drumbeat(tmp_path, "masks.yaml", "--procs", "1", f"task.file={tmp_path}/killed")
    straight, resumed = latest(tmp_path, "straight"), latest(tmp_path, "masks")
    assert (tmp_path / "killed").exists()
    assert len([*(resumed.path / "attempts").iterdir()]) == 2
    assert_same_bits(weights(resumed), weights(straight))
    found = []
    for ranks in ("1", "2"):
        assert main(["evaluate", str(resumed.path), "--split", "validation", "--procs", ranks]) == 0
        (folder,) = (resumed.path / "evaluation").iterdir()
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert {*found[0]} == {"metrics.json", "metrics.txt", "predictions.csv", "samples.safetensors",
                           "worst_samples.png"}
    assert found[0] == found[1]
    assert found[0]["predictions.csv"].startswith(b"sample,loss,accuracy,mean iou,iou of ground,iou of disc,")
    assert b"dice" in found[0]["metrics.txt"]
    assert {*Result.require(resumed.result).best} == {"step", "phase", "loss", "accuracy", "mean_iou", "dice"}
