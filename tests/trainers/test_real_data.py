"""A shipped config on the real data set, against the figures that its source prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.configs.load import read
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.data.image_arrays import FASHION_CLASSES, FashionMNIST
from drumbeat.trainers.report.events import read_events
from drumbeat.trainers.report.reference import epochs
from tests.tiny import drumbeat, latest

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def fashion_mnist() -> Path:
    """The folder of the real set. Without it the test is skipped, or fails in CI."""
    if not FASHION_MNIST.is_dir():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"no {FASHION_MNIST}; on Debian or Ubuntu: sudo apt install dataset-fashion-mnist")
    return FASHION_MNIST


def test_the_files_of_the_package_are_read(fashion_mnist: Path) -> None:
    """60,000 images in ten classes of 6,000; the mean of all pixels is 0.2860, as the set's authors publish it."""
    samples = FashionMNIST(root=str(fashion_mnist))
    assert samples.images.shape == (60_000, 1, 28, 28)
    assert [int((samples.labels == number).sum()) for number in range(len(FASHION_CLASSES))] == [6000] * 10
    assert float(samples.images.float().mean()) / 255 == pytest.approx(0.2860, abs=5e-5)


@pytest.mark.slow
def test_fashion_mnist_has_the_losses_of_the_source(tmp_path: Path, fashion_mnist: Path) -> None:
    """Ten epochs of the real set, in less than a minute: each training loss is within 0.02 of the source's."""
    drumbeat(tmp_path, "mlp_fashion_mnist", f"data.root={fashion_mnist}", "data.validation={}", "--procs", "1",
             "launch.cpus_per_rank=1", "tracking.images=0")
    run = latest(tmp_path, "mlp_fashion_mnist")
    table = epochs(read(run.config), read_events(run.tensorboard), Progress(data={"samples": 60_000}))
    differences = {one.number: one.run["train/loss"] - one.source["train/loss"] for one in table}
    assert list(differences) == [*range(1, 11)]
    assert {number: round(value, 4) for number, value in differences.items() if abs(value) > 0.02} == {}
