"""The script `launch/run.py` before anything is loaded: what it needs, and what it says of a missing package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from drumbeat.configs.layers import ROOT

NO_TORCH = "raise ImportError('something imported torch')\n"


def test_help_and_dry_run_need_neither_torch_nor_slurm(tmp_path: Path) -> None:
    for package in ("torch", "torchvision", "numpy"):
        (tmp_path / "stub" / package).mkdir(parents=True)
        (tmp_path / "stub" / package / "__init__.py").write_text(NO_TORCH)
    environment = {"PATH": "/nowhere", "PYTHONPATH": str(tmp_path / "stub"), "HOME": str(tmp_path)}
    for words in (["--help"], ["resnet50_xray_demo", "--procs", "2", "--dry-run"],
                  ["resnet50_xray", "--slurm", "--nodes", "2", "--gpus", "8", "--profile", "example", "--dry-run"]):
        done = subprocess.run([sys.executable, str(ROOT / "launch" / "run.py"), *words], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["stub"]


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "omegaconf.py").write_text("raise ModuleNotFoundError('not here', name='omegaconf')")
    done = subprocess.run([sys.executable, str(ROOT / "launch" / "run.py"), "resnet50_xray", "--dry-run"], cwd=tmp_path,
                          env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"error: omegaconf is not installed\n  where  {sys.executable}\n"
                           "  fix    Use .venv/bin/python, which `make demo` makes, or: pip install -e .\n")
