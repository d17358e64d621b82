"""TensorBoard for the named runs: what it shows, its port, and that no files or processes remain when it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.attempts.processes import descendants
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.tensorboard import HOST, free_port, link
from drumbeat.trainers.tracking import Tracker
from tests.runs import write_plan


def make_run(runs: Path, name: str, letters: str) -> RunDir:
    """A run with one point of one curve."""
    run = RunDir(runs / name / f"20260101-000000-{letters}")
    write_plan(run)
    tracker = Tracker(run, run.claim_attempt(), step=0, config_text="")
    tracker.scalars(1, {"train/loss": 0.5})
    tracker.close()
    (run.path.parent / "latest").unlink(missing_ok=True)
    (run.path.parent / "latest").symlink_to(run.id)
    return run


@contextmanager
def listening() -> Iterator[int]:
    """A port that is in use."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_links_are_named_like_the_runs(tmp_path: Path) -> None:
    """Also if a folder has a name that TensorBoard's own --logdir_spec cannot express."""
    runs = [make_run(tmp_path / "a, b:c", name, letters) for name, letters in (("x", "aaaaa"), ("x", "bbbbb"))]
    link(tmp_path / "links", runs[:1])
    link(tmp_path / "links", runs)
    found = {str(path.relative_to(tmp_path / "links")): path.resolve() for path in (tmp_path / "links").glob("*/*/*")}
    assert found == {f"x/{run.id}/{file.name}": file for run in runs for file in run.tensorboard.iterdir()}


def test_an_event_file_that_leads_out_of_its_run_is_not_shown(tmp_path: Path) -> None:
    run, other = (make_run(tmp_path / name, "x", "aaaaa") for name in ("runs", "private"))
    (file,) = other.tensorboard.iterdir()
    (run.tensorboard / "evaluation").symlink_to(other.tensorboard)
    (run.tensorboard / "events.out.tfevents.2.a").symlink_to(file)
    os.mkfifo(run.tensorboard / "events.out.tfevents.3.a")
    link(tmp_path / "links", [run])
    shown = [path.resolve() for path in (tmp_path / "links").rglob("*") if path.is_symlink()]
    assert shown == [path for path in run.tensorboard.iterdir() if path.is_file() and not path.is_symlink()]
    assert len(shown) == 1


def test_a_port_in_use_is_skipped() -> None:
    with listening() as port:
        assert free_port(port) > port
        with pytest.raises(LaunchError, match="there is no free port"):
            free_port(65536)
        with pytest.raises(LaunchError, match="there is no free port"):
            free_port(0)


@pytest.mark.parametrize(("typed", "what"), [("", "there are no runs here yet"), ("nope", "there is no run 'nope'")])
def test_nothing_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                         typed: str, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tensorboard", *typed.split()]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.slow
def test_it_shows_the_runs_named_until_ctrl_c(tmp_path: Path) -> None:
    for name, letters in (("one", "aaaaa"), ("two", "bbbbb"), ("two", "ccccc")):
        make_run(tmp_path / "runs", name, letters)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with listening() as taken:
        board = subprocess.Popen(
            [sys.executable, "-m", "drumbeat", "tensorboard", "two", "aaaaa", "--port", str(taken)], cwd=tmp_path,
            stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(scratch)})
        assert board.stdout is not None
        assert board.stdout.readline() == f"port {taken} is in use\n"
        output = board.stdout.readline()
        url = re.fullmatch(r"TensorBoard of 2 runs: (http://localhost:(\d+)/)\n", output)
        assert url, output
        assert int(url[2]) != taken
        shown: list[str] = []
        while len(shown) < 2:  # it answers before it has read the files
            with urllib.request.urlopen(f"{url[1]}data/runs") as answer:
                shown = json.load(answer)
        assert sorted(shown) == ["one/20260101-000000-aaaaa", "two/20260101-000000-ccccc"]  # `two` is its newest run
        below = descendants(board.pid)
        assert below
        board.send_signal(signal.SIGINT)
        assert board.wait(30) == 0
        board.stdout.close()
    assert not [pid for pid in below if Path(f"/proc/{pid}/exe").exists()]
    assert [path for path in scratch.rglob("*") if path.is_file()] == []
