"""The store: built once by one process, complete or not at all, and rebuilt if the file has changed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import drumbeat.data.labels
import drumbeat.data.tables
import drumbeat.data.text
from drumbeat.data.store import built
from drumbeat.data.text import Texts, Vocabulary
from tests.data.reviews import IDS, rows_of, same, write


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "about.json"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_blocks_leave_no_trace(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / f"set.{suffix}", [(f"r{n}", "word " * (n % 7), f"c{n * n % 13}") for n in range(300)])
    vocabulary = Vocabulary(file=file)
    whole = Texts(file=file, vocabulary=vocabulary, labels="label", id="id")
    monkeypatch.setattr(drumbeat.data.tables, "BLOCK", 100)
    parts = Texts(file=file, vocabulary=Vocabulary(file=file, cache=str(tmp_path / "parts")), labels="label", id="id",
                  cache=str(tmp_path / "parts"))
    assert parts.vocabulary.fingerprint == vocabulary.fingerprint
    assert stored(parts.folder) == stored(whole.folder)
    assert parts.names() == [f"r{n}" for n in range(300)]


def test_a_store_is_built_once_and_again_if_the_file_changes(file: str, vocabulary: Vocabulary,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    first = Texts(file=file, vocabulary=vocabulary, labels="label")
    with monkeypatch.context() as patch:
        patch.setattr(drumbeat.data.text, "_build", None)
        again = Texts(file=file, vocabulary=vocabulary, labels="label")
        assert same(again.fetch(np.arange(4)), first.fetch(np.arange(4)))
    with open(file, "a") as more:
        more.write("r5,dog,pos\n")
    assert rows_of(Texts(file=file, vocabulary=vocabulary, labels="label")) == [*IDS, [6]]
    assert (Path(file).parent / ".drumbeat" / ".gitignore").read_text() == "*\n"


def test_the_users_cache_is_used_if_the_folder_cannot_be_written(file: str, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        if self == tmp_path / ".drumbeat":
            raise PermissionError(13, "Permission denied", str(self))
        mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    texts = Texts(file=file, vocabulary=Vocabulary(file=file), labels="label")
    assert texts.folder.parent == tmp_path / "mine" / "drumbeat"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to another user")
def test_a_store_of_another_user_is_neither_read_nor_written_to(file: str, vocabulary: Vocabulary, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can make a `.drumbeat` beside a file in /tmp. The file's own owner may."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    theirs = Texts(file=file, vocabulary=vocabulary, labels="label").folder
    for path in (theirs, theirs.parent):
        os.chown(path, 12345, 12345)
        path.parent.chmod(0o1777)  # as /tmp
    texts = Texts(file=file, vocabulary=vocabulary, labels="label")
    assert texts.folder.parent == tmp_path / "mine" / "drumbeat"
    os.chown(file, 12345, 12345)
    assert Texts(file=file, vocabulary=vocabulary, labels="label").folder == theirs


def test_a_link_in_place_of_its_gitignore_is_not_followed(file: str, vocabulary: Vocabulary) -> None:
    folder = Path(file).parent / ".drumbeat"
    (folder / ".gitignore").unlink()
    (folder / ".gitignore").symlink_to(folder.parent / "elsewhere")
    Texts(file=file, vocabulary=vocabulary, labels="label")
    assert not (folder.parent / "elsewhere").exists()


def test_a_damaged_store_is_not_read(file: str, vocabulary: Vocabulary) -> None:
    folder = Texts(file=file, vocabulary=vocabulary, labels="label").folder
    os.truncate(folder / "ids", 8)
    with pytest.raises(ValueError, match=r"ids is damaged \(8 bytes\); remove .*\.texts to build it again"):
        Texts(file=file, vocabulary=vocabulary, labels="label")


def in_child(work: Callable[[], None]) -> multiprocessing.process.BaseProcess:
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def test_processes_that_start_together_build_once(file: str, vocabulary: Vocabulary, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    together = multiprocessing.get_context("fork").Barrier(3)
    build = drumbeat.data.text._build

    def counted(*args: Any) -> None:
        with open(tmp_path / "builds", "a") as builds:
            builds.write("built\n")
        build(*args)

    def work() -> None:
        together.wait(30)
        assert rows_of(Texts(file=file, vocabulary=vocabulary, labels="label")) == IDS

    monkeypatch.setattr(drumbeat.data.text, "_build", counted)
    children = [in_child(work) for _ in range(3)]
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "built\n"


@pytest.mark.parametrize("where", ["between blocks", "before the rename"])
def test_a_killed_build_leaves_no_incomplete_store(where: str, file: str, vocabulary: Vocabulary, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"

    def die(*_: Any) -> NDArray[Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def work() -> None:
        monkeypatch.setattr(drumbeat.data.labels.Labels, "add" if where == "between blocks" else "save", die)
        Texts(file=file, vocabulary=vocabulary, labels="label", cache=str(cache))

    child = in_child(work)
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert len(list(cache.glob(".*.partial"))) == 1
    assert list(cache.glob("*.texts")) == []
    texts = Texts(file=file, vocabulary=vocabulary, labels="label", cache=str(cache))
    assert rows_of(texts) == IDS
    assert stored(texts.folder) == stored(Texts(file=file, vocabulary=vocabulary, labels="label").folder)
    assert list(cache.glob(".*.partial")) == []


def test_a_file_that_changes_while_it_is_read_raises(file: str, tmp_path: Path) -> None:
    def write_on(_: Path) -> None:
        with open(file, "a") as more:
            more.write("r5,dog,pos\n")

    with pytest.raises(ValueError, match=r"train\.csv changed while it was read; start again when it is complete"):
        built(Path(file), "texts", "recipe", write_on, str(tmp_path / "cache"))
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.name != ".gitignore"] == [".lock"]


def test_a_waiting_process_prints_a_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    begun, go = Event(), Event()
    message = ""

    def build(_: Path) -> None:
        begun.set()
        assert go.wait(30)

    with ThreadPoolExecutor() as pool:
        first, second = (pool.submit(built, Path(file), "texts", "recipe", build, None) for _ in range(2))
        assert begun.wait(30)
        end = time.monotonic() + 20
        while not message and time.monotonic() < end:
            time.sleep(0.01)
            message = capsys.readouterr().err
        go.set()
        assert first.result() == second.result()
    assert message == f"waiting for another process that builds {first.result()}\n"


@pytest.mark.usefixtures("no_home")
def test_the_store_of_a_user_without_a_home_is_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    assert built(tmp_path / "a.csv", "kind", 1, lambda folder: None, None).parent == tmp_path / ".drumbeat"
