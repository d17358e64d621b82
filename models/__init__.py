"""Models that take flat keyword arguments, so that a config, a notebook or a test can build them.

Its public names are imported from their modules when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drumbeat.models.cnn import CNN as CNN
    from drumbeat.models.lstm import LSTM as LSTM
    from drumbeat.models.mlp import MLP as MLP
    from drumbeat.models.transfer import ResNet18 as ResNet18
    from drumbeat.models.transfer import ResNet50ConcatPool as ResNet50ConcatPool

PUBLIC = {
    "CNN": "cnn",
    "LSTM": "lstm",
    "MLP": "mlp",
    "ResNet18": "transfer",
    "ResNet50ConcatPool": "transfer",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC]
