"""The house keeps its rules: who imports whom, what the launcher never loads, and that everything shipped works."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT, file_layers
from drumbeat.configs.load import load, load_site
from drumbeat.configs.schema import Site
from drumbeat.launch.commands.start import EXECUTORS
from drumbeat.launch.plan.job import Machine, plan_job

MAY_IMPORT = {
    "configs": {"configs"},
    "data": {"data"},
    "models": {"models"},
    "trainers": {"trainers", "configs", "data", "models"},
    "launch": {"launch", "configs"},
}
"""Packages of ours that each of them may import."""

OURS = set(MAY_IMPORT)

CONFIGS_NEED = {"omegaconf", "yaml"}
"""All that `configs` may import besides the standard library."""

LAUNCH_NEVER = {"torch", "torchvision", "numpy", "PIL", "safetensors", "tensorboard"}
"""Slow to import, or not there on a login node."""

CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml"))
SITES = sorted(path for path in (ROOT / "configs" / "clusters").glob("*.yaml"))


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """Top-level names a file imports, anywhere in it, with the line; relative imports as '.'."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((name.name.partition(".")[0], node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." if node.level else str(node.module).partition(".")[0]), node.lineno


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_who_may_import_whom(package: str) -> None:
    wrong = [f"{file.relative_to(ROOT)}:{line} imports {name}" for file in modules(package)
             for name, line in imported(file) if name in OURS - MAY_IMPORT[package]]
    assert wrong == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_are_absolute(package: str) -> None:
    assert [f"{file.relative_to(ROOT)}:{line}" for file in modules(package) for name, line in imported(file)
            if name == "."] == []


def test_configs_need_nothing_but_yaml_and_omegaconf() -> None:
    allowed = {*sys.stdlib_module_names, *CONFIGS_NEED, "configs"}
    assert [f"{file.name}:{line} imports {name}" for file in modules("configs") for name, line in imported(file)
            if name not in allowed] == []


def test_launch_names_nothing_heavy() -> None:
    assert [f"{file.name}:{line} imports {name}" for file in modules("launch") for name, line in imported(file)
            if name in LAUNCH_NEVER] == []


def test_launch_loads_nothing_heavy() -> None:
    """Not through somebody else either: all of its modules, and what submitting takes, in a fresh interpreter."""
    names = [f"launch.{file.stem}" for file in modules("launch") if file.stem != "__init__"]
    program = f"import sys, submitit, {', '.join(names)}; print(*sorted({LAUNCH_NEVER!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_module_of_launch_hides_another() -> None:
    """`python launch/run.py` puts launch/ first on the path for a moment, so a launch/logging.py would be `logging`."""
    taken = {*sys.stdlib_module_names, *packages_distributions()} - {"launch"}
    assert [file.name for file in modules("launch") if file.stem in taken - {"__init__"}] == []


@pytest.mark.parametrize("package", [*MAY_IMPORT, "tests"])
def test_every_folder_of_modules_is_a_package(package: str) -> None:
    folders = {file.parent for file in modules(package)}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_module_says_what_it_is(package: str) -> None:
    assert [str(file.relative_to(ROOT)) for file in modules(package)
            if not ast.get_docstring(ast.parse(file.read_text()))] == []


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
@pytest.mark.parametrize(("where", "flags"), [
    ("debug", {}), ("local", {"launch.procs": 2, "drumbeat.launch.plan.gpus": 0}), ("local", {"drumbeat.launch.plan.gpus": 8}),
    ("slurm", {"drumbeat.launch.plan.gpus": 8, "launch.nodes": 2}),
])
def test_every_shipped_config_loads_and_plans(file: Path, where: str, flags: dict[str, int],
                                              tmp_path: Path) -> None:
    batch = {"batch_size": max(16, load(file).config.batch_size)}  # no fewer samples than ranks
    loaded = load(file, [], flags | batch)
    site = Site() if where != "slurm" else load_site("example")
    plan = plan_job(loaded.config, run_dir=tmp_path / "run", where=where, folder=tmp_path,  # type: ignore[arg-type]
                    machine=Machine(cpus=16, gpus=tuple(map(str, range(8)))), site=site)
    assert EXECUTORS[plan.where]().prepare(plan).text
    assert loaded.config.name == file.stem


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_shipped_config_opens_with_what_a_reader_wants_to_know(file: Path) -> None:
    head = file.read_text().partition("\n\n")[0]
    assert all(f"# {word} " in head for word in ("Reproduces", "Run", "Expect", "Time")), head
    assert load(file).config.data.how_to_get


@pytest.mark.parametrize("file", SITES, ids=lambda file: file.stem)
def test_every_shipped_site_loads(file: Path) -> None:
    assert load_site(file.stem) == load_site(str(file))


def test_the_example_site_shows_every_option() -> None:
    (layer,) = file_layers(ROOT / "configs" / "clusters" / "example.yaml")
    assert set(layer.values) == set(Site.__dataclass_fields__)
