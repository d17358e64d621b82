"""Any bytes as a file of a run: a value or a `RunError`, for that run alone."""

from __future__ import annotations

import json
import struct
import typing
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

import drumbeat.configs.run.checkpoint_records
import drumbeat.configs.run.plan
import drumbeat.configs.run.records
import drumbeat.configs.run.versions  # noqa: F401  (their records are found below)
from drumbeat.configs.errors import RunError
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.checkpoint_records import Manifest
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import damage, progress_at, written_format
from drumbeat.configs.run.record import Record
from drumbeat.launch.attempts.cause import cause
from drumbeat.launch.attempts.hang import find_hang
from drumbeat.launch.attempts.meanings import abort_message
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.logs import Tail
from drumbeat.trainers.checkpoints.tensors import read_tensors
from tests.fuzz.inputs import JSON, damaged, texts_of
from tests.runs import write_heartbeat, write_job, write_plan, write_state

pytestmark = pytest.mark.fuzz

Folders = pytest.TempPathFactory


def records(base: type[Record] = Record) -> list[type[Record]]:
    """All records, by name."""
    found = [one for kind in base.__subclasses__() for one in (kind, *records(kind))]
    return sorted(set(found), key=lambda kind: kind.__name__)


@st.composite
def values_of(draw: st.DrawFn, kind: type[Record]) -> dict[str, Any]:
    """An object with some of a record's fields, and any values in them, some of the right type."""
    found = draw(st.dictionaries(st.text(max_size=4), JSON, max_size=2))
    for name, wanted in typing.get_type_hints(kind).items():
        if draw(st.integers(0, 9)):
            simple = {str: st.text(max_size=4), int: st.integers(), float: st.floats(), bool: st.booleans()}.get(wanted)
            found[name] = draw(simple if simple is not None and draw(st.integers(0, 9)) else JSON)
    return found


@given(st.sampled_from(records()).flatmap(lambda kind: st.tuples(st.just(kind), values_of(kind) | JSON)), st.booleans())
def test_any_json_as_a_record(tmp_path_factory: Folders, case: tuple[type[Record], Any], cut: bool) -> None:
    kind, value = case
    file = tmp_path_factory.getbasetemp() / "record.json"
    text = json.dumps(value)
    file.write_text(text[:-1] if cut else text)
    with suppress(RunError):
        found = kind.require(file)
        assert repr(kind.parse(json.loads(json.dumps(found.as_json())))) == repr(found)


HEADER = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
          "b": {"dtype": "I64", "shape": [1, 1], "data_offsets": [8, 16]}}
DTYPES = st.sampled_from(["F32", "I64", "BF16", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "BOOL", "C64", "U16", "X", ""])
TENSOR = st.fixed_dictionaries({}, optional={
    "dtype": DTYPES | JSON, "shape": st.lists(st.integers(-1, 2**64), max_size=4) | JSON,
    "data_offsets": st.lists(st.integers(-1, 2**64) | st.integers(0, 32), max_size=3) | JSON})


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__", ""]), TENSOR | JSON, max_size=3),
       st.integers(0, 2**64 - 1) | st.none(), damaged([save({"a": torch.ones(2), "b": torch.ones(1, 1)})]))
def test_any_header_of_tensors(tmp_path_factory: Folders, header: dict[str, Any], length: int | None, content: bytes
                               ) -> None:
    file = tmp_path_factory.getbasetemp() / "model.safetensors"
    text = json.dumps(header | {name: value for name, value in HEADER.items() if len(header) == 1}).encode()
    for one in (struct.pack("<Q", len(text) if length is None else length) + text + bytes(16), content):
        file.write_bytes(one)
        with suppress(RunError):
            read_tensors(file)


def manifest() -> bytes:
    files = {"model.safetensors": {"bytes": 1, "sha256": "0" * 64}, "state.json": {"bytes": 2, "sha256": ""}}
    return json.dumps({"format": 2, "step": 3, "attempt": 0, "files": files}).encode()


@given(damaged([manifest()]) | values_of(Manifest).map(lambda value: json.dumps(value).encode()))
def test_any_manifest(tmp_path_factory: Folders, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "step-00000003"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(content)
    (folder / "state.json").write_bytes(content)
    assert isinstance(written_format(folder), int)
    assert isinstance(damage(folder), str)
    progress_at(folder)


STACKS = texts_of(
    "step ", "7", "\n", "Thread 0x", "Current thread 0x00007f", " (most recent call first):\n", '  File "', '", line ',
    " in ", "forward", "all_reduce", "distributed_c10d.py", "x.py", "Root Cause (first observed failure):\n[0]:\n",
    "  time : ", "  rank : 1 (local_rank: 1)\n", "  exitcode : -9 (pid: 1)\n", "terminate called after throwing",
    "  what():  ", "terminated with exception: ", "\x1b[31m", "\r", "\0", "²")


@given(STACKS, STACKS, damaged([b"line one\nline two\n\xff\xfe"]))
def test_any_text_as_the_logs_of_an_attempt(tmp_path_factory: Folders, stacks: str, log: str, content: bytes) -> None:
    run = RunDir(tmp_path_factory.getbasetemp() / "logs")
    attempt = Attempt(run.attempts / "000")
    attempt.path.mkdir(parents=True, exist_ok=True)
    for name, text in (("rank0.stacks", stacks), ("rank1.stacks", log), ("node0.log", log), ("rank0.log", stacks),
                       ("rank2 (copy).log", log), ("rank².stacks", log)):
        (attempt.path / name).write_text(text, errors="surrogatepass")
    cause(attempt)
    find_hang(attempt)
    assert isinstance(abort_message(attempt.log(0)), str)
    attempt.log(1).write_bytes(content)
    assert all("\n" not in line for line in Tail(attempt.log(1)).lines(unfinished=True))


FILES = ["plan.json", "job.json", "status.json", "result.json", "attempts/000/heartbeat.json",
         "attempts/000/launch.json", "attempts/000/rank0.error.json", "attempts/000/verdict.json",
         "attempts/000/saved.json", "attempts/000/versions.json", "attempts/000/node0.down.json", "config.yaml"]


@given(st.sampled_from(FILES), damaged([b"{}"]) | JSON.map(lambda value: json.dumps(value).encode()),
       st.sampled_from(["ls", "ls --json", "status RUN", "why RUN", "logs RUN --errors", "checkpoints RUN",
                        "status RUN --json", "logs RUN --all"]))
def test_a_command_on_a_damaged_run(tmp_path_factory: Folders, name: str, content: bytes, words: str) -> None:
    runs = tmp_path_factory.getbasetemp() / "runs"
    run = RunDir(runs / "tiny" / "20260101-100000-aaaaa")
    write_plan(run)
    write_job(run, id="1", host="n1", pid=1)
    write_state(run, "failed", "it failed")
    write_heartbeat(run, step=1, steps=2)
    for file in FILES:
        if not (run.path / file).exists() or file == name:
            (run.path / file).write_bytes(content if file == name else b"")
            if file != name:
                (run.path / file).unlink()
    assert main([*words.replace("RUN", str(run.path)).split(), "--runs", str(runs)]) in (0, 2)
    (run.path / name).unlink()
