"""What `--dry-run` prints: valid YAML, then everything that the run would do, in the width of a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.load import load, read
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.site import Site
from drumbeat.configs.yaml_text import parse
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.commands.main import main
from drumbeat.launch.plan.job import Machine, plan_job
from drumbeat.launch.start.describe import describe, summary
from tests.launch.tiny_plan import plan, write_config

DRY_RUN = """\
# --- config: defaults, and the source of every other value
name: small                               # small.yaml:1
seed: 7                                   # command line
model:
  _target_: nets.Net                      # small.yaml:3
  width: 8                                # small.yaml:3
task:
  _target_: drumbeat.trainers.tasks.Classification
data:
  train:
    _target_: sets.Folder                 # small.yaml:5
    root: /pictures                       # small.yaml:5
  validation: {}
  test: {}
  download_hint: ""
  transforms:
    train: []
    evaluate: []
    batch: []
    fuse: true
  shuffle: true
  sampling: {}
  bucket_batches: null
  collate_fn: {}
  mix: {}
  cache: null
  on_error: raise
  max_skipped: 0.01
  allow_change: false
  workers: null
batch_size: 12                            # small.yaml:2
micro_batch_size: null
virtual_ranks: null
precision: auto
channels_last: true
deterministic: true
recompute: []
compile: {}
sync_batchnorm: false
find_unused_parameters: false
on_nonfinite: stop
phases:
  head:
    epochs: 2.0                           # small.yaml:8
    patience: null
    min_delta: 0.0
    target: null
    batch_size: null
    start_from: last
    freeze: []
    optimizer:
      _target_: torch.optim.Adam          # small.yaml:9
      lr: 0.01                            # small.yaml:9
    groups: {}
    layers: []
    layer_decay: 1.0
    scheduler: {}
    scheduler_every: step
    average: {}
    average_every: 1
    clip_norm: null
    transforms: []
  finetune:
    epochs: 3.0                           # small.yaml:11
    patience: null
    min_delta: 0.0
    target: null
    batch_size: 10                        # small.yaml:12
    start_from: last
    freeze: []
    optimizer:
      _target_: torch.optim.SGD           # small.yaml:13
      lr: 0.05                            # small.yaml:13
    groups: {}
    layers: []
    layer_decay: 1.0
    scheduler: {}
    scheduler_every: step
    average: {}
    average_every: 1
    clip_norm: null
    transforms: []
budget:
  steps: null
  hours: null
limit_batches: null
evaluation:
  batch_size: 64
  monitor: loss
  every_epochs: 1.0
  every_steps: null
  at_start: false
  mode: min
  batch_statistics: false
  views: []
  metrics: {}
checkpoints:
  every_steps: null
  every_minutes: 10.0
  disk_wait_minutes: 20.0
  keep: 2
  keep_best: 1
  keep_every_epochs: null
tracking:
  every_steps: 10
  loss_smoothing_steps: 1
  images: 16
watchdog:
  timeout_minutes: null
  idle_gpu_minutes: null
  desync_check_steps: 1000
launch:
  nodes: null
  min_nodes: null
  gpus: 0                                 # --gpus
  procs: 3                                # --procs
  cpus_per_rank: null
  restarts: 3

# --- processes
ranks       3 ranks on the CPU, on this machine, 2 cores each
run folder  runs/RUN

# --- samples
head      12 per step, 4 on each rank
finetune  10 per step, 3 or 4 on each rank
an epoch  not known yet: the preflight check counts the samples when the run is
          submitted, and checks the model, weights and data

# --- environment of every rank
PYTHONPATH=CODE/src
PYTHONSAFEPATH=1
DRUMBEAT_USER_PATH=HERE
PYTHONUNBUFFERED=1
PYTHONFAULTHANDLER=1
OMP_NUM_THREADS=2
# variables of this shell that are not passed on:
#   MASTER_ADDR: describes a process that torchrun started
#   SLURM_JOB_ID: describes the SLURM job of this shell

