"""Packed strings: the same strings in little memory, which forked processes share."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from drumbeat.data.packed import PackedStrings

STRINGS = ["cat/a.jpg", "", "dog/ü 日本 🐕.png", os.fsdecode(b"no text \xff\xfe.png"), "a\nb\0c"]


def private_memory() -> int:
    """Bytes of this process that no other process shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))


def test_the_same_strings_in_order() -> None:
    packed = PackedStrings(iter(STRINGS))
    assert list(packed) == STRINGS
    assert len(packed) == 5
    assert [packed[number] for number in range(-5, 5)] == STRINGS * 2
    assert packed.index("") == 1
    assert "cat/b.jpg" not in packed
    assert list(reversed(packed)) == STRINGS[::-1]


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), slice(-2, None), slice(None, None, -1), slice(4, 0, -2),
                                  slice(2, 99), slice(9, 12)])
def test_slices_are_those_of_a_list(part: slice) -> None:
    assert PackedStrings(STRINGS)[part] == STRINGS[part]


@pytest.mark.parametrize("number", [5, -6, 10**12])
def test_other_indices_raise(number: int) -> None:
    with pytest.raises(IndexError):
        PackedStrings(STRINGS)[number]


def test_names_that_are_not_utf_8_open_their_files(tmp_path: Path) -> None:
    name = b"\xff\xe9 \xed\xa0\x80.png"
    (tmp_path / os.fsdecode(name)).write_text("found")
    packed = PackedStrings(os.listdir(tmp_path))
    assert os.fsencode(packed[0]) == name
    assert (tmp_path / packed[0]).read_text() == "found"


def test_an_empty_list() -> None:
    assert list(PackedStrings([])) == []
    assert PackedStrings([])[:] == []
    assert PackedStrings([""])[0] == ""


@pytest.fixture(scope="module")
def million() -> PackedStrings:
    """A million strings of 16 bytes."""
    return PackedStrings(f"class/{number:06}.png" for number in range(1_000_000))


def test_a_million_takes_its_bytes_and_eight_more_each(million: PackedStrings) -> None:
    assert million.nbytes == 24 * 1_000_000 + 8
    tracemalloc.start()
    again = PackedStrings(million[:1000])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 24 * 1000 + 5_000
    assert again[-1] == "class/000999.png"


def test_a_forked_process_that_reads_a_million_hardly_grows(million: PackedStrings) -> None:
    """A list of them would be copied page by page: about 90 MB."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            million[0]  # what the first string takes, the others take again
            before = private_memory()
            length = sum(len(text) for text in million)
            os.write(writer, f"{private_memory() - before} {length}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        grown, length = map(int, pipe.read().split())
    assert os.waitpid(child, 0)[1] == 0
    assert length == 16_000_000
    assert grown < 3_000_000
