"""The Python API: what it starts, reads and stops is what the commands start, read and stop."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import drumbeat
from drumbeat.configs.errors import ConfigError, LaunchError, RunError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.configs.yaml_text import parse
from drumbeat.launch.commands.main import main
from tests.docs.warm import write_programs
from tests.runs import write_heartbeat, write_job, write_plan, write_state
from tests.tiny import CONFIG, write_config

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"


def test_importing_it_imports_nothing_else() -> None:
    program = ("import sys; before = {*sys.modules}; import drumbeat; "
               "print(*sorted({name.partition('.')[0] for name in {*sys.modules} - before} - sys.stdlib_module_names))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["drumbeat"]


def test_each_name_is_found_and_no_other() -> None:
    assert all(getattr(drumbeat, name) for name in drumbeat.__all__)
    assert {*drumbeat.__all__} <= {*dir(drumbeat)}
    with pytest.raises(AttributeError, match="no attribute 'sun'"):
        _ = drumbeat.sun


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[drumbeat.Run]:
    """A finished, a failed and a damaged run, with a config of their own each."""
    monkeypatch.chdir(tmp_path)
    for number, state in enumerate(("finished", "failed", "pending")):
        run = RunDir(tmp_path / "runs" / "tiny" / f"2026010{number}-100000-{state}")
        write_plan(run)
        write_job(run, "slurm", id=f"47{number}", host="login")
        write_state(run, state)  # type: ignore[arg-type]
        run.config.write_text(CONFIG + f"seed: {number}\n")
    first = drumbeat.runs()[0].folder
    write_heartbeat(first, step=50, steps=100, loss=0.5)
    Result(steps=100, samples_seen=400, overshoot=0, best={"step": 50, "loss": 0.25}).write(first.result)
    (tmp_path / "runs" / "tiny" / "20260102-100000-pending" / "plan.json").write_text("{")
    return drumbeat.runs()


def test_runs_are_found_as_commands_find_them(three: list[drumbeat.Run]) -> None:
    run = drumbeat.Run("20260100")
    assert run == three[0] == drumbeat.Run(run.path)
    assert (run.name, run.id, run.state, run.config.seed) == ("tiny", "20260100-100000-finished", "finished", 0)
    assert "state           finished" in str(run)
    assert run.metrics == {"validation/loss": 0.25}
    assert run.curves() == {}
    with pytest.raises(RunError, match="there is no run 'missing'"):
        drumbeat.Run("missing")


def test_runs_are_a_table_with_what_ls_tells(three: list[drumbeat.Run], capsys: pytest.CaptureFixture[str]) -> None:
    table = drumbeat.runs().to_pandas("seed", "phases.head.epochs", "data.train.n", "nothing.at_all")
    assert main(["ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)[::-1]
    assert [*table["id"]] == [one["id"] for one in listed]
    assert [*table["state"]] == ["finished", "failed", "damaged"]
    assert [*table["seed"]] == [0, 1, 2] and [*table["data.train.n"]] == [100] * 3
    assert table["result.best.loss"][0] == 0.25 and table["nothing.at_all"].isna().all()
    assert len(drumbeat.Runs(run for run in three if "failed" in run.id).to_pandas()) == 1
    assert len(drumbeat.Runs().to_pandas()) == 0


def test_without_pandas_there_is_one_screen(three: list[drumbeat.Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(LaunchError, match=r"pip install 'drumbeat\[pandas\]'"):
        drumbeat.runs().to_pandas()


def test_mistakes_are_the_screens_of_the_commands(three: list[drumbeat.Run], tmp_path: Path,
                                                 capfd: pytest.CaptureFixture[str]) -> None:
    """As exceptions, with all faults at once, and nothing is left behind."""
    with pytest.raises(ConfigError) as raised:
        drumbeat.run(write_config(tmp_path), ["batch_sise=3"], procs=0)
    assert main(["run", "tiny.yaml", "batch_sise=3", "--procs", "0"]) == 2
    assert capfd.readouterr().err == f"{raised.value}\n"
    with pytest.raises(RunError, match="there is no run"):
        drumbeat.Run(three[1].path / "nothing")
    with pytest.raises(drumbeat.UserError, match=r"plan\.json"):
        drumbeat.Run("20260102").resume()
    assert {run.id for run in drumbeat.runs()} == {run.id for run in three}


def test_a_config_may_be_a_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        drumbeat.run({"base": write_config(tmp_path).name, "phases": {"head": {"epochs": "many"}}})
    assert [(fault.what, fault.where) for fault in raised.value.faults] == [
        ("phases.head.epochs must be a number", "config:4")]
    with pytest.raises(ConfigError, match="not a object"):
        drumbeat.run({"model": object()})
    with pytest.raises(ConfigError, match="overrides are a list"):
        drumbeat.run("tiny.yaml", "batch_size=3")


class Interrupts:
    """A standard output that interrupts the program, as Ctrl-C does, when it shows a running run."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        if ": running" in text:
            signal.raise_signal(signal.SIGINT)
        return len(text)

    def flush(self) -> None:
        pass


