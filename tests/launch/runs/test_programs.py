"""Missing files are reported at once, on one screen with exit code 2, before a process that imports torch starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.load import ROOT, load
from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.programs import run_on_run
from tests.processes import alive, until, wait_for_file
from tests.runs import write_plan

IMAGES = """\
name: pictures
batch_size: 2
model: {_target_: nets.Net, classes: 2}
data:
  download_hint: Draw some with a pencil.
  train:
    _target_: drumbeat.data.Split
    part: a
    fractions: {a: 1.0}
    of: {_target_: drumbeat.data.ImageFolder, root: train}
  test: {_target_: drumbeat.data.ImageFolder, root: test}
phases: {only: {epochs: 1, optimizer: {_target_: torch.optim.SGD, lr: 0.1}}}
"""
TEXTS = IMAGES.replace("pictures", "texts").replace("classes: 2", "classes: from_data").replace(
    "drumbeat.data.ImageFolder, root: train",
    "drumbeat.data.Texts, file: t.csv, text: story, "
    "vocabulary: {_target_: drumbeat.data.Vocabulary, file: t.csv}").replace(
    "drumbeat.data.ImageFolder, root: test", "sets.Theirs, root: anywhere")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two configs, a run of each that has saved step 3, and one that has saved nothing."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("pictures", IMAGES), ("texts", TEXTS)):
        (tmp_path / f"{name}.yaml").write_text(text)
        for number, steps in enumerate([[], [3]]):
            run = RunDir(tmp_path / "runs" / name / f"2026010{number}-000000-{name[:5]}")
            write_plan(run)
            write_text(run.config, load(tmp_path / f"{name}.yaml").as_yaml())
            for step in steps:
                (run.checkpoints / f"step-{step:08d}").mkdir(parents=True)
                (run.checkpoints / "last").symlink_to(f"step-{step:08d}")
    for name in ("train", "photos", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"a picture")

    def nothing(*arguments: str, **options: Any) -> int:
        raise AssertionError(f"started: {arguments}")

    monkeypatch.setattr("drumbeat.launch.runs.programs.module", nothing)
    return tmp_path


@pytest.mark.parametrize(("line", "messages"), [
    ("evaluate nothing", ["there is no run 'nothing'"]),
    ("evaluate 20260100-000000-pictu", ["there are no checkpoints yet"]),
    ("predict 20260100-000000-pictu photos", ["there are no checkpoints yet"]),
    ("evaluate pictures --checkpoint 7", ["there is no checkpoint '7'", "Name best, last or a step: 3."]),
    ("evaluate pictures --checkpoint best", ["there is no checkpoint 'best' of a run without a validation set"]),
    ("evaluate pictures --split validation", ["the run has no validation set", "It has: train, test."]),
    ("evaluate pictures", ["the folder train is empty", "where  data.train.of.root", "test does not exist",
                           "where  data.test.root", "fix    Draw some with a pencil."]),
    ("predict pictures photos nowhere", ["there is no file or folder 'nowhere'"]),
    ("predict pictures empty", ["this folder is empty", "where  empty"]),
    ("predict texts photos", ["the run's model reads texts, but this is a folder",
                              "Give a table with a column 'story', or a .txt file with one text per"]),
    ("doctor pictures.yaml", ["the folder train is empty", "test does not exist"]),
    ("doctor nothing.yaml", ["there is no config 'nothing.yaml'"]),
    ("cache pictures.yaml data.cache=cache", ["the folder train is empty"]),
    ("show texts.yaml", ["t.csv does not exist", "fix    Draw some with a pencil."]),
    ("show nothing.yaml", ["there is no config 'nothing.yaml'"]),
])
def test_what_is_missing(here: Path, line: str, messages: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    screen = capsys.readouterr().err
    assert all(message in screen for message in messages), screen
    assert screen.startswith("error: ")
    assert len(screen.splitlines()) <= 24
    assert max(map(len, screen.splitlines())) <= 80 or str(here) in screen


@pytest.mark.parametrize("line", [
    "show pictures.yaml",  # can be built without its data
    "predict pictures photos",  # a prediction does not read the datasets
    "doctor pictures.yaml data.train.of._target_=sets.Theirs data.test._target_=sets.Theirs",  # it may fetch them
    "doctor pictures.yaml data.train.of.root=$TMPDIR/x data.test.root=$TMPDIR/y",  # of another machine
])
def test_what_cannot_be_checked_here_is_left_to_sbatch(here: Path, line: str) -> None:
    with pytest.raises(AssertionError, match="started: "):
        main(line.split())


def test_show_says_what_a_new_target_leaves_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="started: "):
        main(["show", "pictures.yaml", "phases.only.optimizer._target_=torch.optim.Adam"])
    assert " ".join(capsys.readouterr().out.split()).startswith(
        "note phases.only.optimizer is now torch.optim.Adam: lr=0.1 from pictures.yaml was left out; set it again if")


def test_a_run_is_evaluated_with_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          capfd: pytest.CaptureFixture[str]) -> None:
    """Also if the run's folder has moved; not with --new-code, nor if the copy has no module of that name."""
    run, copy = RunDir(tmp_path / "run"), tmp_path / "run" / "code" / "mine"
    for tree, files in ((copy, ["old"]), (tmp_path / "live", ["old", "new"])):
        tree.mkdir(parents=True)
        for file in files:
            (tree / f"{file}.py").write_text(f"import sys; print({tree.name!r}, *sys.argv[2:])")
    for file in ("__init__.py", "configs/__init__.py", "configs/importing.py"):
        (copy / "drumbeat" / file).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(ROOT / "src" / "drumbeat" / file, copy / "drumbeat" / file)
    mine = CodeTree(name="mine", folder="/home/me/mine", files=1, commit="0123456789", changed_files=2)
    CodeSnapshot(trees=(mine,), home="mine", folder="mine").write(run.path / "code" / "snapshot.json")
    write_plan(run, environment={"PYTHONPATH": "/moved/since"})
    monkeypatch.chdir(tmp_path / "live")
    for name, new_code in (("old", False), ("old", True), ("new", False)):
        assert run_on_run(name, run, "--split", "test", new_code=new_code) == 0
    output = capfd.readouterr()
    assert output.out.splitlines() == ["mine --split test", "live --split test", "live --split test"]
    assert output.err == ("code       mine at 0123456 with 2 changed files, 1 file; use --new-code for the\n"
                          "           current code\n")


