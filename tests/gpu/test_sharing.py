"""Two ranks on one GPU, with half of each batch each, compute the same as one rank on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.load import ROOT, load
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.configs.site import Site
from drumbeat.launch.plan.job import Machine, plan_job
from tests.tiny import drumbeat, latest, write_config

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

LINEAR = ["model._target_=tests.tiny.Linear", "phases.head.freeze=[]", "phases.head.epochs=1",
          "phases.finetune.epochs=1"]
"""Without BatchNorm and dropout, only the order of summation differs."""

REPLACED = {"CUDA_VISIBLE_DEVICES", "PYTHONPATH", "PYTHONSAFEPATH"}
"""Variables of the plan that these ranks do not receive: they use the GPUs of this process, and import `tests`."""


def test_two_ranks_on_one_gpu(tmp_path: Path, device: str) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "1", *LINEAR)
    one = Result.require(latest(tmp_path).result)
    two = Result.require(trained_by_two_ranks(tmp_path, device).result)
    assert two.samples_seen == one.samples_seen
    assert two.last["loss"] == pytest.approx(one.last["loss"], rel=1e-4)
    assert two.test["loss"] == pytest.approx(one.test["loss"], rel=1e-4)


def trained_by_two_ranks(folder: Path, device: str) -> RunDir:
    """A run, made by hand, of two ranks that share the first GPU."""
    launch = ["launch.gpus=2"] if device == "cuda" else ["launch.gpus=0", "launch.procs=2"]
    loaded = load(folder / "tiny.yaml", [*LINEAR, *launch])
    run = RunDir(folder / "shared")
    machine = Machine(cpus=2, gpus=("0", "1"), python_path=(str(ROOT),))
    plan = plan_job(loaded.config, run_dir=run.path, backend="local", machine=machine, site=Site(), folder=ROOT)
    run.path.mkdir()
    write_text(run.config, loaded.as_yaml())
    plan.write(run.plan)
    attempt = run.claim_attempt()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {name: value for name, value in plan.environment.items() if name not in REPLACED}
    ranks = [subprocess.Popen(
        [sys.executable, "-m", "tests.gpu.sharing", str(run.path), str(attempt.number)], stderr=subprocess.PIPE,
        env=os.environ | own | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                                "MASTER_PORT": str(port)}, text=True) for rank in range(2)]
    errors = [rank.communicate()[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
    return run
