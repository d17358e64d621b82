"""Every mistake on the command line or in a config ends with exit code 2 and one screen: what is wrong, where, what was
given, and how to fix it; no traceback, and nothing on disk."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import State
from drumbeat.launch.commands.main import main
from tests.launch.tiny_plan import write_config
from tests.runs import write_job, write_plan

SCREENS: dict[str, str] = {
    "rnu small.yaml": """\
error: unknown command 'rnu'
  where  command line
  fix    Did you mean 'run'?
""",
    "run": """\
error: no config given
  where  command line
  fix    For example: drumbeat run resnet50_xray_demo
""",
    "run small.yaml --dryrun": """\
error: unexpected '--dryrun'
  where  command line
  fix    Did you mean '--dry-run'?
""",
    "run small.yaml --dry --gpu 2": """\
error: unexpected '--dry'
  where  command line
  fix    Did you mean '--dry-run'?

error: unexpected '--gpu'
  where  command line
  fix    Did you mean '--gpus'?
""",
    "run small.yaml --batch_size=3": """\
error: unexpected '--batch_size=3'
  where  command line
  fix    Values of the config are set with KEY=VALUE, without dashes:
         batch_size=3
""",
    "run small.yaml --lr 1e-3": """\
error: unexpected '--lr'
  where  command line
  fix    Values of the config are set with KEY=VALUE, without dashes:
         batch_size=64, phases.train.optimizer.lr=1e-3
""",
    "run small.yaml --gpus two": """\
error: --gpus: 'two' is not a whole number
  where  command line
  fix    See: drumbeat run --help
""",
    "run small.yaml --gpus": """\
error: --gpus: expected one argument
  where  command line
  fix    See: drumbeat run --help
""",
    "run small.yaml --procs -3": """\
error: launch.procs must be at least 1
  where  --procs
  given  launch.procs: -3
  fix    Leave it out for the default: 1.
""",
    "run small.yaml --nodes 2": """\
error: more than one node needs a cluster
  where  --nodes
  given  2 nodes
  fix    Add --slurm; or, in an salloc, --here.
""",
    "run small.yaml --gpus 4": """\
error: this machine has no GPU
  where  --gpus
  given  4 ranks with one GPU each
  fix    Use --procs N for ranks on the CPU, or --slurm to run where there are
         GPUs.
""",
    "run small.yaml launch.gpus=4": """\
error: this machine has no GPU
  where  command line (launch.gpus)
  given  4 ranks with one GPU each
  fix    Use --procs N for ranks on the CPU, or --slurm to run where there are
         GPUs.
""",
    "run small.yaml --procs 11": """\
error: batch_size 10 is smaller than the world size, 11
  where  small.yaml:12 (phases.finetune.batch_size)
  given  phases.finetune.batch_size: 10
  fix    Use at most 10 ranks, or a batch of at least 11.
""",
    "run small.yaml --slurm": """\
error: the number of GPUs on each node is not given
  where  launch.gpus
  given  --slurm
  fix    Add --gpus N for N ranks with one GPU each, or --procs N for ranks on
         the CPU.
""",
    "run small.yaml --slurm --gpus 2": """\
error: SLURM is not installed here
  where  --slurm
  given  no sbatch and no srun on PATH
  fix    Log in to the cluster's login node, or remove --slurm to run on this
         machine. --dry-run shows the script without SLURM.
""",
    "run small.yaml --slurm --gpus 2 --profile exampel": """\
error: no cluster profile 'exampel'
  where  configs/clusters
  given  --profile exampel
  fix    Did you mean 'example'?
""",
    "run small.yaml --profile example": """\
error: --profile describes a cluster, but this run is local
  where  command line
  given  --profile example
  fix    Add --slurm or --here, or remove --profile.
""",
    "run small.yaml --here": """\
error: this shell is not in a SLURM allocation
  where  --here
  given  SLURM_JOB_ID is not set
  fix    Allocate one and run this command in it: salloc --nodes=2 --gres=gpu:8
         --cpus-per-task=64 --time=4:00:00
         Or submit the run to the queue: --slurm instead of --here.
""",
    "run small.yaml --here --slurm --debug": """\
error: --debug and --slurm are mutually exclusive
  where  command line
  fix    Remove --slurm.

error: --debug and --here are mutually exclusive
  where  command line
  fix    Remove --here.

error: --here and --slurm are mutually exclusive
  where  command line
  fix    Remove --slurm.
""",
    "run small.yaml --debug --slurm --nodes 2 --gpus 3 --procs 1": """\
error: --debug and --slurm are mutually exclusive
  where  command line
  fix    Remove --slurm.

error: --debug and --nodes are mutually exclusive
  where  command line
  fix    Remove --nodes.

error: --gpus and --procs are mutually exclusive
  where  command line
  fix    Remove --procs.

error: --debug runs one rank, in this process
  where  command line
  fix    Remove --gpus and --procs.
