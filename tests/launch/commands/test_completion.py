"""What the shells complete, asked of the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from drumbeat.launch.commands.main import COMMANDS, main

RUN = "20260101-100000-aaaaa"

ASK = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_shtab_drumbeat
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

ZSH = """
fpath=(HERE $fpath); autoload -Uz compinit; compinit -u -d HERE/dump; eval "$(<HERE/_drumbeat)"
compadd() { print -l -- ${(P)2} }
words=(drumbeat status ''); _drumbeat_runs
words=(drumbeat status --runs elsewhere ''); _drumbeat_runs
print ${_comps[drumbeat]}
"""
"""`compadd -a NAME` offers what the array of that name holds."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config and a run, and another run elsewhere."""
    monkeypatch.chdir(tmp_path)
    for folder in (f"runs/tiny/{RUN}", f"elsewhere/other/{RUN.replace('a', 'b')}"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "plan.json").touch()
    (tmp_path / "runs" / "tiny" / "latest").symlink_to(RUN)
    (tmp_path / "mine.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(("typed", "offered"), [
    ("''", set(COMMANDS)),
    ("sta", {"status"}),
    ("status ''", {RUN, "tiny"}),
    ("cancel 2026", {RUN}),
    ("logs --runs elsewhere ''", {RUN.replace("a", "b"), "other"}),
    ("run resnet50_xray_d", {"resnet50_xray_demo"}),
    ("run mi", {"mine.yaml"}),
    ("run mine.yaml --pro", {"--procs", "--profile"}),
    ("run mine.yaml --profile ''", {"example"}),
    ("run --resume t", {"tiny"}),
    ("rerun ti", {"tiny"}),
    ("completion ''", {"bash", "zsh"}),
])
def test_bash(here: Path, capsys: pytest.CaptureFixture[str], typed: str, offered: set[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (here / "script").write_text(capsys.readouterr().out)
    done = subprocess.run(["bash", "-c", ASK.format(script=here / "script", words=f"drumbeat {typed}")],
                          capture_output=True, text=True, check=True)
    assert (set(done.stdout.split()), done.stderr) == (offered, "")


def test_zsh(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes the script, and its functions find the runs."""
    if shutil.which("zsh") is None:
        assert os.environ.get("CI") != "true", "CI installs zsh"
        pytest.skip("zsh is not installed")
    assert main(["completion", "zsh"]) == 0
    (here / "_drumbeat").write_text(capsys.readouterr().out)
    (here / "ask").write_text(ZSH.replace("HERE", str(here)))
    done = subprocess.run(["zsh", "-f", str(here / "ask")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tiny", RUN, "other", RUN.replace("a", "b"), "_shtab_drumbeat"]
    assert done.stderr == ""
