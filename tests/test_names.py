"""Drumbeat reserves no names: users may have folders and modules with the names of ours, of Python's, of packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from drumbeat import __version__ as drumbeat_version
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.files import read_object
from drumbeat.configs.run.records import Result
from tests.tiny import drumbeat, latest

pytestmark = pytest.mark.xdist_group("names")  # which share the wheel

PACKAGES = sorted(path.name for path in (ROOT / "src" / "drumbeat").iterdir() if path.is_symlink())
"""The folders that a clone links into the package."""

LAB = {
    "launch/__init__.py": "WHOSE = 'the lab'",
    "configs/__init__.py": "from launch import WHOSE",
    "tests/__init__.py": "from configs import WHOSE",
    "tqdm/__init__.py": "from tests import WHOSE",
    "models/__init__.py": "",
    "models/net.py": """
import copy, queue, random, types
import tqdm
from torch import nn

assert tqdm.WHOSE == "the lab"

class Net(nn.Module):
    def __init__(self, *, classes, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, images):
        return self.layers(images[:, 0])
""",
    "data/__init__.py": "",
    "data/dataset.py": """
import tqdm
from models.net import Net
import drumbeat.data

assert Net.__module__ == "models.net"

class MyData(drumbeat.data.ImageFolder):
    whose = tqdm.WHOSE
""",
    "trainers/__init__.py": "",
    "trainers/tasks.py": """
import drumbeat
from data.dataset import MyData
from drumbeat.trainers.tasks import Classification

class MyTask(Classification):
    metric_names = (*Classification.metric_names, "mine", "copied")

    def metrics(self, results):
        copied = "/runs/lab/" in drumbeat.__file__
        return {**super().metrics(results), "mine": float(MyData.whose == "the lab"), "copied": float(copied)}
""",
    "lab.yaml": """
name: lab
batch_size: 8
model: {_target_: models.net.Net, classes: from_data}
task: {_target_: trainers.tasks.MyTask}
data:
  train: {_target_: data.dataset.MyData, root: images, channels: 1}
  validation: {_target_: data.dataset.MyData, root: images, channels: 1}
  test: {_target_: data.dataset.MyData, root: images, channels: 1}
  transforms: {batch: [{_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.25]}]}
  workers: 2
phases: {only: {epochs: 2, optimizer: {_target_: torch.optim.SGD, lr: 0.1}}}
evaluation: {monitor: mine, mode: max}
launch: {gpus: 0, cpus_per_rank: 1}
""",
} | {f"{name}.py": "raise ImportError('not the one of Python')" for name in ("copy", "queue", "random", "types")}
"""A lab's folder. Its modules import each other, and Python's own as well."""


def make_lab(folder: Path) -> Path:
    for name, text in LAB.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.lstrip())
    for number in range(24):
        file = folder / "images" / ("dark" if number % 2 else "light") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 200 * (number % 2 == 0) + number).save(file)
    return folder


def result(folder: Path) -> dict[str, Any]:
    """What the newest run there came to."""
    return Result.require(latest(folder, "lab").result).as_json()


@pytest.mark.slow
def test_a_labs_own_names_and_modules_train_evaluate_and_predict(tmp_path: Path) -> None:
    """On two ranks from a snapshot and without one, which come to the same, and in one process. The run is evaluated
    with the code that it was trained with, whatever is edited since."""
    lab = make_lab(tmp_path / "lab")
    alone = os.environ | {"PYTHONPATH": ""}
    weights = []
    for words, copied in ((["--procs", "2"], 1.0), (["--procs", "2", "--no-snapshot"], 0.0), (["--debug"], 0.0)):
        drumbeat(lab, "lab.yaml", *words, preflight=not weights, env=alone)
        best = result(lab)["best"]
        assert (best["mine"], best["copied"]) == (1.0, copied)
        weights.append(result(lab)["weights_sha256"])
    assert weights[0] == weights[1]

    first = min(path.name for path in (lab / "runs" / "lab").iterdir())
    for name in ("models/net.py", "data/dataset.py", "trainers/tasks.py"):
        (lab / name).write_text("raise ImportError('edited since')")
    (lab / "types.py").unlink()  # of all these, `python -m` itself needs this one
    for words in (["evaluate", first, "--procs", "2"], ["predict", first, "images"]):
        call([sys.executable, "-m", "drumbeat", *words], lab, PYTHONPATH=f"{ROOT}/src")
    figures = next((lab / "runs" / "lab" / first / "evaluation").glob("test-*/metrics.json"))
    assert (read_object(figures) or {})["samples"] == 24
    assert len((lab / "predictions.csv").read_text().splitlines()) == 25


def call(command: Sequence[str | Path], folder: Path, **variables: str) -> str:
    """What a command prints that is typed in `folder`, without our PYTHONPATH; fails where it does."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": ""} | variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
