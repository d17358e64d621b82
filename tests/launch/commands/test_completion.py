"""Completion, tested in the shells themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.bad_nodes import remember
from drumbeat.launch.commands.main import COMMANDS, main
from tests.launch.tiny_plan import write_config

NAMES = [path.stem for path in (ROOT / "configs").glob("*.yaml")]
RUN = "20260101-100000-aaaaa"

ASK = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_drumbeat
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

ZSH = """
fpath=(HERE $fpath); autoload -Uz compinit; compinit -u -d HERE/dump; eval "$(<HERE/_drumbeat)"
compadd() { print -l -- ${(P)2} }
words=(drumbeat status ''); _drumbeat_runs
words=(drumbeat status --runs elsewhere ''); _drumbeat_runs
words=(drumbeat nodes --forget ''); _drumbeat_nodes
compadd() { print -l -- ${(P)4} }
words=(drumbeat run mine.yaml evaluation.mod); CURRENT=4; PREFIX=evaluation.mod; _drumbeat_words
words=(run mine.yaml evaluation.mode=m); CURRENT=3; PREFIX=evaluation.mode=m; _drumbeat_words
print ${_comps[drumbeat]}
"""
"""`compadd -a NAME` offers the elements of the array of that name."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config and a run, and another run elsewhere."""
    monkeypatch.chdir(tmp_path)
    for folder in (f"runs/tiny/{RUN}", f"elsewhere/other/{RUN.replace('a', 'b')}"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "plan.json").touch()
    (tmp_path / "runs" / "tiny" / "latest").symlink_to(RUN)
    for node in ("n2", "gpu-1.site", "gpu-2.site"):
        assert remember(tmp_path / "runs", node, "lost", RUN, time.time())
    (tmp_path / "mine.yaml").write_text("base: small.yaml\nphases: {extra: {epochs: 1, optimizer: {momentum: 0.9}}}\n")
    write_config(tmp_path)
    write_config(tmp_path).rename(tmp_path / "runs" / "tiny" / RUN / "config.yaml")
    write_config(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("typed", "offered"), [
    ("''", set(COMMANDS)),
    ("sta", {"status"}),
    ("status ''", {RUN, "tiny"}),
    ("cancel 2026", {RUN}),
    ("logs --runs elsewhere ''", {RUN.replace("a", "b"), "other"}),
    ("run resnet50_xray_d", {"resnet50_xray_demo"}),
    ("run mi", {"mine.yaml"}),
    ("run ''", {"mine.yaml", "small.yaml", "runs/", "elsewhere/", *NAMES}),
    ("run mine.yaml ba", {"batch_size="}),
    ("run mine.yaml --procs 2 evaluation.", {
        "evaluation.batch_size=", "evaluation.monitor=", "evaluation.mode=", "evaluation.batch_statistics=",
        "evaluation.metrics.", "evaluation.views=", "evaluation.at_start=", "evaluation.every_epochs=",
        "evaluation.every_steps="}),
    ("run mine.yaml phases.", {"phases.head.", "phases.finetune.", "phases.extra."}),
    ("run mine.yaml seed=3 phases.extra.optimizer.", {"phases.extra.optimizer._target_=",
                                                      "phases.extra.optimizer.momentum="}),
    ("run mine.yaml seed = 3 phases.extra.op", {"phases.extra.optimizer."}),
    ("run mine.yaml evaluation.mode =", {"min", "max"}),
    ("run mine.yaml evaluation.mode = ma", {"max"}),
    ("run mine.yaml data.shuffle = ''", {"true", "false"}),
    ("run mine.yaml phases.head.start_from = ''", {"last", "best"}),
    ("resume tiny check", {"checkpoints."}),
    ("resume tiny phases.f", {"phases.finetune."}),
    ("rerun tiny model.", {"model._target_=", "model.width="}),
    ("run --resume tiny model.w", {"model.width="}),
    ("run mine.yaml --pro", {"--procs", "--profile"}),
    ("run mine.yaml --profile ''", {"example"}),
    ("run --resume t", {"tiny"}),
    ("rerun ti", {"tiny"}),
    ("sweep mi", {"mine.yaml"}),
    ("sweep ti", {"tiny"}),
    ("sweep 2026", {RUN}),
    ("sweep mine.yaml phases.e", {"phases.extra."}),
    ("sweep tiny phases.f", {"phases.finetune."}),
    ("sweep tiny --at 60% phases.f", {"phases.finetune."}),
    ("completion ''", {"bash", "zsh"}),
    ("nodes --forget ''", {"n2", "gpu-1.site", "gpu-2.site"}),
    ("nodes --forget n2 g", {"gpu-1.site", "gpu-2.site"}),
    ("nodes --runs elsewhere --forget ''", set()),
])
def test_bash(here: Path, capsys: pytest.CaptureFixture[str], typed: str, offered: set[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (here / "script").write_text(capsys.readouterr().out)
    done = subprocess.run(["bash", "-c", ASK.format(script=here / "script", words=f"drumbeat {typed}")],
                          capture_output=True, text=True, check=True)
    assert (set(done.stdout.split()), done.stderr) == (offered, "")


HOSTILE = ["$(touch${IFS}executed)", "`touch${IFS}executed`", "a;touch executed", "x\ny", "*"]


def test_hostile_names_are_not_executed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of run folders, of configs and of keys in a config."""
    for name in HOSTILE:
        (here / "runs" / name / name).mkdir(parents=True)
        (here / "runs" / name / name / "plan.json").touch()
        (here / f"{name}.yaml").write_text("{}")
    (here / "hostile.yaml").write_text("".join(f"{json.dumps(name)}: 1\n" for name in HOSTILE))
    assert main(["completion", "bash"]) == 0
    (here / "script").write_text(capsys.readouterr().out)
    for typed in ("cancel ''", "run ''", "run hostile.yaml ''", "run hostile.yaml '$(touch executed)'",
                  "run '$(touch executed)' seed", "logs --runs '$(touch executed)' ''"):
        done = subprocess.run(["bash", "-c", ASK.format(script=here / "script", words=f"drumbeat {typed}")],
                              capture_output=True, text=True, check=True)
        assert done.stderr == ""
    assert not (here / "executed").exists()
    assert "$(touch" not in done.stdout


def test_a_hostile_folder_is_not_imported_from(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("drumbeat.py", "yaml.py", "sitecustomize.py"):
        (here / name).write_text("open('executed', 'w')")
    assert main(["completion", "bash"]) == 0
    (here / "script").write_text(capsys.readouterr().out)
    done = subprocess.run(["bash", "-c", ASK.format(script=here / "script", words="drumbeat run mine.yaml batch")],
                          capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["batch_size="]
    assert not (here / "executed").exists()


def test_completing_keys_imports_no_torch() -> None:
    show = ("import sys; from drumbeat.launch.commands.config_keys import candidates; "
            "candidates('', ['run', 'resnet50_xray']); print({'torch', 'submitit'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_zsh(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """zsh accepts the script, and its functions find the runs."""
    if shutil.which("zsh") is None:
        assert os.environ.get("CI") != "true", "CI installs zsh"
        pytest.skip("zsh is not installed")
    assert main(["completion", "zsh"]) == 0
    (here / "_drumbeat").write_text(capsys.readouterr().out)
    (here / "ask").write_text(ZSH.replace("HERE", str(here)))
    done = subprocess.run(["zsh", "-f", str(here / "ask")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "tiny", RUN, "other", RUN.replace("a", "b"), "gpu-1.site", "gpu-2.site", "n2", "evaluation.mode=",
        "evaluation.mode=min", "evaluation.mode=max", "_shtab_drumbeat"]
    assert done.stderr == ""
