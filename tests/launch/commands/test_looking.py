"""Looking at a run that somebody else has prepared: no command follows a link out of it, reads what is not a regular
file, executes its code, or resolves an environment variable."""

from __future__ import annotations

import base64
import importlib
import json
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from drumbeat.configs.load import load
from drumbeat.configs.run.checkpoint_records import Progress, Span
from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import RankError
from drumbeat.launch.commands.config_keys import candidates
from drumbeat.launch.commands.main import main
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.tracking import Tracker
from tests.runs import write_heartbeat, write_plan, write_state
from tests.tiny import CONFIG, write_config
from tests.warm import run_python

Look = Callable[[str], str]

KEY = "PRIVATE-KEY-OF-THE-READER"
SECRET = "value-of-AWS_SECRET_ACCESS_KEY"
LOOKING = ["ls", "ls --json", "status {}", "status {} --json", "why {}", "logs {}", "logs {} --all", "logs {} --errors",
           "checkpoints {}", "checkpoints {} --json", "export {} out.pt", "export {} out.safetensors --checkpoint last",
           "verify {}", "report {} --out out.html"]
HOSTILE = CONFIG.replace("model: {_target_: tests.tiny.Net}", """\
model: {_target_: tests.tiny.Net, a: "${oc.env:AWS_SECRET_ACCESS_KEY}",
        b: "${oc.decode:${oc.env:AWS_SECRET_ACCESS_KEY}}", c: "${${.e}.env:AWS_SECRET_ACCESS_KEY}",
        d: "${oc.coerce:hostile.Kind,1}", e: oc, f: "${.a}"}""")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a user with a private key and a secret variable, and in it runs/tiny/RUN, which has one
    checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    (tmp_path / "id_rsa").write_text(f"{KEY}\n" * 3)
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-000000-abcde")
    write_plan(run)
    run.config.write_text(load(write_config(tmp_path)).as_yaml())
    attempt = run.claim_attempt()
    attempt.log(0).write_text("a line\n")
    attempt.node_log(0).write_text("a line\n")
    RankError(rank=0, node="n", type="ValueError", message="no", step=3).write(attempt.error(0))
    write_heartbeat(run, step=3, steps=40)
    write_state(run, "failed")
    tracker = Tracker(run, attempt, step=0, config_text="")
    tracker.scalars(1, {"train/loss": 0.5})
    tracker.close()
    checkpoints = Checkpoints(run, attempt, keep=2)
    best = {"step": 3, "loss": 0.25}
    span = Span(phase=0, first_step=0, steps=3, samples=36, digest="0", attempt=0, world_size=1)
    checkpoints.save(Progress(step=3, phase_step=3, samples=36, best=best, last=best, data={"samples": 100},
                              ledger=(span,)), {"x": torch.zeros(3)}, {}, {})
    checkpoints.close()
    evaluation = run.path / "evaluation" / "test-3"
    evaluation.mkdir(parents=True)
    (evaluation / "metrics.txt").write_text("loss 0.25")
    yield tmp_path


def the_run(reader: Path) -> RunDir:
    return RunDir(reader / "runs" / "tiny" / "20260101-000000-abcde")


