"""Datasets, and the order in which a run reads their samples.

Its public names are imported from their modules when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drumbeat.data.image_arrays import CIFAR10 as CIFAR10
    from drumbeat.data.image_arrays import FashionMNIST as FashionMNIST
    from drumbeat.data.image_table import ImageTable as ImageTable
    from drumbeat.data.images import ImageFolder as ImageFolder
    from drumbeat.data.images import Normalize as Normalize
    from drumbeat.data.mixing import CutMix as CutMix
    from drumbeat.data.mixing import Mixup as Mixup
    from drumbeat.data.mixing import RandomMix as RandomMix
    from drumbeat.data.regression import FillLevel as FillLevel
    from drumbeat.data.repeated import Repeated as Repeated
    from drumbeat.data.sampling import ClassBalanced as ClassBalanced
    from drumbeat.data.sampling import Weighted as Weighted
    from drumbeat.data.segmentation import SegmentationFolder as SegmentationFolder
    from drumbeat.data.splits import Split as Split
    from drumbeat.data.structure import collate as collate
    from drumbeat.data.text import Texts as Texts
    from drumbeat.data.vocabulary import Vocabulary as Vocabulary
    from drumbeat.data.vocabulary import glove as glove

PUBLIC = {
    "CIFAR10": "image_arrays",
    "ClassBalanced": "sampling",
    "CutMix": "mixing",
    "FashionMNIST": "image_arrays",
    "FillLevel": "regression",
    "ImageFolder": "images",
    "ImageTable": "image_table",
    "Mixup": "mixing",
    "Normalize": "images",
    "RandomMix": "mixing",
    "Repeated": "repeated",
    "SegmentationFolder": "segmentation",
    "Split": "splits",
    "Texts": "text",
    "Weighted": "sampling",
    "Vocabulary": "vocabulary",
    "collate": "structure",
    "glove": "vocabulary",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC]
