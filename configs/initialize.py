"""The section `initialize` of a config: the weights that a new run starts from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAMED = re.compile(r"hf://.+|\w+_Weights\.[A-Z][A-Z0-9_]*")
"""Weights that are named by a library: a repository of the Hugging Face Hub, or a member of one of torchvision's
enumerations."""


@dataclass(frozen=True, kw_only=True)
class Initialize:
    """The weights that a new run starts from. A run that resumes has its own, and does not need them."""

    weights: str | None = None
    """Where they are: a run (its best checkpoint), a folder with a model.safetensors, such as a checkpoint, a file
    (.safetensors, .pth, .pt, .ckpt, .bin), one of torchvision's (ResNet50_Weights.IMAGENET1K_V2), or of the Hugging
    Face Hub, where timm's are, too (hf://timm/resnet18.a1_in1k). Null for random weights."""
    only: list[str] = field(default_factory=list)
    """Parts of the model that get weights, by name or pattern: backbone, layer1.*. All others stay random. Empty for
    all."""
    rename: dict[str, str] = field(default_factory=dict)
    """Names in the file, or the beginnings of names, and what the model calls them: {encoder: backbone}. A * stands for
    the same text in both: {"layer.*.query": "blocks.*.q"}. The prefixes of wrappers are removed without it."""
    strict: bool = False
    """Whether each weight of the model, or of `only`, must be taken. Otherwise what does not fit stays random."""


def is_named(weights: str) -> bool:
    """Whether a library knows these weights by a name."""
    return bool(NAMED.fullmatch(weights))
