"""The output of the GPU benchmark: a table, or with --json one document with the figures and the machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 160
"""Width of the table in characters, in a pipe or a file."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measurement."""

    part: str
    name: str
    unit: str = ""
    ours: float | None = None
    """None if it could not be measured: `error` says why."""
    peer: float | None = None
    peer_name: str = ""
    limit: float | None = None
    """The limit of the hardware, if known."""
    limit_name: str = ""
    note: str = ""
    error: str = ""

    @property
    def ratio(self) -> float | None:
        """Above 1 if Drumbeat is better than the peer."""
        if not self.ours or not self.peer:
            return None
        return self.ours / self.peer if self.unit.endswith("/s") else self.peer / self.ours


def show(figures: Sequence[Figure], machine: dict[str, Any], *, as_json: bool) -> None:
    """Prints all figures."""
    if as_json:
        rows = [asdict(figure) | {"ratio": figure.ratio} for figure in figures]
        print(json.dumps({"machine": machine, "figures": rows}, indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False)
    console.print("\n".join(f"{name:<12}{value}" for name, value in machine.items()))
    table = Table("part", "what", "unit", "ours", "peer", "ratio", "limit", "note")
    for figure in figures:
        table.add_row(figure.part, figure.name, figure.unit, number(figure.ours),
                      f"{number(figure.peer)} {figure.peer_name}".strip(),
                      "" if figure.ratio is None else f"{figure.ratio:.2f}",
                      f"{number(figure.limit)} {figure.limit_name}".strip(),
                      f"error: {figure.error}" if figure.error else figure.note)
    console.print(table)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
