"""A folder with a config, and a cluster to submit to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.launch.tiny_plan import FACTS, write_config


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config; sbatch takes every job and squeue knows none; the preflight check finds no fault."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    for name, script in (("sbatch", "echo Submitted batch job 4711"), ("srun", ""), ("squeue", ""),
                         ("sinfo", "hostname")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", lambda config, plan: FACTS)
    write_config(tmp_path)
    return tmp_path


@pytest.fixture
def lab(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `lab` with the module that the config's model is in, and the command typed there."""
    monkeypatch.delenv("PYTHONPATH")
    (cluster / "lab").mkdir()
    (cluster / "small.yaml").rename(cluster / "lab" / "small.yaml")
    (cluster / "lab" / "nets.py").write_text("one")
    monkeypatch.chdir(cluster / "lab")
    return cluster / "lab"
