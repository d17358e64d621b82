"""What a set tells about its samples: their names, and the groups to which they belong."""

from __future__ import annotations

from typing import Any


def sample_names(samples: Any) -> list[str] | None:
    """The name of each sample, [n], from `samples.names`; None if the set has no names. Raises `ValueError` as
    `sample_groups` does."""
    return _texts(samples, "names")


def sample_groups(samples: Any) -> list[str] | None:
    """The group of each sample, such as its patient, [n], from `samples.groups`: a method, or a sequence or array with
    a value for each sample. None if the set tells no groups. Raises `ValueError` if they are not as many as samples,
    and what the method raises."""
    return _texts(samples, "groups")


def told(samples: Any, what: str) -> Any:
    """What the set's method or attribute `what` tells; None if it has none."""
    value = getattr(samples, what, None)
    return value() if callable(value) else value


def _texts(samples: Any, what: str) -> list[str] | None:
    values = told(samples, what)
    if values is None:
        return None
    kind = type(samples).__name__
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ValueError(f"{what} of {kind} must be a value for each sample, not {values!r:.80}")
    texts = list(map(str, values))
    if hasattr(samples, "__len__") and len(texts) != len(samples):
        raise ValueError(f"{kind} has {len(samples)} samples, but {len(texts)} {what}")
    return texts
