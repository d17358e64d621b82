"""The preflight check runs in its own process: its results, faults and crashes as the launcher reports them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load, plain
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.start.preflight import check_disk_space, facts_text, preflight
from tests.launch.tiny_plan import FACTS, config, plan
from tests.tiny import write_config

FAULTS = {"faults": [{"what": "no such folder", "where": "data.train", "given": "x", "remedy": "make it"},
                     {"what": "no such net", "where": "model", "given": "", "remedy": ""}]}


def python_that(folder: Path, script: str) -> JobPlan:
    """A plan whose Python is a shell script."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return dataclasses.replace(plan(folder), python=str(program))


def test_facts_are_read(tmp_path: Path) -> None:
    assert preflight(config(tmp_path), python_that(tmp_path, f"echo '{json.dumps(FACTS)}'")) == FACTS


def test_all_faults_are_raised(tmp_path: Path) -> None:
    with pytest.raises(PreflightError) as error:
        preflight(config(tmp_path), python_that(tmp_path, f"echo '{json.dumps(FAULTS)}'"))
    assert [dataclasses.asdict(fault) for fault in error.value.faults] == FAULTS["faults"]


def test_a_check_that_crashes_is_a_fault_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PreflightError, match="the preflight check ended with exit code 3 and no result"):
        preflight(config(tmp_path), python_that(tmp_path, "echo 'out of memory' >&2; exit 3"))
    assert capfd.readouterr().err == "checking   model, weights and data ...\nout of memory\n"


def test_the_check_receives_config_ranks_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("KEPT", "yes")
    planned = python_that(tmp_path, f"cd {tmp_path}; cat > stdin; env > env; echo $@ > argv; echo {{}}")
    small = config(tmp_path)
    assert preflight(small, planned) == {}
    assert json.loads((tmp_path / "stdin").read_text()) == {
        "config": plain(small), "topology": planned.topology.as_json(), "backend": "local",
        "run": planned.run_dir}
    found = (tmp_path / "env").read_text().splitlines()
    assert f"PYTHONPATH={planned.environment['PYTHONPATH']}" in found
    assert "KEPT=yes" in found
    assert "RANK=3" not in found
    assert (tmp_path / "argv").read_text() == "-m drumbeat.configs.importing drumbeat.trainers.commands.preflight\n"


def test_ctrl_c_does_not_reach_the_check(tmp_path: Path) -> None:
    """It would print a traceback. This process ends it when interrupted."""
    group = python_that(tmp_path, "echo \"{\\\"group\\\": $(cut -d' ' -f5 /proc/$$/stat)}\"")
    assert preflight(config(tmp_path), group)["group"] != os.getpgrp()


def test_facts_in_two_lines() -> None:
    assert facts_text(FACTS) == ("samples    1,000 train, 20 test\n"
                                 "steps      167 in head, 300 in finetune  (12,345 parameters)")
    assert facts_text(FACTS | {"notes": ["one thing"]}) == f"{facts_text(FACTS)}\nnote       one thing"


@pytest.mark.slow
def test_the_real_check_names_the_line_of_a_fault(tmp_path: Path) -> None:
    from tests.tiny import CONFIG, drumbeat

    (tmp_path / "tiny.yaml").write_text(CONFIG.replace("n: 100", "nn: 100"))
    done = drumbeat(tmp_path, "tiny.yaml", "model.widht=3", expect=2, preflight=True)
    assert done.stdout == ""
    assert done.stderr == """\
checking   model, weights and data ...
error: tests.tiny.Pictures has no argument 'nn'
  where  tiny.yaml:8 (data.train.nn)
  given  nn: 100
  fix    Did you mean 'n'?

error: tests.tiny.Net has no argument 'widht'
  where  command line (model.widht)
  given  widht: 3
  fix    Did you mean 'width'?
"""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "remedy"), [
    ("resnet50_xray_demo", "  fix    drumbeat demo-data xray datasets/xray_demo\n"),
    ("resnet50_xray", "  fix    kaggle datasets download paultimothymooney/chest-xray-pneumonia\n"),
])
def test_missing_data_says_how_to_get_it(tmp_path: Path, config: str, remedy: str) -> None:
    from tests.tiny import drumbeat

    done = drumbeat(tmp_path, config, "initialize.weights=null", expect=2, preflight=True)
    assert remedy in done.stderr
    screen = done.stderr.replace("\n       ", " ")
    assert f"error: the folder of the data does not exist: {tmp_path}/datasets/" in screen
    assert "         If it is elsewhere: data.root=DIR\n" in done.stderr
    assert len(done.stderr.splitlines()) <= 24
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("keys", "megabytes"), [
    ([], 40), (["checkpoints.keep=5"], 70), (["checkpoints.keep_best=3"], 60),
    (["checkpoints.keep_every_epochs=0.5"], 130)])
def test_the_disk_must_hold_what_is_kept_and_the_one_that_is_written(tmp_path: Path, keys: list[str], megabytes: int,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint takes 10 MB, and the phases have 4.5 epochs."""
    changed = load(write_config(tmp_path), keys).config
    warnings = []
    for free in (megabytes, megabytes - 1):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free * 10**6))
        warnings.append(check_disk_space(tmp_path, changed, {"weights_bytes": 10**7 / 3}))
    assert warnings[0] == ""
    assert warnings[1].startswith(f"checkpoints may take {megabytes} MB, and {megabytes - 1} MB are free; ")
