"""A trial as a run; as a fork of a run, it trains in the process of the tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.load import load, read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.manifest import checkpoint_path, saved_steps
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import BackendName, Result
from drumbeat.configs.run.sweep import SweepDir
from drumbeat.configs.schema import Config
from drumbeat.launch.commands.fork import fork
from drumbeat.launch.commands.main import main, parse
from drumbeat.launch.sweeps.resolve import resolve_extension, resolve_sweep
from drumbeat.launch.sweeps.states import states_of, status_text
from drumbeat.launch.sweeps.task import prepare
from drumbeat.launch.sweeps.trial import new_trial, start_trial, view_of
from tests.launch import tiny_plan
from tests.launch.sweeps.made import made_sweep, write_trial
from tests.tiny import latest, write_config

LR = "phases.finetune.optimizer.lr"
DEBUG = ["--debug", "--no-preflight"]


def test_its_config_is_that_of_a_single_run(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"phases.head.optimizer.lr": "1e-3,3e-4", "launch.restarts": "7"})
    sweep = folder.read()
    spec = new_trial(folder, sweep, sweep.trials[1])
    single = load(tiny_plan.write_config(tmp_path), sweep.trials[1].assignments, {"name": "s"})
    assert spec.loaded.config == single.config
    shared = JobPlan.require(folder.plan)
    assert spec.plan == replace(shared, run_dir=str(spec.run_dir.path), restarts=7)
    assert (spec.run_dir, spec.preflight) == (folder.run(sweep, 1), False)


def test_a_trial_without_a_run(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..1"})
    write_trial(folder, 1, "finished")
    sweep = folder.read()
    assert view_of(folder, sweep, 0) is None
    assert (view := view_of(folder, sweep, 1)) and view.state == "finished"


@pytest.mark.parametrize("number", [7, 12345])
def test_its_id(tmp_path: Path, number: int) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..1"})
    sweep = folder.read()
    assert folder.run(sweep, number).id == f"{sweep.id}-{number:04d}"


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDir]:
    """A finished run of 30 steps that has kept a checkpoint of every third one. Commands are typed beside it."""
    path = tmp_path_factory.mktemp("forks")
    write_config(path)
    with chdir(path):
        assert main(["run", "tiny.yaml", "micro_batch_size=null", "tracking.images=0", "checkpoints.keep=99",
                     "budget.steps=30", *DEBUG]) == 0
        yield latest(path)


def forks(parent: RunDir, name: str, *words: str, backend: BackendName = "debug", jobs: tuple[str, ...] = ()
          ) -> SweepDir:
    """The folder of a sweep of forks, whose trials have not been started."""
    planned = resolve_sweep(parse(["sweep", parent.id, *words, "--name", name, "--procs", "1", "--no-snapshot"]))
    planned.folder.path.mkdir()
    planned.folder.config.write_text(planned.spec.loaded.as_yaml())
    replace(planned.spec.plan, backend=backend).write(planned.folder.plan)
    replace(planned.sweep, backend=backend, jobs=jobs).write(planned.folder.record)
    return planned.folder


def rate(config: Config) -> float:
    phase = config.phases["finetune"]
    assert phase
    return float(phase.optimizer["lr"])


def test_a_trial_is_the_fork_with_its_values(parent: RunDir) -> None:
    """Bit for bit; here one that is added later."""
    folder = forks(parent, "late", "--at", "80%", f"{LR}=0.01,0.03", "budget.steps=28")
    sweep = folder.read()
    assert (sweep.parent, sweep.at, sweep.changes) == (str(parent.path), 24, ("budget.steps=28",))
    extended = resolve_extension(parse(["sweep", "--extend", "late", f"{LR}=0.02"]), folder, sweep)
    assert [rate(loaded.config) for loaded in extended.checks] == [0.02]
    extended.sweep.write(folder.record)
    start_trial(folder, extended.sweep, extended.sweep.trials[2])
    run, by_hand = folder.run(sweep, 2), fork(parent, 24, ["budget.steps=28", f"{LR}=0.02"], options=DEBUG)
    mine, theirs = Result.require(run.result), Result.require(by_hand.result)
    assert (mine.weights_sha256, mine.steps, mine.best) == (theirs.weights_sha256, 28, theirs.best)
    assert Fork.require(run.fork) == Fork.require(by_hand.fork)
    assert read(run.config) == replace(read(by_hand.config), name="late")
    text = status_text(folder, extended.sweep, states_of(folder, extended.sweep))
    assert re.search(rf"^repeat +\S+ fork {parent.id} --at 24 budget\.steps=28 {LR}=0\.02$", text, re.MULTILINE)


def test_forks_are_planned(parent: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["sweep", parent.id, "--at", "20", f"{LR}=0.01,0.03", "--procs", "1", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"""\
sweep      tiny-sweep: 2 trials
fork of    {parent.id} at step 20
each       1 rank on the CPU, on this machine
where      a queue on this machine, 2 at a time
varies     {LR}=0.01,0.03
preflight  1 combination of model and data
folder     runs/tiny-sweep
trial 0    {LR}=0.01
trial 1    {LR}=0.03
note       the fork computes 2 of the 20 steps that it shares with run
           {parent.id} again, from its checkpoint of step 18

