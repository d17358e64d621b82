"""The output of every benchmark: a table, or with --json a list of {name, unit, ours, peer, peer_name, ratio}."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. `ratio` is above 1 if ours is better."""

    name: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float


def show(rows: Sequence[Row], *, as_json: bool, limit: str) -> None:
    """Prints the rows. `limit` is the best possible result, for comparison."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table("benchmark", "unit", "Drumbeat", "peer", "name of the peer", "ratio")
    for row in rows:
        table.add_row(row.name, row.unit, f"{row.ours:.4g}", f"{row.peer:.4g}", row.peer_name, f"{row.ratio:.2f}")
    Console().print(table)
    print(limit)
