"""SLURM's abbreviation for the names of many nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

MOST_NODES = 10_000
"""No job has more nodes."""


def node_names(text: str) -> list[str]:
    """The nodes of a job from SLURM's abbreviation: `n[1-2,07],gpu3` is n1, n2, n07 and gpu3. Raises `ValueError` for
    any other text, and for more than `MOST_NODES` nodes."""
    try:
        names = list(islice(_node_names(text), MOST_NODES + 1))
    except (ValueError, RecursionError):
        raise ValueError(f"not a list of nodes: {text[:200]}") from None
    if len(names) > MOST_NODES:
        raise ValueError(f"a list of more than {MOST_NODES:,} nodes: {text[:200]}")
    return names


def _node_names(text: str) -> Iterator[str]:
    if text.count("[") != text.count("]"):
        raise ValueError
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        if (bracket := re.search(r"\[([^\]]*)\]", part)) is None:
            yield part
            continue
        for numbers in bracket[1].split(","):
            first, _, last = numbers.partition("-")
            for number in range(int(first), int(last or first) + 1):
                name = f"{part[:bracket.start()]}{number:0{len(first)}d}{part[bracket.end():]}"
                yield from _node_names(name)  # there may be a second bracket