@pytest.mark.slow
def test_commands_that_need_no_code_of_the_user_import_none(undisturbed: RunDir, tmp_path: Path) -> None:
    """They may be typed in a folder of downloads."""
    for name in ("sitecustomize", "usercustomize", "shutil", "json", "yaml", "numpy", "torch", "safetensors", "jinja2",
                 "PIL", "tqdm"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py was executed')")
    for words in (["ls"], ["report", undisturbed.path, "--out", "r.html"], ["export", undisturbed.path, "weights.pt"]):
        done = subprocess.run([sys.executable, "-m", "drumbeat", *words], cwd=tmp_path, capture_output=True, text=True,
                              env=os.environ | {"PYTHONPATH": f"{ROOT}/src"}, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "r.html").is_file()
    assert (tmp_path / "weights.pt").is_file()
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_program_ends_with_the_command_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import os, pathlib, time\npathlib.Path('.pid').write_text(str(os.getpid()))\n"
                                      "os.rename('.pid', 'pid')\ntime.sleep(600)")
    program = "from drumbeat.launch.runs.programs import start; start('slow')"
    command = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path,
                               env=os.environ | {"PYTHONPATH": f"{ROOT}/src"})
    wait_for_file(tmp_path / "pid", command)
    child = int((tmp_path / "pid").read_text())
    command.send_signal(number)
    assert command.wait() == -number
    until(lambda: not alive(child), seconds=20)