@pytest.fixture
def look(reader: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Look:
    """A function that runs a command in this process, and returns all that it prints and writes."""
    def module(name: str, *words: str, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(returncode=importlib.import_module(name).main(*words))

    monkeypatch.setattr("drumbeat.launch.runs.programs.module", module)

    def run(command: str) -> str:
        capfd.readouterr()
        assert main(command.format("tiny").split()) in (0, 1, 2)
        output = capfd.readouterr()
        return "\n".join([output.out, output.err, *written(reader)])

    return run


def written(reader: Path) -> list[str]:
    """The contents of the files that a command has written, which are removed."""
    found = []
    for path in reader.glob("out.*"):
        found.append(path.read_bytes().decode(errors="replace"))
        path.unlink()
    return found


def look_for_real(reader: Path, command: str) -> str:
    """The same by a process of its own."""
    done = run_python([sys.executable, "-m", "drumbeat", *command.format("tiny").split()], cwd=reader,
                      capture_output=True, text=True)
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, done.stderr
    return "\n".join([done.stdout, done.stderr, *written(reader)])


def secrets_in(text: str) -> list[str]:
    """What of the reader's secrets is in a text, also in base64 from any offset."""
    return [name for name in (KEY, SECRET) if name in text or any(
        base64.b64encode(b"x" * offset + name.encode())[4:-4].decode() in text for offset in range(3))]


def leads_out(path: Path, reader: Path) -> None:
    """A link to the reader's key, in place of a file; a folder is moved out of the run, and replaced by a link."""
    if path.is_dir() and not path.is_symlink():
        outside = reader / "outside" / path.name
        outside.parent.mkdir(exist_ok=True)
        shutil.move(path, outside)
        for file in outside.rglob("*.log"):
            file.write_text(KEY)
        for file in outside.rglob("*.txt"):
            file.write_text(KEY)
        path.symlink_to(outside)
    else:
        path.unlink(missing_ok=True)
        path.symlink_to(reader / "id_rsa")


def is_endless(path: Path, reader: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def is_a_pipe(path: Path, reader: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


FILES = ["config.yaml", "plan.json", "status.json", "attempts/000/rank0.log", "attempts/000/node0.log",
         "attempts/000/heartbeat.json", "attempts/000/rank0.error.json", "attempts/000/rank0.stacks",
         "checkpoints/step-00000003/manifest.json", "checkpoints/step-00000003/state.json",
         "checkpoints/step-00000003/model.safetensors", "checkpoints/best", "evaluation/test-3/metrics.txt",
         "evaluation/test-3/roc.png", "tensorboard/events.out.tfevents.9.a", "nondeterministic/a.json"]
FOLDERS = ["attempts", "attempts/000", "evaluation", "evaluation/test-3", "checkpoints", "checkpoints/step-00000003",
           "tensorboard"]


@pytest.mark.parametrize("command", LOOKING)
def test_no_link_is_followed_out_of_the_run(reader: Path, look: Look, command: str) -> None:
    run = the_run(reader)
    (run.path / "nondeterministic").mkdir()
    for name in FILES:
        kept = reader / "kept"
        shutil.copytree(run.path, kept, symlinks=True)
        leads_out(run.path / name, reader)
        assert secrets_in(look(command)) == [], name
        shutil.rmtree(run.path)
        kept.rename(run.path)


@pytest.mark.parametrize("command", ["status {}", "logs {}", "logs {} --all", "checkpoints {}", "verify {}",
                                     "report {} --out out.html", "export {} out.safetensors"])
def test_no_folder_of_a_run_is_elsewhere(reader: Path, look: Look, command: str) -> None:
    run = the_run(reader)
    for name in FOLDERS:
        kept = reader / "kept"
        shutil.copytree(run.path, kept, symlinks=True)
        leads_out(run.path / name, reader)
        assert secrets_in(look(command)) == [], name
        shutil.rmtree(run.path)
        shutil.rmtree(reader / "outside")
        kept.rename(run.path)


@pytest.mark.parametrize("change", [is_endless, is_a_pipe])
def test_pipes_and_devices_are_not_read(reader: Path, look: Look, change: Callable[[Path, Path], None]) -> None:
    run = the_run(reader)
    for name in FILES:
        if not name.startswith(("config", "plan", "nondeterministic", "checkpoints/best")):
            change(run.path / name, reader)
    for command in ("status {}", "why {}", "logs {}", "checkpoints {}", "export {} out.pt"):
        assert secrets_in(look(command)) == []
    assert "it is not a regular file" in look("report {} --out out.html")


@pytest.mark.parametrize("command", LOOKING)
def test_no_variable_is_resolved_and_no_module_imported(reader: Path, look: Look, command: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """The config is not one that Drumbeat has written: somebody has put references to the reader's environment into
    it, a resolver whose name is a reference, and one that imports a module."""
    (reader / "hostile.py").write_text("import pathlib; pathlib.Path('executed').touch()\nclass Kind: ...\n")
    monkeypatch.syspath_prepend(str(reader))
    the_run(reader).config.write_text(HOSTILE)
    assert secrets_in(look(command)) == []
    assert not (reader / "executed").exists()


@pytest.mark.parametrize("config", [HOSTILE, CONFIG.replace("Net}", "Net, a: '${oc.env:AWS_SECRET_ACCESS_KEY}'}")],
                         ids=["hostile", "plain"])
def test_a_report_shows_the_references(reader: Path, config: str) -> None:
    the_run(reader).config.write_text(config)
    page = look_for_real(reader, "report {} --out out.html")
    assert "${oc.env:AWS_SECRET_ACCESS_KEY}" in page
    assert secrets_in(page) == []


def test_completion_resolves_nothing(reader: Path) -> None:
    the_run(reader).config.write_text(HOSTILE)
    assert "model." in candidates("mod", ["resume", "tiny"])
    assert secrets_in(json.dumps(candidates("model.", ["resume", "tiny"]))) == []
    leads_out(the_run(reader).config, reader)
    assert "data." in candidates("da", ["resume", "tiny"])


def test_verify_does_not_execute_the_code_of_the_run(reader: Path) -> None:
    """The copy says that all is well; the reader's own code finds that the digest is wrong."""
    run = the_run(reader)
    copy = run.path / "code" / "theirs" / "drumbeat"
    for name in ("", "configs", "trainers", "trainers/commands"):
        (copy / name).mkdir(parents=True, exist_ok=True)
        (copy / name / "__init__.py").write_text("")
    for name in ("configs/importing.py", "trainers/commands/verify.py"):
        (copy / name).write_text("print('verdict    all is well')\n")
    CodeSnapshot(trees=(CodeTree(name="theirs", folder="/theirs"),), home="theirs", folder="theirs").write(
        run.path / "code" / "snapshot.json")
    text = look_for_real(reader, "verify {}")
    assert "all is well" not in text
    assert "ERROR      steps 1 to 3 (attempt 0 on 1 rank): the digest differs from that of the order" in text


def test_a_link_to_the_newest_run_leads_to_one_beside_it(reader: Path, look: Look) -> None:
    private = reader / "private" / "x" / "20260102-000000-fghij"
    shutil.copytree(the_run(reader).path, private, symlinks=True)
    (reader / "runs" / "tiny" / "latest").symlink_to(private)
    assert "abcde" in look("status tiny") and "fghij" not in look("status runs/tiny/latest")


def png(width: int, height: int) -> bytes:
    """A black PNG image, compressed."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    data = b"".join([*(rows.compress(bytes(1 + width)) for _ in range(height)), rows.flush()])
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", data) + chunk(b"IEND", b""))


@pytest.mark.parametrize("content", [
    png(12_000, 12_000), b"<html><script>alert(1)</script>", b'<svg xmlns="http://www.w3.org/2000/svg" onload="x()"/>',
    b"GIF89a" + bytes(100), png(4, 4)[:-30]], ids=["bomb", "html", "svg", "gif", "half"])
def test_a_report_holds_only_images(reader: Path, look: Look, content: bytes) -> None:
    folder = the_run(reader).path / "evaluation" / "test-3"
    (folder / "roc.png").write_bytes(content)
    (folder / "good.png").write_bytes(png(4, 4))
    page = look("report {} --out out.html")
    assert "roc cannot be read" in page
    assert page.count("data:image/") == 1
    assert base64.b64encode(png(4, 4)).decode() in page
