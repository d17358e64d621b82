"""Small synthetic datasets in the folders that the shipped configs read, and training of a config in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drumbeat.configs.load import ROOT, load, load_site
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.data.demo import sets as demo_sets
from drumbeat.launch.backends.debug import train as train_here
from drumbeat.launch.plan.job import Machine, plan_job
from drumbeat.trainers.commands.preflight import preflight

NOTHING_PRETRAINED = "initialize.weights=null"

def _imagenet(name: str, epochs: int) -> list[str]:
    """The whole recipe of a config for ImageNet, on images of 32 pixels, with enough epochs for the warm-up to end."""
    transforms = load(name).config.data.transforms
    small = {part: [one | {"size": 32} if "size" in one else one for one in getattr(transforms, part)]
             for part in ("train", "evaluate")}
    return ["data.root=datasets/hymenoptera_data", "batch_size=16", f"phases.train.epochs={epochs}",
            f"evaluation.every_epochs={epochs / 2}", "data.workers=0",
            *(f"data.transforms.{part}={json.dumps(ones)}" for part, ones in small.items())]


SMALL: dict[str, Sequence[str]] = {
    "resnet18_hymenoptera": [NOTHING_PRETRAINED, "phases.train.epochs=0.25"],
    "resnet18_hymenoptera_frozen": [NOTHING_PRETRAINED, "phases.train.epochs=0.25"],
    "resnet18_imagefolder": [NOTHING_PRETRAINED, "phases.train.epochs=0.25",
                             "data.root=datasets/hymenoptera_data"],
    "resnet50_imagenet": [*_imagenet("resnet50_imagenet", 6), "phases.train.average_every=4"],
    "vit_small": [*_imagenet("vit_small", 30),
                  "model={_target_: torchvision.models.VisionTransformer, image_size: 32, patch_size: 8, num_layers: 2,"
                  " num_heads: 2, hidden_dim: 32, mlp_dim: 64, num_classes: from_data}"],
    "cnn_cifar10": ["phases.train.epochs=0.2"],
    "cnn_cifar10_augmented": ["phases.train.epochs=0.2", "data.workers=0"],
    "mlp_fashion_mnist": ["phases.train.epochs=2"],
    "mlp_fashion_mnist_dropout": ["phases.train.epochs=2"],
    "lr_finder_fashion_mnist": ["phases.train.epochs=5"],
    "resnet18_fill_level": ["data.train.n=2", "data.validation.n=2"],
    "resnet18_fill_level_fast": ["data.train.n=32", "data.validation.n=20"],
    "lraspp_shapes": ["phases.train.epochs=1", "data.workers=0"],
    "lstm_news": ["phases.train.epochs=1", "batch_size=16"],
    "multilayer_lstm_news": ["phases.train.epochs=1", "batch_size=16", "model.hidden_size=32"],
    "bilstm_news": ["phases.train.epochs=1", "batch_size=16", "model.hidden_size=32"],
}
"""Shipped configs, each with the changes that make it train for a second or two."""


def write_sets(folder: Path) -> None:
    """Writes a few samples of each dataset below `folder`/datasets."""
    for name, make in {
        "cifar-10-batches-bin": lambda to: demo_sets._cifar10(to, (40, 40, 40, 40, 40, 30)),
        "fashion_mnist": lambda to: demo_sets._fashion_mnist(to, (300, 100)),
        "hymenoptera_data": lambda to: demo_sets._hymenoptera(to, (16, 6)),
        "news": lambda to: demo_sets._news(to, (60, 20)),
        "shapes": lambda to: demo_sets.write_shapes(to, demo_sets._random("shapes"), (16, 4)),
    }.items():
        to = folder / "datasets" / name
        to.mkdir(parents=True)
        assert all(nothing is None for nothing in make(to))  # type: ignore[no-untyped-call]


def train(config: Path | str, changes: Sequence[str], folder: Path) -> tuple[dict[str, Any], Result]:
    """Checks a config and trains it as --debug does. `folder` must be the current folder. Returns the facts of the
    check and the run's result."""
    file = ROOT / "configs" / f"{config}.yaml" if isinstance(config, str) else config
    loaded = load(file, [*changes, "launch.gpus=0", "tracking.images=2", "tracking.every_steps=1"])
    facts = preflight(loaded.config)
    run = RunDir.new(folder / "runs", loaded.config.name)
    plan = plan_job(loaded.config, run_dir=run.path, backend="debug", machine=Machine(cpus=1, one_rank=True),
                    site=load_site(None), folder=folder)
    run.path.mkdir(parents=True)
    write_text(run.config, loaded.as_yaml())
    plan.write(run.plan)
    train_here(plan)
    return facts, Result.require(run.result)
