"""The variables that a config refers to: in the plan by name, in the run's processes with their values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Status
from drumbeat.launch.plan.references import check_references, not_exported, with_references
from drumbeat.trainers.report.report import report
from tests.runs import write_plan
from tests.tiny import drumbeat, latest, write_config

SECRET, LITERAL = f"key-{os.getpid()}", f"password-{os.getpid()}"
"""Not in the text of this file, which is a part of the code of the run."""


@pytest.fixture
def plan(tmp_path: Path) -> JobPlan:
    return write_plan(RunDir(tmp_path / "runs" / "tiny" / "20260101-000000-abcde"))


def test_the_plan_names_the_variables(tmp_path: Path, plan: JobPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODE", "fast")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    config = load(write_config(tmp_path), ["model.mode=${oc.env:MODE}", "model.token=${oc.env:HF_TOKEN}"]).config
    found = with_references(plan, config)
    assert found.variables == ("MODE", "HF_TOKEN")
    assert found.references.keys() == {"model.mode", "model.token"}
    assert found.references["model.token"] == ""
    assert not any(word in str(found.as_json()) for word in ("fast", SECRET))
    monkeypatch.setenv("HF_TOKEN", "a new one")
    check_references(with_references(plan, config, found), found)
    monkeypatch.setenv("MODE", "slow")
    with pytest.raises(ConfigError, match=r"model.mode has another value than when the run was started"):
        check_references(with_references(plan, config, found), found)


@pytest.mark.parametrize(("export", "missing"), [
    (None, []), ("ALL", []), ("ALL,X=1", []), ("NONE", ["A", "B"]), ("A,X=1", ["B"]), ("A=1,B", [])])
def test_what_sbatch_does_not_export(export: str | None, missing: list[str]) -> None:
    assert not_exported(["A", "B"], export) == missing


@pytest.mark.slow
def test_no_file_of_a_run_holds_a_secret_that_its_processes_use(tmp_path: Path) -> None:
    """Ranks, loader workers and the check before the start get it from the environment."""
    write_config(tmp_path)
    (tmp_path / "guarded.py").write_text(f"""\
import os, pathlib
from tests.tiny import Pictures

class Guarded(Pictures):
    def __init__(self, *, api_key, password, **rest):
        super().__init__(**rest)
        assert (api_key, password) == ({SECRET[::-1]!r}[::-1], {LITERAL[::-1]!r}[::-1]), "another key"
        pathlib.Path({str(tmp_path)!r}, f"used-{{os.environ.get('RANK')}}").touch()
""")
    train = f"{{_target_: guarded.Guarded, n: 100, api_key: '${{oc.env:WANDB_API_KEY}}', password: {LITERAL}}}"
    words = ["tiny.yaml", "--procs", "2", "phases.head.epochs=0.2", "phases.finetune.epochs=0.2", f"data.train={train}"]
    env = {name: text for name, text in os.environ.items() if name != "WANDB_API_KEY"}
    failed = drumbeat(tmp_path, *words, expect=2, preflight=True, env=env)
    assert "data.train.api_key refers to something that does not exist: Environment" in failed.stderr
    done = drumbeat(tmp_path, *words, "--dry-run", env=env | {"WANDB_API_KEY": SECRET})
    text = [done.stdout]
    assert '    api_key: "${oc.env:WANDB_API_KEY}"' in done.stdout
    assert '    password: "***"' in done.stdout
    assert "# inherited from this shell, because the config refers to them; in no file of the run:\n" \
           "#   WANDB_API_KEY\n" in done.stdout
    done = drumbeat(tmp_path, *words, preflight=True, env=env | {"WANDB_API_KEY": SECRET})
    run = latest(tmp_path)
    assert Status.require(run.status).state == "finished"
    assert {path.name for path in tmp_path.glob("used-*")} == {"used-0", "used-1", "used-None"}
    text += [done.stdout, done.stderr, report(run)]
    assert "${oc.env:WANDB_API_KEY}" in text[-1]
    holders = [path.name for path in run.path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert holders == []
    assert SECRET not in "".join(text) and LITERAL not in "".join(text)
    literal = [path for path in run.path.rglob("*") if path.is_file() and LITERAL.encode() in path.read_bytes()]
    assert literal == [run.config]
    assert run.config.stat().st_mode & 0o077 == 0
