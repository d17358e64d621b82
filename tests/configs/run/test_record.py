"""Records: a file is read back as it was written, and errors name the field."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run import files
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.record import Record
from tests.runs import AS_ANOTHER, shared_folder


@dataclass(frozen=True)
class Plain:
    """A dataclass that is no record."""

    size: int = 3
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Part(Record):
    """A record within a record."""

    number: int
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Sample(Record):
    """A record with a field of each kind."""

    text: str
    count: int = 1
    ratio: float = 0.25
    flag: bool = False
    state: Literal["on", "off"] = "on"
    maybe: int | None = None
    words: list[str] = field(default_factory=list)
    parts: tuple[Part, ...] = ()
    numbers: dict[str, float] = field(default_factory=dict)
    named: dict[str, Part] = field(default_factory=dict)
    anything: dict[str, Any] = field(default_factory=dict)
    plain: Plain = field(default_factory=Plain)
    part: Part | None = None


FULL = Sample(text="Grüße\n", count=-2, ratio=float("inf"), flag=True, state="off", maybe=0, words=["a", ""],
              parts=(Part(number=1), Part(number=2, share=1.0)), numbers={"x": 1.5}, named={"p": Part(number=3)},
              anything={"a": [1, {"b": None}]}, plain=Plain(size=4, name="y"), part=Part(number=5))


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("sample", [FULL, Sample(text="")], ids=["full", "defaults"])
def test_what_was_written_is_read_back(tmp_path: Path, sample: Sample) -> None:
    sample.write(tmp_path / "file.json")
    assert Sample.read(tmp_path / "file.json") == sample
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_what_is_not_there_is_nothing_or_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none", written(tmp_path, "{}") / "below"):
        assert Sample.read(path) is None
        with pytest.raises(DamagedError) as raised:
            Sample.require(path)
        assert (raised.value.path, raised.value.reason) == (path, "it is missing")


def test_fields_of_a_newer_version_are_kept_and_written_back(tmp_path: Path) -> None:
    path = written(tmp_path, '{"text": "x", "later": [1], "parts": [{"number": 1, "later": 2}]}')
    found = Sample.require(path)
    assert found == Sample(text="x", parts=(Part(number=1),))
    replace(found, count=7).write(path)
    assert json.loads(path.read_text()).items() >= {"text": "x", "later": [1], "count": 7}.items()
    assert json.loads(path.read_text())["parts"] == [{"later": 2, "number": 1, "share": 0.5}]


def test_a_whole_number_is_a_number_too() -> None:
    assert Sample.parse({"text": "", "ratio": 2, "numbers": {"x": 1}}) == Sample(text="", ratio=2, numbers={"x": 1})


@pytest.mark.parametrize(("wrong", "words"), [
    ({"text": None}, "'text' is null, not a text"),
    ({"count": 1.0}, "'count' is 1.0, not a whole number"),
    ({"count": True}, "'count' is true, not a whole number"),
    ({"ratio": "0.5"}, "'ratio' is \"0.5\", not a number"),
    ({"flag": 0}, "'flag' is 0, not true or false"),
    ({"state": "broken"}, "'state' is \"broken\", not one of on, off"),
    ({"state": ["on"]}, "'state' is [\"on\"], not one of on, off"),
    ({"maybe": "1"}, "'maybe' is \"1\", not a whole number"),
    ({"words": "ab"}, "'words' is \"ab\", not a list"),
    ({"words": ["a", 1]}, "'words[1]' is 1, not a text"),
    ({"parts": {}}, "'parts' is {}, not a list"),
    ({"parts": [{"number": 1}, {}]}, "'parts[1].number' is missing"),
    ({"parts": [7]}, "'parts[0]' is 7, not an object"),
    ({"numbers": []}, "'numbers' is [], not an object"),
    ({"named": {"p": {"number": "1"}}}, "'named.p.number' is \"1\", not a whole number"),
    ({"plain": {"size": "4"}}, "'plain.size' is \"4\", not a whole number"),
    ({"plain": 4}, "'plain' is 4, not an object"),
    ({"part": {"share": 1.0}}, "'part.number' is missing"),
    ({"part": []}, "'part' is [], not an object"),
    ({"count": "x" * 99}, f"'count' is \"{'x' * 39}, not a whole number"),
], ids=str)
def test_each_wrong_type_names_its_field(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    path = written(tmp_path, json.dumps({"text": ""} | wrong))
    with pytest.raises(DamagedError) as raised:
        Sample.read(path)
    assert raised.value.reason == words


def test_a_missing_field_is_reported() -> None:
    with pytest.raises(ValueError, match=r"^'text' is missing$"):
        Sample.parse({"count": 1})


@pytest.mark.parametrize(("content", "words"), [
    (b"[1]", "it contains a list, not an object"),
    (b'"text"', "it contains a text, not an object"),
    (b"null", "it contains null, not an object"),
    (b"", "it is not JSON (Expecting value: line 1 column 1 (char 0))"),
    (b'{"text": ', "it is not JSON (Expecting value: line 1 column 10 (char 9))"),
    (b'{"text": "\xff"}', "it is not JSON ('utf-8' codec can't decode byte 0xff in position 10: invalid start byte)"),
    (b"[" * 100_000, "it is not JSON (maximum recursion depth exceeded"),
], ids=["list", "text", "null", "empty", "half", "not UTF-8", "deep"])
def test_what_is_no_object_in_json_is_damaged(tmp_path: Path, content: bytes, words: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DamagedError) as raised:
        Sample.read(path)
    assert raised.value.reason.startswith(words)


def test_a_damaged_file_is_one_screen(tmp_path: Path) -> None:
    path = written(tmp_path, "[1]")
    with pytest.raises(RunError) as raised:
        Sample.read(path)
    assert str(raised.value) == (f"error: a file of the run cannot be read: it contains a list, not an object\n"
                                 f"  where  {path}\n"
                                 f"  fix    Restore it, or start a new run.")


def test_nothing_but_a_regular_file_is_read(tmp_path: Path) -> None:
    """Nor is it waited for: a pipe that nobody writes to would keep its reader for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(DamagedError) as raised:
            Sample.read(tmp_path / name)
        assert raised.value.reason == "it is not a regular file"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DamagedError, match="Too many levels of symbolic links"):
        Sample.read(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(DamagedError, match="No such device or address"):
            Sample.read(tmp_path / "socket")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, '{"text": "0123456789"}')
    monkeypatch.setattr(files, "MAX_BYTES", 22)
    assert Sample.read(path) == Sample(text="0123456789")
    monkeypatch.setattr(files, "MAX_BYTES", 21)
    with pytest.raises(DamagedError) as raised:
        Sample.read(path)
    assert raised.value.reason == "it is too large (22 bytes)"


READ = f"""
import sys
from pathlib import Path
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.records import Status
{AS_ANOTHER}
try:
    Status.read(Path(sys.argv[1]))
except DamagedError as error:
    print(error.reason)
"""


def test_a_file_that_only_its_owner_may_read() -> None:
    with shared_folder() as folder:
        path = written(folder, "{}")
        path.chmod(0o000)
        done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "Permission denied\n"


def test_where_a_disk_is_full_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file.json").mkdir()  # which nothing can be renamed to
    with pytest.raises(OSError, match="Is a directory"):
        Sample(text="").write(tmp_path / "file.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