TO_BUILD = ("src", *PACKAGES, "tests", "docs", "benchmarks", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE",
            "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "requirements-dev.txt")


def build(project: Path) -> Path:
    """The wheel of a project, with the setuptools that is installed here."""
    call([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", project / "dist", project], project.parent)
    (wheel,) = (project / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("drumbeat"))


def copy_project(folder: Path) -> Path:
    """A copy of the repository, because building leaves files behind."""
    for name in TO_BUILD:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(project: Path) -> Path:
    return build(project)


def test_a_wheel_holds_drumbeat_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = set(opened.namelist())
    ours = {str(Path("drumbeat", file.relative_to(ROOT))) for package in PACKAGES
            for kind in ("*.py", "*.yaml", "*.css", "*.html") for file in (ROOT / package).rglob(kind)}
    ours |= {f"drumbeat/{name}" for name in ("__init__.py", "__main__.py", "api.py", "sweep_api.py", "py.typed")}
    assert {name for name in held if ".dist-info/" not in name} == ours


def test_a_source_distribution_holds_tests_docs_and_changelog_and_builds_the_same_wheel(project: Path, wheel: Path,
                                                                                        tmp_path: Path) -> None:
    call([sys.executable, "-c", "from setuptools.build_meta import build_sdist; build_sdist('dist')"], project)
    (file,) = (project / "dist").glob("*.tar.gz")
    with tarfile.open(file) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
        opened.extractall(tmp_path, filter="data")
    assert {"CHANGELOG.md", "Makefile", "docs/index.md", "tests/tiny.py", "tests/launch/backends/golden/cpu.sbatch",
            "benchmarks/loop.py", "src/drumbeat/launch/plan/job.py", "src/drumbeat/trainers/report/report.css"} <= names
    (source,) = tmp_path.iterdir()
    assert contents(build(source)) == contents(wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.fixture
def home(wheel: Path, tmp_path: Path) -> Path:
    """An environment with Drumbeat and a lab's packages, both from wheels; torch and the like are this one's."""
    folder = make_lab(tmp_path / "project")
    (folder / "pyproject.toml").write_text("""
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "lab"
version = "1"
[tool.setuptools]
packages = ["configs", "data", "launch", "models", "tests", "tqdm", "trainers"]
""")
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    site = packages(home)
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call([*PIP, "--python", home / "bin" / "python", "install", "--no-deps", build(folder), wheel], tmp_path)
    return home


def packages(home: Path) -> Path:
    (site,) = (home / "lib").glob("python*/site-packages")
    return site


@pytest.mark.slow
def test_installed_beside_a_labs_packages_neither_takes_the_others_files(home: Path, tmp_path: Path) -> None:
    site, python = packages(home), home / "bin" / "python"
    ask = "import drumbeat, models, tqdm; from drumbeat.models import ResNet18; from models.net import Net"
    call([python, "-c", ask], tmp_path)
    for name, left, gone in (("drumbeat", "models/net.py", "drumbeat"), ("lab", "drumbeat/models/cnn.py", "models")):
        shutil.copytree(site, tmp_path / "before")
        call([*PIP, "--python", python, "uninstall", "--yes", name], tmp_path)
        assert (site / left).is_file()
        assert not (site / gone).exists()
        shutil.rmtree(site)
        (tmp_path / "before").rename(site)
    for name, text in LAB.items():
        if name.endswith("/__init__.py"):
            assert (site / name).read_text() == text.lstrip()


@pytest.mark.slow
def test_a_run_from_a_wheel_keeps_the_code_that_is_installed(home: Path, tmp_path: Path) -> None:
    """Its copy is whole, and an upgrade does not change it."""
    site, program = packages(home), home / "bin" / "drumbeat"
    lab = make_lab(tmp_path / "work")
    for name in LAB:
        if "/" in name:
            (lab / name).unlink()
    assert call([program, "--version"], lab) == f"drumbeat {drumbeat_version}\n"
    message = call([program, "run", "lab.yaml", "--procs", "2"], lab)
    assert re.search(r"^code       installed/drumbeat, \d+ files$", message, re.M)
    best = result(lab)["best"]
    assert (best["mine"], best["copied"]) == (1.0, 1.0)
    copy = latest(lab, "lab").path / "code" / "installed" / "drumbeat"
    held = {file.relative_to(site / "drumbeat") for file in (site / "drumbeat").rglob("*")
            if file.is_file() and file.suffix != ".pyc"}
    assert {file.relative_to(copy) for file in copy.rglob("*") if file.is_file() and file.suffix != ".pyc"} == held

    for name in ("tasks", "worker", "build"):
        (site / "drumbeat" / "trainers" / f"{name}.py").write_text("raise ImportError('upgraded since')")
    call([program, "predict", "lab", "images"], lab)
    assert len((lab / "predictions.csv").read_text().splitlines()) == 25
