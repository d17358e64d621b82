"""The output of every benchmark: a table, or with --json one document {rows, limit}."""

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
    wanted: float | None = None
    """The smallest ratio that is good enough. None: the row has no such bound."""

    @property
    def missed(self) -> bool:
        """Whether the ratio is worse than wanted."""
        return self.wanted is not None and self.ratio < self.wanted


def show(rows: Sequence[Row], *, as_json: bool, limit: str) -> None:
    """Prints the rows. `limit` is the best possible result, for comparison."""
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "limit": limit}, indent=2))
        return
    table = Table("benchmark", "unit", "Drumbeat", "peer", "name of the peer", "ratio", "wanted")
    for row in rows:
        table.add_row(row.name, row.unit, f"{row.ours:.4g}", f"{row.peer:.4g}", row.peer_name, f"{row.ratio:.3g}",
                      wanted(row))
    Console().print(table)
    print(limit)


def wanted(row: Row) -> str:
    """The wanted ratio as text, with a mark if it is missed; empty if there is none."""
    return "" if row.wanted is None else f">= {row.wanted:.2f}{' (missed)' if row.missed else ''}"
