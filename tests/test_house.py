"""Rules of the repository: which modules import which, what the launcher never loads, and that all configs work."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest

from drumbeat.configs.layers import ROOT, file_layers
from drumbeat.configs.load import load, load_site
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.site import Site
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.plan.job import Machine, plan_job

MAY_IMPORT = {
    "configs": {"configs"},
    "data": {"data"},
    "models": {"models"},
    "trainers": {"trainers", "configs", "data", "models"},
    "launch": {"launch", "configs"},
    "api": {"launch", "trainers", "configs"},
    "sweep_api": {"api", "launch", "configs"},
}
"""The packages that each package may import. `api` and `sweep_api` are modules that stand above them all, in
src/drumbeat/."""

ROOMS = {
    "launch": [{"commands"}, {"sweeps"}, {"start", "drill", "replay"}, {"runs", "node"}, {"backends"},
               {"plan", "slurm", "attempts"}],
    "trainers": [{"comparison"}, {"commands", "report"}, {"inference", "doctor", "trackers"}, {""},
                 {"checkpoints", "tasks"}],
    "configs": [{"run"}, {""}],
    "data": [{"demo"}, {""}],
}
"""The folders of a package, in rows: each may import from the rows below. "" are the modules beside the folders."""

SCRIPT = "drumbeat.launch.run"
"""It is run, and no module imports it."""

CONFIGS_NEED = {"omegaconf", "yaml"}
"""The packages that `configs` may import besides the standard library."""

LAUNCH_NEVER = {"torch", "torchvision", "numpy", "PIL", "safetensors", "tensorboard"}
"""Packages that are slow to import, or missing on a login node."""

MOST_LINES = 300
LONGER: set[str] = set()

pytestmark = pytest.mark.xdist_group("house")  # one worker reads the files, once

CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml"))
SITES = sorted(path for path in (ROOT / "configs" / "clusters").glob("*.yaml"))


def files(package: str) -> list[Path]:
    folder = ROOT / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / "src" / "drumbeat" / f"{package}.py"]


@cache
def modules() -> dict[str, Path]:
    """All modules of Drumbeat, by dotted name."""
    found = {}
    for file in chain((ROOT / "src" / "drumbeat").glob("*.py"), *map(files, MAY_IMPORT)):
        inside = file.relative_to(ROOT / "src" if "src" in file.relative_to(ROOT).parts else ROOT).with_suffix("")
        parts = inside.parts if inside.parts[0] == "drumbeat" else ("drumbeat", *inside.parts)
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


@cache
def imported(file: Path) -> tuple[tuple[str, int], ...]:
    """The dotted names of all modules that a file imports, except for types only, with the line. Relative imports start
    with a dot."""
    return tuple(_imported(ast.parse(file.read_text(), str(file))))


def _imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for_types = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) ==
                 "TYPE_CHECKING" for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in for_types:
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and id(node) not in for_types:
            origin = "." * node.level + (node.module or "")
            yield from ((f"{origin}.{name.name}" if f"{origin}.{name.name}" in modules() else origin, node.lineno)
                        for name in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def room(name: str) -> tuple[str, str]:
    """The package and the folder in it that a module belongs to."""
    package = modules()[name].name == "__init__.py"
    _, first, *rest = [*name.split("."), *([""] if package else [])]
    return first, rest[0] if len(rest) > 1 else ""


def ours(package: str) -> Iterator[tuple[str, str, str]]:
    """Imports of Drumbeat's modules in a package: the place, the importing module, the imported module."""
    for name, file in modules().items():
        if name.startswith(f"drumbeat.{package}") and name != SCRIPT:
            for other, line in imported(file):
                if other in modules() and other != "drumbeat":
                    yield f"{file.relative_to(ROOT)}:{line} imports {other}", name, other


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_they_may(package: str) -> None:
    assert [where for where, _, other in ours(package) if room(other)[0] not in MAY_IMPORT[package]] == []


@pytest.mark.parametrize("package", [*MAY_IMPORT, "benchmarks", "docs", "tests"])
def test_our_modules_are_imported_by_their_full_names(package: str) -> None:
    """`import data` imports the user's package."""
    assert [f"{file.relative_to(ROOT)}:{line} imports {name}" for file in files(package) for name, line in
            imported(file) if top(name) in {"", *MAY_IMPORT}] == []


@pytest.mark.parametrize("package", ROOMS)
def test_imports_between_folders_point_down(package: str) -> None:
    row = {name: number for number, names in enumerate(ROOMS[package]) for name in names}
    assert {room(name)[1] for name in modules() if room(name)[0] == package and name != SCRIPT} <= {"", *row}
    wrong = []
    for where, name, other in ours(package):
        (_, mine), (other_package, theirs) = room(name), room(other)
        if other_package == package and mine != theirs and row[mine] >= row[theirs]:
            wrong.append(where)
    assert wrong == []


def test_there_are_no_import_cycles() -> None:
    rest = {name: {other for other, _ in imported(file) if other in modules()} - {name}
            for name, file in modules().items()}
    while leaves := {name for name, others in rest.items() if not others & rest.keys()}:
        rest = {name: others for name, others in rest.items() if name not in leaves}
    assert rest == {}


def test_no_module_imports_the_script() -> None:
    everywhere = chain(modules().values(), files("benchmarks"), files("docs"), files("tests"))
    assert [str(file) for file in everywhere for name, _ in imported(file) if name in (SCRIPT, "launch.run")] == []


