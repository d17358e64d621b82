"""Configs are UTF-8 in any locale, and everything can be printed in it."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from tests.launch.fake_slurm import programs
from tests.launch.tiny_plan import CONFIG
from tests.runs import write_job, write_plan, write_state

GREETING = "Grüße, Ωmega …"


@cache
def locale(name: str) -> dict[str, str]:
    """The variables of a locale. ISO-8859-1 is compiled; skips if its sources are not installed."""
    variables = {"LC_ALL": name, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if name != "C":
        folder = mkdtemp()
        try:
            subprocess.run(["localedef", "-i", "de_DE", "-f", name, f"{folder}/{name}"], check=True,
                           capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this machine cannot compile a locale")
        variables["LOCPATH"] = folder
    return variables


def drumbeat(folder: Path, name: str, *words: str | bytes) -> subprocess.CompletedProcess[bytes]:
    """Runs a command in a locale."""
    path = programs(folder, sbatch="echo 'sbatch: error: Invalid account' >&2; exit 1", srun="", scontrol="exit 1")
    return subprocess.run([sys.executable, "-m", "drumbeat", *words], cwd=folder, capture_output=True, check=False,
                          env=os.environ | {"PYTHONPATH": f"{ROOT}/src", "PATH": path} | locale(name))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A stopped run on SLURM."""
    run = RunDir(tmp_path / "runs" / "small" / "20260101-100000-aaaaa")
    write_plan(run, backend="slurm")
    write_job(run, "slurm", id="1")
    write_state(run, "stopped", verdict=GREETING)
    hint = f"  download_hint: {GREETING}\n  train:"
    run.config.write_text(f"{CONFIG}# {GREETING}\n".replace("  train:", hint), "utf-8")
    return run


@pytest.mark.parametrize("name", ["C", "ISO-8859-1"])
def test_a_config_is_utf8(name: str, run: RunDir, tmp_path: Path) -> None:
    """Also after a resume that sbatch has refused, which restores the file."""
    before = run.config.read_bytes()
    done = drumbeat(tmp_path, name, "run", str(run.config), "--procs", "1", "--dry-run")
    assert done.returncode == 0, done.stderr
    encoding = {"C": "ascii"}.get(name, name)
    assert GREETING.encode(encoding, "backslashreplace") in done.stdout
    refused = drumbeat(tmp_path, name, "resume", str(run.path), "--procs", "1", "tracking.images=3", "--no-preflight")
    assert (refused.returncode, b"Invalid account" in refused.stderr) == (2, True), refused.stderr
    assert run.config.read_bytes() == before
    status = drumbeat(tmp_path, name, "status", str(run.path))
    assert GREETING.encode(encoding, "backslashreplace") in status.stdout


@pytest.mark.parametrize("name", ["C", "ISO-8859-1"])
def test_words_that_are_not_in_the_locale_are_repeated_as_bytes(name: str, tmp_path: Path) -> None:
    done = drumbeat(tmp_path, name, "status", "Grüße".encode() + b"\xff")
    assert done.returncode == 2
    assert b"there is no run" in done.stderr
    assert b"Traceback" not in done.stderr
