"""Every error message that the code can show, read from its source: what is wrong, and what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("launch", "configs", "trainers", "data", "models")
UNKNOWN = "…"
"""Stands for what is only known when the message is shown."""
CALLS = {"nearest": "The nearest valid name, or all valid ones.", "command": f"drumbeat {UNKNOWN} RUN"}
"""What calls in a message stand for."""


def errors(package: str) -> list[tuple[str, str]]:
    """What is wrong, and what to do, of each message in a package, sorted and each once."""
    found = {pair for file in sorted((ROOT / package).rglob("*.py")) for pair in _in_file(file)}
    return sorted(found, key=lambda pair: (pair[0].lower().strip("'"), pair))


def _in_file(file: Path) -> Iterator[tuple[str, str]]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Fault":
            parts = {keyword.arg: keyword.value for keyword in node.keywords}
            fixes = _texts(parts["remedy"]) if "remedy" in parts else [""]
            for what in _texts(parts["what"]) if "what" in parts else ():
                if re.search(r"\w", what.replace(UNKNOWN, "")):
                    yield what, " Or: ".join(fix for fix in fixes if fix.strip(f"{UNKNOWN} "))


def _texts(node: ast.expr) -> list[str]:
    """The texts that an expression may come to."""
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    if isinstance(node, ast.Constant):
        return [str(node.value).replace("\n", " ")]
    if isinstance(node, ast.JoinedStr):
        parts = [_piece(part) for part in node.values]
        return [re.sub(rf"{UNKNOWN}+", UNKNOWN, "".join(parts)).replace("\n", " ")]
    return [_piece(node)]


def _piece(node: ast.expr) -> str:
    """A part of a text: itself, or what stands for it. `'s' * (count != 1)` is a plural."""
    if isinstance(node, ast.FormattedValue):
        return _piece(node.value)
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant):
        return str(node.left.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return CALLS.get(node.func.id, UNKNOWN)
    return UNKNOWN