""",
    "run small.yaml other.yaml": """\
error: more than one config
  where  command line
  given  small.yaml other.yaml
  fix    Write changes to it as KEY=VALUE: batch_size=64
""",
    "run small.yaml dry_run": """\
error: more than one config
  where  command line
  given  small.yaml dry_run
  fix    Did you mean '--dry-run'?
""",
    "run batch_size=3": """\
error: no config given
  where  command line
  given  batch_size=3
  fix    For example: drumbeat run resnet50_xray_demo
""",
    "run small.yml": """\
error: there is no config 'small.yml'
  where  HERE
  fix    Did you mean 'small.yaml'?
""",
    "run .": """\
error: a config must be a file, and this is a folder
  where  .
  fix    It contains: small.yaml
""",
    "run small.yaml batchsize=3 phases.head.epochs=many": """\
error: unknown key 'batchsize' at the top level
  where  command line
  given  batchsize: 3
  fix    Did you mean 'batch_size'?

error: phases.head.epochs must be a number
  where  command line
  given  phases.head.epochs: many
""",
    "run small.yaml a=1 b=1 c=1 d=1 data.workers=-1": """\
error: 5 things are wrong
  command line: unknown key 'a' at the top level. Valid names: batch_size,
    budget, channels_last, checkpoints, compile, data, deterministic,
    evaluation, find_unused_parameters, initialize, launch, limit_batches,
    micro_batch_size, model, name, notify, on_nonfinite, phases, precision,
    recompute, reference, seed, sync_batchnorm, task, tracking, virtual_ranks,
    watchdog.
  command line: unknown key 'b' at the top level.
  command line: unknown key 'c' at the top level.
  command line: unknown key 'd' at the top level.
  command line: data.workers must be at least 0, not -1. Leave it out, or
    write null.
""",
    "run small.yaml --name a/b": """\
error: name must be a plain name: letters, digits, '_', '-' and '.', starting
       with a letter or digit
  where  --name
  given  name: a/b
""",
    "run small.yaml --runs small.yaml": """\
error: the run folder cannot be created: it is not a folder
  where  HERE/small.yaml
  given  HERE/small.yaml/small/RUN
  fix    Choose another folder for runs: --runs DIR
""",
    "run small.yaml epochs=1": """\
error: unknown key 'epochs' at the top level
  where  command line
  given  epochs: 1
  fix    Did you mean 'phases.head.epochs' or 'phases.finetune.epochs'?
""",
    "status ": """\
error: the following arguments are required: RUN
  where  command line
  fix    See: drumbeat status --help
""",
    "run --resume nope": """\
error: there is no run 'nope'
  where  HERE/runs
  fix    Give a run's folder, its id, or the name of an experiment for its
         latest run. The newest: 20260101-000000-aaaaa, 20260101-000000-bbbbb
""",
    "run --resume don small.yaml seed=3": """\
error: a run is resumed with its own config
  where  command line
  given  small.yaml
  fix    Remove it, or start a new run: drumbeat run CONFIG
""",
    "run --resume done --name x": """\
error: --resume and --name are mutually exclusive
  where  command line
  fix    Remove --name.
""",
    "run --resume done": """\
error: run 20260101-000000-aaaaa is finished
  where  HERE/runs/done/20260101-000000-aaaaa
  fix    Train it for longer: DRUMBEAT resume 20260101-000000-aaaaa
         phases.finetune.epochs=N
         Or start it again as a new run: DRUMBEAT rerun
         20260101-000000-aaaaa KEY=VALUE
""",
    "run --resume 20260101": """\
error: '20260101' is ambiguous: 2 runs begin with it
  where  runs
  given  20260101-000000-aaaaa, 20260101-000000-bbbbb
  fix    Type more characters of the id.
""",
    "status": """\
error: the following arguments are required: RUN
  where  command line
  fix    See: drumbeat status --help
""",
    "status doen": """\
error: there is no run 'doen'
  where  HERE/runs
  fix    Did you mean 'done'?
""",
    "status done --runs elsewhere": """\
error: there is no run 'done'
  where  HERE/elsewhere
  fix    There are no runs here yet. --runs DIR selects another folder.
""",
    "status done more": """\
error: unexpected 'more'
  where  command line
  fix    See --help.
""",
    "logs done": """\
error: no attempt has started yet
  where  HERE/runs/done/20260101-000000-aaaaa
  fix    Try again later, or use -f.
""",
    "logs done --rnk 2": """\
error: unexpected '--rnk'
  where  command line
  fix    Did you mean '--rank'?
""",
    "logs done --attempt 3": """\
error: there is no attempt 3
  where  HERE/runs/done/20260101-000000-aaaaa/attempts
  fix    None has started yet.
""",
    "logs done --all --rank 1": """\
error: --rank: not allowed with argument --all
  where  command line
  fix    See: drumbeat logs --help
""",
    "resume": """\
error: the following arguments are required: RUN
  where  command line
  fix    See: drumbeat resume --help
