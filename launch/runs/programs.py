"""Verbs that need torch or the data: each is a program of its own, started with what it needs to know."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from drumbeat.configs import importing
from drumbeat.configs.errors import hang
from drumbeat.configs.load import load_typed
from drumbeat.configs.preconditions import check_data, needs_data
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.plan.snapshot import Snapshot, newest_code

Done = subprocess.CompletedProcess[str]


def on_config(module: str, words: Sequence[str], *options: str) -> int:
    """Runs a module on a config and its data, handed to it as JSON; its exit code. Raises `PreflightError` where it is
    plain that the data is not there."""
    loaded = load_typed(words)
    config = loaded.config
    for note in loaded.notes:
        print(hang("note       ", note), flush=True)
    if module != "drumbeat.trainers.commands.show" or needs_data(config.model):
        check_data(config)
    return start(module, *options, text=json.dumps(dataclasses.asdict(config)))


def on_run(name: str, run: RunDir, *words: str, new_code: bool = False) -> int:
    """Runs a module on a run, on this terminal, with the code that the run works with; its exit code. With the code as
    it is now where that is asked for, and where the run has no copy or one without such a module."""
    code = None if new_code else newest_code(run.path)
    found = Snapshot.read(code / "snapshot.json") if code else None
    if code is None or found is None or not found.knows(name, code):
        return start(name, str(run.path), *words)
    print(f"code       {found.text()}; as it is now: --new-code", file=sys.stderr, flush=True)
    return module(name, str(run.path), *words, output=None, places=found.places(code)).returncode


def start(name: str, *words: str, text: str = "", user_code: bool = True) -> int:
    """Runs a module in this folder, on this terminal; its exit code. Without `user_code` it imports nothing from
    here."""
    places = None if user_code else importing.environment("", [])
    return module(name, *words, text=text, output=None, places=places).returncode


def module(name: str, *words: str, text: str = "", output: int | None = subprocess.PIPE,
           places: Mapping[str, str] | None = None) -> Done:
    """Runs a module in this folder, able to import what a run could, or with variables that name other `places`."""
    places = places or importing.environment(str(Path.cwd()), importing.python_path())
    return subprocess.run([sys.executable, "-m", "drumbeat.configs.importing", name, *words], input=text, text=True,
                          check=False, env=os.environ | places,
                          stdout=output, stderr=output,
                          process_group=0)  # Ctrl-C is for this process, which ends that one without a word
