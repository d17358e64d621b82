"""Which sets a loader reads as pixels, and so without PIL."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from drumbeat.data.cache import Pixels


@runtime_checkable
class HasPixels(Protocol):
    """A dataset of images that does not need PIL: pixels uint8 or uint16, [H, W] or [H, W, 3], and targets by index."""

    def pixels(self, index: int, /) -> Pixels: ...

    def target(self, index: int, /) -> Any: ...


@runtime_checkable
class OnPixels(Protocol):
    """A transform that does not need PIL."""

    def pixels(self, pixels: Pixels, /) -> Pixels: ...


def has_pixels(samples: Any) -> bool:
    """Whether each sample is its `pixels` and its `target`. It is not if a subclass of the class that defines `pixels`
    has a `__getitem__` of its own."""
    for one in (samples, *type(samples).__mro__) if isinstance(samples, HasPixels) else ():
        own = getattr(one, "__dict__", {})
        if "pixels" in own or "__getitem__" in own:
            return "pixels" in own
    return False
