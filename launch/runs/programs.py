"""Starts the programs of commands that need torch or the data."""

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
from drumbeat.launch.attempts.processes import child_setup
from drumbeat.launch.plan.snapshot import Snapshot, newest_code
from drumbeat.launch.runs.source_run import with_source_run

Done = subprocess.CompletedProcess[str]


def run_on_config(module: str, words: Sequence[str], *options: str) -> int:
    """Runs a module with a config as JSON on its standard input, and returns the exit code. Raises `PreflightError` if
    the data is missing."""
    loaded = with_source_run(load_typed(words), Path("runs"))
    config = loaded.config
    for note in loaded.notes:
        print(hang("note       ", note), flush=True)
    if module != "drumbeat.trainers.commands.show" or needs_data(config.model):
        check_data(config)
    return start(module, *options, text=json.dumps(dataclasses.asdict(config)))


def run_on_run(name: str, run: RunDir, *words: str, new_code: bool = False) -> int:
    """Runs a module on a run with the run's copy of the code, and returns the exit code. Uses the current code with
    `new_code`, and if the run has no copy or the copy has no such module."""
    code = None if new_code else newest_code(run.path)
    found = Snapshot.read(code / "snapshot.json") if code else None
    if code is None or found is None or not found.has_module(name, code):
        return start(name, str(run.path), *words)
    print(hang("code       ", f"{found.text()}; use --new-code for the current code"), file=sys.stderr, flush=True)
    return module(name, str(run.path), *words, output=None, variables=found.import_variables(code)).returncode


def run_with_own_drumbeat(name: str, run: RunDir, *words: str, run_code: bool) -> int:
    """Runs a module of this Drumbeat on a run, and returns the exit code. With `run_code`, the targets in the run's
    config are imported from the run's copy of the code; otherwise no code but Drumbeat's is."""
    code = newest_code(run.path) if run_code else None
    found = Snapshot.read(code / "snapshot.json") if code else None
    if code is None or found is None:
        return start(name, str(run.path), *words, user_code=run_code)
    return module(name, str(run.path), *words, output=None,
                  variables=found.import_variables(code, importing.HOME)).returncode


def start(name: str, *words: str, text: str = "", user_code: bool = True) -> int:
    """Runs a module in the current folder and on this terminal, and returns the exit code. Without `user_code` it
    imports nothing from the current folder."""
    variables = None if user_code else importing.environment("", [])
    return module(name, *words, text=text, output=None, variables=variables).returncode


def module(name: str, *words: str, text: str = "", output: int | None = subprocess.PIPE,
           variables: Mapping[str, str] | None = None) -> Done:
    """Runs a module in the current folder with the imports of a run, or with the import `variables` of a copy."""
    variables = variables or importing.environment(str(Path.cwd()), importing.python_path())
    return subprocess.run([sys.executable, "-m", "drumbeat.configs.importing", name, *words], input=text, text=True,
                          check=False, env=os.environ | variables,
                          stdout=output, stderr=output, preexec_fn=child_setup(),  # it ends with this process
                          process_group=0)  # so that Ctrl-C reaches only this process, which ends the other one quietly