@pytest.fixture
def warm_start(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are started by a fork of a process that has imported torch."""
    programs = tmp_path_factory.mktemp("bin")
    write_programs(programs)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([f"{ROOT}/src", str(ROOT)]))
    monkeypatch.setattr(sys, "executable", str(programs / "python"))


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
def test_a_run_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started in a thread, so that an event loop goes on; its wait interrupted, which leaves it running; stopped,
    resumed, and finished."""
    monkeypatch.chdir(tmp_path)
    config: Any = parse(CONFIG).value
    config["task"] = {"_target_": "tests.tiny.Fuse", "folder": str(tmp_path), "at": [5], "how": "wait"}

    async def start() -> drumbeat.Run:
        return await asyncio.to_thread(drumbeat.run, config, {"phases.head.epochs": 1, "phases.finetune": None},
                                       procs=1, preflight=False)

    run = asyncio.run(start())
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sys, "stdout", Interrupts())
        run.wait()
    assert run.state == "running"
    with pytest.raises(TimeoutError, match="is running after 0 s"):
        run.wait(timeout=0, progress=False)
    with pytest.raises(RunError, match="still running"):
        run.resume()
    assert "saves a checkpoint" in run.stop()
    (tmp_path / "go").touch()
    assert run.wait(progress=False).state == "stopped"
    assert asyncio.run(run.resume(preflight=False).finished()).state == "finished"
    assert run.status.number == 1 and {*run.metrics} == {f"{name}/{metric}" for name in ("validation", "test")
                                                         for metric in ("loss", "accuracy")}
    assert [step for step, _ in run.curves()["validation/loss"]] == [9]


def cells() -> list[str]:
    """The code of the tutorial's cells."""
    found = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
def test_the_tutorial_runs_and_blocks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    """Cell after cell in one event loop, as a notebook does; another task of the loop sees the run running while a cell
    waits for its end."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    seen = set()

    async def look() -> None:
        while True:
            if "run" in names:
                seen.add(names["run"].state)
            await asyncio.sleep(0.05)

    async def notebook() -> Any:
        task, value = asyncio.create_task(look()), None
        for number, text in enumerate(cells()):
            tree = ast.parse(text)
            last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None  # type: ignore[attr-defined]
            for part, mode in ((tree, "exec"), (last, "eval")):
                if part is not None:
                    code = compile(part, f"cell {number}", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                    value = eval(code, names)  # noqa: S307
                    value = await value if asyncio.iscoroutine(value) else value
        task.cancel()
        return value

    table = asyncio.run(notebook())
    assert "running" in seen and names["run"].state == "finished"
    assert [*table["state"]] == ["finished"]
    assert table["result.best.accuracy"][0] == names["run"].metrics["validation/accuracy"]
    assert "training loss" in capsys.readouterr().out
    assert not names["run"].model().training