# Dry run: nothing was started or written.
"""
    planned = resolve_sweep(parse(["sweep", parent.id, "--at", "30", "budget.steps=32,33"]))
    assert planned.sweep.at == 30, "what varies is the only thing behind the last step"


@pytest.mark.parametrize(("words", "screen"), [
    (["tiny", "--at", "60%", "seed=0..4", "phases.head.epochs=2,3"], """\
error: seed cannot change on resume: the order of the samples and all random
       numbers follow from it
  where  command line (seed)
  given  0 in the run, 4 now
  fix    Leave it out, or start a new run: drumbeat rerun RUN KEY=VALUE
"""),
    (["--at", "60%", "seed=0..4"], """\
error: no run given
  where  command line
  given  --at 60%
  fix    For example: drumbeat sweep RUN --at 60% KEY=A,B
"""),
    (["tiny", "--at", "60%", "batch_size=5,6", "--asha", "loss"], """\
error: successive halving compares trials from their beginnings, and forks begin
       alike
  where  command line
  given  --asha loss --at 60%
  fix    Remove --asha.
"""),
    (["tiny", "other", "--at", "60%", "batch_size=5,6"], """\
error: a run is forked with its own config
  where  command line
  given  other
  fix    Remove it, or start a new run: drumbeat run CONFIG
"""),
], ids=lambda words: " ".join(words) if isinstance(words, list) else "")
def test_what_cannot_be_forked(parent: RunDir, words: list[str], screen: str, capsys: pytest.CaptureFixture[str]
                               ) -> None:
    before = sorted(Path("runs").iterdir())
    capsys.readouterr()
    assert main(["sweep", *words, "--procs", "1"]) == 2
    assert capsys.readouterr().err == screen
    assert sorted(Path("runs").iterdir()) == before


def test_a_fork_in_a_job_array(parent: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM may have killed the job when it had linked the checkpoints and not yet written the run."""
    for name, value in (("JOB_ID", "12"), ("ARRAY_JOB_ID", "12"), ("ARRAY_TASK_ID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", str(parent.path))
    folder = forks(parent, "array", "--at", "24", f"{LR}=0.01,0.03", backend="slurm", jobs=("12;gpu",))
    sweep, before = folder.read(), contents(parent)
    run, spec = folder.run(sweep, 1), new_trial(folder, sweep, sweep.trials[1])
    assert spec.prefix
    spec.prefix.make(run)
    assert prepare(folder, 1) == 0
    assert contents(parent) == before
    assert (Fork.require(run.fork).start, rate(read(run.config))) == (24, 0.03)
    assert max(saved_steps(run)) == 24
    linked, kept = (checkpoint_path(one, 24) / "model.safetensors" for one in (run, parent))
    assert linked.samefile(kept)


def contents(run: RunDir) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
