"""Verbs that need torch or the data: each is a program of its own, started with what it needs to know."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from drumbeat.configs.errors import ConfigError, Fault, LaunchError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.load import load, read
from drumbeat.configs.preconditions import check_data, find_checkpoint, needs_data
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.schema import Config
from drumbeat.launch.plan.gpus import together
from drumbeat.launch.plan.job import Machine
from drumbeat.launch.plan.snapshot import Snapshot, code_text, newest_code
from drumbeat.launch.runs.find import find_run

Done = subprocess.CompletedProcess[str]


def on_config(module: str, words: Sequence[str], *options: str) -> int:
    """Runs a module on a config and its data, handed to it as JSON; its exit code. Raises `PrepareError` where it is
    plain that the data is not there."""
    config = load_words(words)
    if module != "drumbeat.trainers.commands.show" or needs_data(config.model):
        check_data(config)
    return start(module, *options, text=json.dumps(dataclasses.asdict(config)))


def trained_run(text: str, runs: Path, which: str | None) -> tuple[RunDir, Config]:
    """The run a person means, which has the checkpoint they mean; and its config. Raises `RunError`."""
    run = find_run(text, runs)
    find_checkpoint(run, which)
    return run, read(run.config)


def load_words(words: Sequence[str]) -> Config:
    """The config that CONFIG [KEY=VALUE ...] means. Raises `ConfigError`."""
    files = [word for word in words if "=" not in word]
    if len(files) != 1:
        raise ConfigError(Fault(what="one config is needed" if not files else "one config at a time",
                                where="command line", given=" ".join(files),
                                remedy="Changes to it are written KEY=VALUE: batch_size=64" if files
                                else "For example: configs/resnet50_xray_demo.yaml"))
    return load(files[0], [word for word in words if "=" in word]).config


def ranks(gpus: int | None, procs: int | None) -> list[str]:
    """The options that tell a program how many ranks to have and where: by default one, on a GPU where there is one.
    Raises `LaunchError` where that cannot be."""
    there = len(together(Machine.here().gpus))
    if gpus is not None and procs is not None:
        raise LaunchError(Fault(what="--gpus and --procs exclude each other", where="command line",
                                remedy="Leave --procs out."))
    for flag, count in (("--gpus", gpus), ("--procs", procs)):
        if count is not None and count < 1:
            raise LaunchError(Fault(what=f"{flag} must be at least 1", where="command line", given=f"{flag} {count}"))
    if gpus is not None and gpus > there:
        raise LaunchError(Fault(what=f"this machine has {there or 'no'} GPU{'s' * (there > 1)}", where="--gpus",
                                given=f"--gpus {gpus}", remedy="Use --procs N for ranks on the CPU."))
    cuda = gpus is not None or (procs is None and there > 0)
    return ["--ranks", str(gpus or procs or 1), "--device", "cuda" if cuda else "cpu"]


def on_run(name: str, run: RunDir, *words: str, new_code: bool = False) -> int:
    """Runs a module on a run, on this terminal, with the code that the run works with; its exit code. With the code as
    it is now where that is asked for, and where the run has no copy or one without such a module."""
    code = None if new_code else newest_code(run.path)
    found = Snapshot.read(code) if code else None
    path = [str(code / one) for one in found.python_path] if code and found else []
    if code is None or found is None or not found.knows(name, code):
        return start(name, str(run.path), *words)
    print(f"code       {code_text(code)}; as it is now: --new-code", file=sys.stderr, flush=True)
    return module(name, str(run.path), *words, output=None, path=path).returncode


def start(name: str, *words: str, text: str = "") -> int:
    """Runs a module in this folder, on this terminal; its exit code."""
    return module(name, *words, text=text, output=None).returncode


def module(name: str, *words: str, text: str = "", output: int | None = subprocess.PIPE,
           path: Sequence[str] = ()) -> Done:
    """Runs a module in this folder, able to import what a run could, or what lies on a path of its own."""
    path = path or [str(ROOT), str(Path.cwd()), *Machine.here().python_path]
    return subprocess.run([sys.executable, "-m", name, *words], input=text, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(path)), "PYTHONSAFEPATH": "1"},
                          stdout=output, stderr=output,
                          process_group=0)  # Ctrl-C is for this process, which ends that one without a word
