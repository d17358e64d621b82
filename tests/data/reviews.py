"""A small file of texts, and the expected results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from drumbeat.data.text import Texts

ROWS = [("r1", "The cat sat. The cat!", "pos"), ("r2", "a dog, a \"cat\"\nand the dog", "neg"), ("r3", "", "pos"),
        ("r4", "zebra", "neutral")]
"""Under min_frequency 2: the 3, cat 3, a 2, dog 2, and the quote, which occurs twice."""

NUMBERS = ["<pad>", "<unk>", "cat", "the", "\"", "a", "dog"]
IDS = [[3, 2, 1, 1, 3, 2, 1], [5, 6, 1, 5, 4, 2, 4, 1, 3, 6], [1], [1]]


def quote(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


def write(path: Path, rows: Sequence[tuple[str, ...]], heading: tuple[str, ...] = ("id", "text", "label")) -> str:
    if path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(dict(zip(heading, row, strict=True))) for row in rows))
    else:
        path.write_text("".join(",".join(map(quote, row)) + "\n" for row in [heading, *rows]))
    return str(path)


def rows_of(texts: Texts) -> list[list[int]]:
    return [texts[index][0][0].tolist() for index in range(len(texts))]


def same(one: tuple[tuple[Tensor, Tensor], Tensor], other: tuple[tuple[Tensor, Tensor], Tensor]) -> bool:
    return all(map(torch.equal, (*one[0], one[1]), (*other[0], other[1])))