def test_configs_need_nothing_but_yaml_and_omegaconf() -> None:
    allowed = {*sys.stdlib_module_names, *CONFIGS_NEED, "drumbeat"}
    assert [f"{file.name}:{line} imports {name}" for file in files("configs") for name, line in imported(file)
            if top(name) not in allowed] == []


def test_only_backends_compare_backend_names() -> None:
    """Other modules neither compare values of `BackendName` nor use them as keys."""
    words, wrong = set(get_args(BackendName)), []
    for file in files("launch"):
        if file.parent.name != "backends":
            for node in ast.walk(ast.parse(file.read_text())):
                constants = {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)}
                table = isinstance(node, ast.Subscript) and ast.unparse(node.slice).endswith("backend")
                if table or (isinstance(node, ast.Compare) and constants & words):
                    wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


def test_one_file_calls_slurms_programs() -> None:
    """Except for the job that submitit queues, and the srun in the job's script."""
    programs = {"squeue", "scontrol", "sinfo", "scancel", "sacctmgr", "sbatch", "srun"}
    wrong = []
    for file in files("launch"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess."):
                first = next((inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)), None)
                if first in programs:
                    wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


def test_launch_imports_nothing_heavy() -> None:
    assert [f"{file.name}:{line} imports {name}" for file in files("launch") for name, line in imported(file)
            if top(name) in LAUNCH_NEVER] == []


def test_launch_loads_nothing_heavy() -> None:
    """Not indirectly either: all of its modules, those needed for submitting, and the Python API, in a new
    interpreter."""
    above = ("drumbeat.launch", "drumbeat.api", "drumbeat.sweep_api")
    names = sorted(name for name in modules() if name.startswith(above) and name != SCRIPT)
    program = f"import sys, submitit, {', '.join(names)}; print(*sorted({LAUNCH_NEVER!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": f"{ROOT}/src"})
    assert done.stdout.split() == []


def test_no_module_beside_the_script_hides_another() -> None:
    """`python launch/run.py` briefly puts launch/ first on the path, so a launch/logging.py would hide `logging`."""
    taken = {*sys.stdlib_module_names, *packages_distributions()} - {"__pycache__"}  # which some wheels list
    assert [path.name for path in (ROOT / "launch").iterdir() if path.stem in taken] == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_files_are_short(package: str) -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files(package)}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES and name not in LONGER} == {}


THIN = {"__init__", "__main__"}
"""Modules of these names only import others, or start them."""
TESTED_ELSEWHERE: dict[str, str] = {}
"""Modules without a test file of their own, and why."""
MIRRORED = ["launch", "trainers", "configs", "data", "models"]
"""Packages whose tests mirror their modules."""


def untested(package: str) -> list[str]:
    """The modules of a package without a test file of the mirrored name, tests/PACKAGE/FOLDER/test_MODULE.py. Commands
    are thin: their tests are those of the modules that they call."""
    names = [file.relative_to(ROOT) for file in files(package) if file.stem not in THIN]
    return [str(name) for name in names
            if str(name) not in TESTED_ELSEWHERE and name.parts[:2] != ("launch", "commands")
            and not (ROOT / "tests" / name.parent / f"test_{name.name}").is_file()]


@pytest.mark.parametrize("package", MIRRORED)
def test_every_module_has_a_test_file_of_its_name(package: str) -> None:
    assert untested(package) == []


@pytest.mark.parametrize("package", [*MAY_IMPORT, "tests"])
def test_every_folder_of_modules_is_a_package(package: str) -> None:
    folders = {file.parent for file in files(package)}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_module_has_a_docstring(package: str) -> None:
    assert [str(file.relative_to(ROOT)) for file in files(package)
            if not ast.get_docstring(ast.parse(file.read_text()))] == []


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
@pytest.mark.parametrize(("name", "flags"), [
    ("debug", {}), ("local", {"launch.procs": 2, "launch.gpus": 0}), ("local", {"launch.gpus": 8}),
    ("slurm", {"launch.gpus": 8, "launch.nodes": 2}),
])
def test_every_shipped_config_loads_and_plans(file: Path, name: str, flags: dict[str, int],
                                              tmp_path: Path) -> None:
    batch = {"batch_size": max(16, load(file).config.batch_size)}  # at least as many samples as ranks
    loaded = load(file, [], flags | batch)
    backend = backend_of(name)  # type: ignore[arg-type]
    site = Site() if name != "slurm" else load_site("example")
    plan = plan_job(loaded.config, run_dir=tmp_path / "run", backend=name, folder=tmp_path,  # type: ignore[arg-type]
                    machine=backend.resources(Machine(cpus=16, gpus=tuple(map(str, range(8))))), site=site)
    assert backend.request(plan).text
    assert loaded.config.name == file.stem


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_shipped_config_has_a_complete_header(file: Path) -> None:
    head = file.read_text().partition("\n\n")[0]
    assert all(f"# {word} " in head for word in ("Reproduces", "Run", "Expect", "Time")), head
    assert load(file).config.data.download_hint


@pytest.mark.parametrize("file", SITES, ids=lambda file: file.stem)
def test_every_shipped_site_loads(file: Path) -> None:
    assert load_site(file.stem) == load_site(str(file))


def test_the_example_site_shows_every_option() -> None:
    (layer,) = file_layers(ROOT / "configs" / "clusters" / "example.yaml")
    assert set(layer.values) == set(Site.__dataclass_fields__)
