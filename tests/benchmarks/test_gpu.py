"""The GPU benchmark without a GPU: every part at toy size on the CPU, and its message."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from drumbeat.configs.load import ROOT
from tests.warm import run_python

pytestmark = pytest.mark.slow

MACHINE = {"card", "capability", "driver", "torch", "cuda", "cudnn", "nccl", "python", "cores"}
FIGURE = {"part", "name", "unit", "ours", "peer", "peer_name", "limit", "limit_name", "note", "error", "ratio"}
COUNTS = {"step": 2, "inside": 6, "save": 8, "run": 8, "join": 1}
"""Figures of each part."""


def benchmark(*words: str) -> subprocess.CompletedProcess[str]:
    return run_python([sys.executable, "-m", "benchmarks.gpu", *words], cwd=ROOT, capture_output=True, text=True,
                      env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})


def test_every_part_at_toy_size_on_the_cpu() -> None:
    done = benchmark("--smoke", "--json")
    document = json.loads(done.stdout)
    figures = document["figures"]
    assert [figure["error"] for figure in figures if figure["error"]] == [], done.stderr
    assert done.returncode == 0
    assert document["machine"].keys() == MACHINE
    assert all(figure.keys() == FIGURE for figure in figures)
    assert {part: [figure["part"] for figure in figures].count(part) for part in COUNTS} == COUNTS
    assert all(figure["ours"] > 0 for figure in figures if figure["unit"] in ("images/s", "s"))
    assert [figure["ours"] for figure in figures if "bit for bit" in figure["name"]] == [1.0]


def test_without_a_gpu_it_says_so_on_one_screen() -> None:
    done = benchmark()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no GPU that torch can use\n")
    assert len(done.stderr.splitlines()) <= 8


def test_a_part_that_does_not_exist() -> None:
    done = benchmark("speed", "--smoke")
    assert done.returncode == 2
    assert "no part is called speed: there are step, inside, save, run, join" in done.stderr
