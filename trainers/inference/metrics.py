"""The metrics of an evaluated set as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drumbeat.configs.run.checkpoint_records import Metrics
from drumbeat.configs.text_table import aligned

MOST = 30
"""The number of classes in the printed table; the file contains all."""
RANKED = {"classification": (1, "accuracy"), "multilabel": (1, "accuracy"), "regression": (-1, "mae")}
"""The metric that ranks the rows of a table, and 1 if its lowest values are the worst; other tables are ranked by their
first number, of which the lowest is the worst."""


def as_text(found: Metrics, *, most: int | None = MOST) -> str:
    """The metrics as lines of at most 80 columns. If there are more than `most` classes, the worst of them."""
    metrics = [(name.replace("_", " "), _number(value)) for name, value in found.metrics.items()]
    lines = aligned(metrics)
    rows = found.classes
    if most is not None and len(rows) > most:
        sign, worst = RANKED.get(found.kind) or (1, next(name for name in rows[0] if name != "name"))
        lines += ["", f"the {most} worst of {len(rows)}"]
        rows = sorted((row for row in rows if row[worst] is not None), key=lambda row: sign * row[worst])[:most]
    if not rows:
        return "\n".join(lines)
    return "\n".join([*lines, "", *_table(found.kind, rows)])


def _table(kind: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    if kind == "other":
        columns = [name for name in rows[0] if name != "name"]
        cells = [["class", *(name.replace("_", " ") for name in columns)]]
        cells += [[row["name"], *(_cell(row[name]) for name in columns)] for row in rows]
    elif kind == "regression":
        columns = ["mae", "rmse", "largest_error", "mean_error", "r2", "correlation"]
        cells = [["value", *(name.replace("_", " ") for name in columns)]]
        cells += [[row["name"], *(_number(row[name]) for name in columns)] for row in rows]
    else:
        columns = ["precision", "recall", "f1", "auroc"]
        cells = [["class" if kind == "classification" else "label", "correct", *columns]]
        cells += [[row["name"], _correct(row), *(_number(row[name]) for name in columns)] for row in rows]
    cells = [[_shortened(line[0]), *line[1:]] for line in cells]
    return aligned(cells, right=range(1 if kind in ("regression", "other") else 2, len(cells[0])))


def _cell(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) else _number(value)


def _correct(row: dict[str, Any]) -> str:
    """How many samples of a class were predicted correctly: 82% (826/1000)."""
    correct, samples = row["correct"], row["samples"]
    return f"{correct / samples:.0%} ({correct}/{samples})" if samples else "no sample"


def _shortened(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[:most - 3]}..."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"
