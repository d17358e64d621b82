"""The command line: arguments in any order, help, version, and exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import RankError
from drumbeat.configs.terminal import SHOWN
from drumbeat.launch.commands import status
from drumbeat.launch.commands.main import COMMANDS, main, parse
from tests.launch.made import FIRST
from tests.runs import write_heartbeat, write_job, write_plan, write_state


@pytest.mark.parametrize("typed", [
    "run c.yaml a=1 b=2 --procs 2", "run c.yaml --procs 2 a=1 b=2", "run --procs 2 c.yaml a=1 b=2",
    "run a=1 c.yaml --procs 2 b=2", "run --procs=2 a=1 b=2 c.yaml", "run a=1 --procs 2 b=2 c.yaml",
])
def test_key_value_may_be_anywhere(typed: str) -> None:
    args = parse(typed.split())
    assert sorted(args.words) == ["a=1", "b=2", "c.yaml"]
    assert args.procs == 2


def test_values_may_hold_anything() -> None:
    assert parse(["run", "c.yaml", "--debug", "a=-1", "b=x=y", "c=[1, 2]", "d= "]).words == [
        "c.yaml", "a=-1", "b=x=y", "c=[1, 2]", "d= "]


def test_options_are_not_abbreviated() -> None:
    with pytest.raises(ConfigError, match="Did you mean '--dry-run'"):
        parse(["run", "c.yaml", "--dry"])


@pytest.mark.parametrize("typed", [[], ["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_fits_a_terminal(typed: list[str], capsys: pytest.CaptureFixture[str],
                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: {' '.join(['drumbeat', *typed[:-1]])}")
    assert max(map(len, out.splitlines())) <= 80
    assert not typed or typed[0] == "--help" or COMMANDS[typed[0]].HELP.partition(" ")[0] in out.lower()


def test_help_names_the_program_that_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"], program="python launch/run.py")
    out = capsys.readouterr().out
    assert out.startswith("usage: python launch/run.py CONFIG [KEY=VALUE ...] [options]\n")
    assert "  python launch/run.py resnet50_xray --slurm --nodes 2 --gpus 8\n" in out


def test_the_version_is_defined_in_one_place() -> None:
    """The package's metadata take it from there."""
    (stated,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "src" / "drumbeat" / "__init__.py").read_text(), re.M)
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for program in (["-m", "drumbeat"], [str(ROOT / "launch" / "run.py")]):
        done = subprocess.run([sys.executable, *program, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"drumbeat {stated}\n", "")


def test_a_bug_is_not_shown_as_a_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: Any) -> int:
        raise ModuleNotFoundError("no", name="my_lab")

    monkeypatch.setattr(status, "run", broken)
    with pytest.raises(ModuleNotFoundError):
        main(["status", "x"])


def test_demo_data_runs_in_its_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        seen.extend([command, options])
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    assert main(["demo-data", "xray", "here"]) == 7
    command, options = seen
    assert command == [sys.executable, "-m", "drumbeat.configs.importing", "drumbeat.data.demo.demo", "xray",
                       str(tmp_path / "here")]
    assert options["env"]["PYTHONPATH"] == f"{ROOT}/src"


def test_nothing_that_a_command_writes_may_be_changed_by_all_users(tmp_path: Path) -> None:
    """Whatever the umask is: what a run has in its folder is code, and submitit's pickles."""
    command = [sys.executable, "-m", "drumbeat", "demo-data", "news", "here"]
    subprocess.run(command, cwd=tmp_path, umask=0, capture_output=True, check=True)
    written = [tmp_path / "here", *(tmp_path / "here").rglob("*")]
    assert {path.name: path.stat().st_mode & 0o777 for path in written} == {
        "here": 0o775, "train.csv": 0o664, "test.csv": 0o664, "README.txt": 0o664}


def test_a_closed_pipe_is_no_error() -> None:
    """As in `drumbeat --help | head -1`, and without a message from the interpreter."""
    show = f"{sys.executable} -c 'import sys; from drumbeat.launch.commands import main, status; "
    show += "status.run = lambda a: print(\"x\\n\" * 100000) or 0; sys.exit(main.main([\"status\", \"x\"]))'"
    done = subprocess.run(["bash", "-c", f"{show} | head -1; echo ${{PIPESTATUS[0]}}"], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert (done.stdout, done.stderr) == ("x\n0\n", "")


@pytest.mark.parametrize(("module", "program"), [
    ("argparse", ["-m", "drumbeat", "ls"]), ("drumbeat.configs.errors", ["-m", "drumbeat", "ls"]),
    ("drumbeat.launch.runs.listing", ["-m", "drumbeat", "ls"]),
    ("drumbeat.launch.commands.arguments", ["launch/run.py", "--help"]),
    ("omegaconf", ["launch/run.py", "resnet50_xray", "--dry-run"]),
], ids=lambda value: value if isinstance(value, str) else "")
def test_ctrl_c_is_quiet_while_modules_are_imported(module: str, program: list[str], tmp_path: Path) -> None:
    """A finder that Python asks first sends SIGINT when it begins to import a module."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
""")
    done = subprocess.run([sys.executable, *program], cwd=ROOT,
                          env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}/src"},
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


HOSTILE = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\x9b2J\u202e\udce9"
"""Writes to the clipboard, clears the screen twice, and reverses the text; the last byte is not UTF-8."""


@pytest.mark.parametrize("typed", [
    ["ls"], ["ls", "--json"], ["status", "RUN"], ["status", "RUN", "--json"], ["why", "RUN"], ["logs", "RUN"],
    ["logs", "RUN", "--all"], ["logs", "RUN", "--errors"], ["checkpoints", "RUN"], ["status", HOSTILE], [HOSTILE],
    ["run", f"{HOSTILE}.yaml"], ["run", "c.yaml", f"{HOSTILE}=1"], ["run", "c.yaml", "--dry-run"], ["resume", "RUN"],
    ["report", "RUN"], ["doctor", "c.yaml"], ["stop", "RUN"],
], ids=lambda typed: " ".join(typed).replace(HOSTILE, "HOSTILE"))
def test_no_command_prints_what_controls_the_terminal(typed: list[str], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch,
                                                      capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDir(tmp_path / "runs" / f"name{HOSTILE}" / FIRST)
    write_plan(run, backend="slurm", name="x")
    run.config.write_text(f"name: {HOSTILE.encode('unicode_escape').decode()}\n")
    write_job(run, "slurm", id="7", host=HOSTILE.removesuffix("\udce9"))
    write_state(run, "failed", f"the class {HOSTILE} is unknown".removesuffix("\udce9"))
    attempt = run.claim_attempt()
    attempt.log(0).write_text(HOSTILE, errors="surrogateescape")
    write_heartbeat(run, step=1, steps=2, phase=HOSTILE, monitor=HOSTILE, best=0.5, validation={HOSTILE: 0.5})
    RankError(rank=0, node=HOSTILE, type="ValueError", message=HOSTILE, traceback=HOSTILE, step=1
              ).write(attempt.error(0))
    (tmp_path / "c.yaml").write_text('name: "\\e[2J"\nmodel: {_target_: "a.\\e[2Jb"}\n"\\u202e": 1\n')
    assert main([word.replace("RUN", str(run.path)) for word in typed]) in (0, 2)
    shown = "".join(capfd.readouterr())
    assert shown
    assert not [character for character in shown if ord(character) in SHOWN]
