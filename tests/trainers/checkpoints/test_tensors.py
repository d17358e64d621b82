"""The tensors of a checkpoint that may be anybody's."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from drumbeat.configs.errors import RunError
from drumbeat.trainers.checkpoints.tensors import read_tensors

GOOD: dict[str, Any] = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def write(file: Path, header: Any, length: int | None = None, content: bytes = bytes(8)) -> Path:
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + content)
    return file


def test_tensors_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1.0, 2.0])}, tmp_path / "x.safetensors")
    assert read_tensors(tmp_path / "x.safetensors")["a"].tolist() == [1.0, 2.0]
    assert read_tensors(write(tmp_path / "y.safetensors", GOOD))["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("header", "length"), [
    (GOOD, 2**63), (GOOD, 2**40), (GOOD, 3), ([], None), ({"a": 1}, None),
    ({"a": {**GOOD["a"], "dtype": "X"}}, None), ({"a": {**GOOD["a"], "shape": [2**62, 2**62]}}, None),
    ({"a": {**GOOD["a"], "data_offsets": [0, 2**40]}}, None), ({"a": {**GOOD["a"], "data_offsets": [8, 0]}}, None),
    ({"a": GOOD["a"], "b": GOOD["a"]}, None), ({"a": {**GOOD["a"], "data_offsets": [4, 12]}}, None),
], ids=["length", "large", "short", "list", "number", "type", "shape", "claim", "order", "overlap", "gap"])
def test_a_hostile_header_is_an_error(header: Any, length: int | None, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the tensors cannot be read"):
        read_tensors(write(tmp_path / "x.safetensors", header, length))


@pytest.mark.parametrize("kind", ["missing", "pipe", "folder", "empty"])
def test_what_is_no_file_is_an_error(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    {"missing": lambda: None, "pipe": lambda: os.mkfifo(file), "folder": file.mkdir, "empty": file.touch}[kind]()
    with pytest.raises(RunError, match="the tensors cannot be read"):
        read_tensors(file)