# --- command on each node
# ATTEMPT, NODE, ADDRESS and PORT: set when the job starts
PYTHON -m torch.distributed.run \\
  --nnodes=1 \\
  --nproc-per-node=3 \\
  --rdzv-backend=static \\
  --node-rank=NODE \\
  --master-addr=ADDRESS \\
  --master-port=PORT \\
  --max-restarts=0 \\
  -m drumbeat.trainers.worker HERE/runs/RUN ATTEMPT

# Not checked: targets, weights, data. The start of the run checks them first.
# Dry run: nothing was started or written."""


def dry_run(folder: Path, name: BackendName, flags: dict[str, object]) -> str:
    loaded = load(write_config(folder), ["seed=7"], flags)
    backend = backend_of(name)
    planned = plan_job(loaded.config, run_dir=folder / "runs" / "RUN", backend=name, site=Site(), folder=folder,
                       machine=backend.resources(Machine(cpus=8)))
    return describe(loaded, backend.request(planned))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("SLURM", "SUBMITIT"))]:
        monkeypatch.delenv(name)


def test_the_whole_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("MASTER_ADDR", "n1")
    text = dry_run(tmp_path, "local", {"launch.gpus": 0, "launch.procs": 3})
    assert text.replace(sys.executable, "PYTHON").replace(str(tmp_path), "HERE").replace(str(ROOT), "CODE") == DRY_RUN


def test_the_config_part_is_yaml_that_means_the_config(tmp_path: Path) -> None:
    loaded = load("resnet50_xray_demo")
    (tmp_path / "resolved.yaml").write_text(loaded.as_yaml())
    assert read(tmp_path / "resolved.yaml") == loaded.config
    main_part = dry_run(tmp_path, "local", {}).partition("\n\n")[0]
    assert parse(main_part)[0]["seed"] == 7


def test_slurm_shows_the_script_and_the_meeting_point(tmp_path: Path) -> None:
    text = dry_run(tmp_path, "slurm", {"launch.gpus": 4, "launch.nodes": 2})
    assert "ranks       8 ranks with one GPU each, 2 nodes x 4, through SLURM, 8 cores each\n" in text
    assert "# ATTEMPT, NODE, ADDRESS and PORT: set when the job starts\n" in text
    assert "\n# --- sbatch script\n#!/bin/bash\n" in text
    assert "#SBATCH --gres=gpu:4\n" in text


def test_debug_shows_the_call(tmp_path: Path) -> None:
    text = dry_run(tmp_path, "debug", {})
    assert "ranks       1 rank on the CPU, in this process, 8 cores each\n" in text
    assert "head      12 per step, all on one rank\n" in text
    assert f"# --- call\ndrumbeat.trainers.worker.main('{tmp_path}/runs/RUN', ATTEMPT)\n" in text
    assert "torch.distributed" not in text


def test_the_shipped_demo_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "resnet50_xray_demo", "--dry-run"]) == 0
    config, _, rest = capsys.readouterr().out.partition("\n\n")
    assert max(len(line) for line in config.splitlines() if not line.lstrip().startswith("root: /")) <= 80
    assert "the preflight check counts the samples" in rest


def test_the_summary_of_the_processes(tmp_path: Path) -> None:
    assert summary(plan(tmp_path)) == "1 rank on the CPU, on this machine"
    assert summary(plan(tmp_path, gpus=4)) == "4 ranks with one GPU each, on this machine"
    assert summary(plan(tmp_path, "launch.gpus=4", "launch.nodes=2", backend="slurm")) == (
        "8 ranks with one GPU each, 2 nodes x 4, through SLURM")


def test_the_gpus_to_choose_from(tmp_path: Path) -> None:
    def dry_run(*assignments: str) -> str:
        loaded = load(write_config(tmp_path), list(assignments))
        return describe(loaded, backend_of("local").request(plan(tmp_path, *assignments, gpus=4)))

    assert ("\nCUDA_VISIBLE_DEVICES=0,1,2,3\n# the run takes the first 2 of these GPUs that no other run holds\n"
            in dry_run("launch.gpus=2"))
    assert "no other run" not in dry_run("launch.gpus=4")
    assert "CUDA_VISIBLE_DEVICES" not in dry_run("launch.gpus=0")