""",
    "resume waiting": """\
error: run 20260101-000000-bbbbb is still running
  where  HERE/runs/waiting/20260101-000000-bbbbb
  given  SLURM job 4711, state unknown: there is no squeue on PATH
  fix    Wait until it ends, or stop it: DRUMBEAT stop
         20260101-000000-bbbbb
         If you are sure that it is dead: DRUMBEAT resume
         20260101-000000-bbbbb --take-over
""",
    "resume waiting --take-over": """\
error: cannot read the config: No such file or directory
  where  runs/waiting/20260101-000000-bbbbb/config.yaml
""",
    "rerun don": """\
error: there is no run 'don'
  where  HERE/runs
  fix    Did you mean 'done'?
""",
    "rerun done small.yaml": """\
error: a run is repeated with its own config
  where  command line
  given  small.yaml
  fix    Remove it, or start a new run: drumbeat run CONFIG
""",
    "cancel waiting": """\
error: the run cannot be cancelled: SLURM does not answer
  where  HERE/runs/waiting/20260101-000000-bbbbb
  given  there is no squeue on PATH
  fix    Try again later; or have the run save and leave, which needs no SLURM:
         DRUMBEAT stop 20260101-000000-bbbbb
""",
    "stop waiting": """\
error: the run is waiting to start: there is nothing to stop yet
  where  HERE/runs/waiting/20260101-000000-bbbbb
  given  state: pending
  fix    Take it out of the queue: DRUMBEAT cancel
         20260101-000000-bbbbb
""",
    "report": """\
error: the following arguments are required: RUN
  where  command line
  fix    See: drumbeat report --help
""",
    "tensorboard done wating": """\
error: there is no run 'wating'
  where  HERE/runs
  fix    Did you mean 'waiting'?
""",
    "tensorboard done --port 99999": """\
error: there is no free port
  where  --port
  given  --port 99999
  fix    Choose another port between 1024 and 65535.
""",
    "drill small.yaml --faults 0": """\
error: --faults: '0' must be at least 1
  where  command line
  fix    See: drumbeat drill --help
""",
    "drill small.yaml --every -1": """\
error: --every: '-1' is not a number of seconds
  where  command line
  fix    See: drumbeat drill --help
""",
    "rerun ''": """\
error: no run given
  where  command line
  given  ''
  fix    Give a run's folder, its id, or the name of an experiment for its
         latest run.
""",
    "evaluate done --split tset": """\
error: --split: invalid choice: 'tset' (choose from train, validation, test)
  where  command line
  fix    See: drumbeat evaluate --help
""",
    "evaluate done --gpus 2": """\
error: this machine has no GPU
  where  --gpus
  given  --gpus 2
  fix    Use --procs N for ranks on the CPU.
""",
    "evaluate done --procs 2 --gpus 2": """\
error: --gpus and --procs are mutually exclusive
  where  command line
  fix    Remove --procs.
""",
    "evaluate done --procs 0": """\
error: --procs must be at least 1
  where  command line
  given  --procs 0
""",
    "predict done": """\
error: the following arguments are required: INPUT
  where  command line
  fix    See: drumbeat predict --help
""",
    "show": """\
error: the following arguments are required: CONFIG
  where  command line
  fix    See: drumbeat show --help
""",
    "demo-data mri x": """\
error: KIND: invalid choice: 'mri' (choose from xray, cifar10, fashion_mnist,
       hymenoptera, shapes, news)
  where  command line
  fix    See: drumbeat demo-data --help
""",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config and two runs, on a machine without GPUs and without SLURM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("drumbeat.launch.backends.typed.program", lambda name: f"/nowhere/{name}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    states: list[tuple[str, str, State]] = [("done", "aaaaa", "finished"), ("waiting", "bbbbb", "pending")]
    for name, number, state in states:
        run = RunDir(tmp_path / "runs" / name / f"20260101-000000-{number}")
        write_plan(run)
        run.write_status(state, attempt=-1)
        write_job(run, "slurm", id="4711")
        run.lock.touch()
        if state == "finished":
            run.config.write_text(load(write_config(tmp_path)).as_yaml())
    return tmp_path


@pytest.mark.parametrize("typed", SCREENS)
def test_screen(here: Path, capsys: pytest.CaptureFixture[str], typed: str) -> None:
    before = sorted(here.rglob("*"))
    assert main(shlex.split(typed)) == 2
    output = capsys.readouterr()
    screen = output.err.replace(str(here), "HERE").replace("/nowhere/drumbeat", "DRUMBEAT")
    run_id = screen.partition("small.yaml/small/")[2].partition("\n")[0]
    assert (screen.replace(run_id, "RUN") if run_id else screen) == SCREENS[typed]
    assert output.out == ""
    assert len(screen.splitlines()) <= 24
    assert max(map(len, screen.splitlines())) <= 80
    assert sorted(here.rglob("*")) == before
