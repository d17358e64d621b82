"""Files that a dataset keeps open, and loader workers would share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.commands.preflight import preflight
from tests.tiny import Pictures, write_config

HERE = "tests.trainers.commands.test_open_files"
BYTES = 64
"""Of a picture."""


class Opened:
    """Pictures one behind the other in a file that is open all the time, read at its position or by `pread`."""

    classes = ("bottom", "top")

    def __init__(self, *, file: str, moves: bool) -> None:
        self.file = Path(file).open("rb", buffering=0)  # noqa: SIM115
        self.moves = moves

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()

    def __len__(self) -> int:
        return os.fstat(self.file.fileno()).st_size // BYTES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.moves:
            self.file.seek(index * BYTES)
            raw = self.file.read(BYTES)
        else:
            raw = os.pread(self.file.fileno(), BYTES, index * BYTES)
        return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(1, 8, 8), index % 2


class Lazily(Opened):
    """Opens the file when the first sample is read."""

    def __init__(self, *, file: str) -> None:
        self.path = Path(file)

    def __len__(self) -> int:
        return self.path.stat().st_size // BYTES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not hasattr(self, "file"):
            super().__init__(file=str(self.path), moves=True)
        return super().__getitem__(index)


class Mapped:
    """As `Opened`, memory-mapped."""

    classes = ("bottom", "top")

    def __init__(self, *, file: str) -> None:
        self.pictures = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, 1, 8, 8)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.array(self.pictures[index])), index % 2


def checked(folder: Path, name: str, workers: str = "2", **arguments: Any) -> tuple[Path, dict[str, Any]]:
    """The file of pictures, and the result of the preflight check with a training set of this class."""
    file = folder / "pictures.bin"
    file.write_bytes(b"".join(Pictures(n=40)[index][0].numpy().tobytes() for index in range(40)))
    given = ", ".join(f"{key}: {value}" for key, value in {"file": file, **arguments}.items())
    config = load(write_config(folder), [f"data.workers={workers}", f"data.train={{_target_: {HERE}.{name}, {given}}}"])
    return file, preflight(config.config)


def test_a_file_whose_position_the_workers_would_share(tmp_path: Path) -> None:
    with pytest.raises(PreflightError) as caught:
        checked(tmp_path, "Opened", moves="true")
    (fault,) = caught.value.faults
    assert fault.given == str(tmp_path / "pictures.bin")
    assert fault.what.startswith("a dataset reads from a file that it has opened before the loader's workers start")


def test_without_workers_an_open_file_is_shared_by_nobody(tmp_path: Path) -> None:
    assert checked(tmp_path, "Opened", workers="0", moves="true")[1]["notes"] == []


def test_an_open_file_that_is_not_read_at_its_position(tmp_path: Path) -> None:
    file, facts = checked(tmp_path, "Opened", moves="false")
    assert facts["notes"] == [f"a dataset keeps {file} open, which the loader's workers will share: that is safe only "
                              "if they do not read it at its position"]


@pytest.mark.parametrize("name", ["Lazily", "Mapped"])
def test_files_that_are_opened_in_each_process_or_mapped(tmp_path: Path, name: str) -> None:
    assert checked(tmp_path, name)[1]["notes"] == []
