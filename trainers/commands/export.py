"""Exports the weights of a run to one file, for other programs.

    python -m drumbeat.trainers.commands.export RUN FILE [WHICH]      what `drumbeat export RUN FILE` runs
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import IO

from drumbeat.configs.errors import Fault, RunError, UserError
from drumbeat.configs.output_file import replacing
from drumbeat.configs.run.checkpoint_records import Manifest
from drumbeat.configs.run.files import open_file
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import damage, find_checkpoint, linked_checkpoint
from drumbeat.configs.terminal import print_text_only

PREFIX = '"task:'
"""How the names of a task's tensors begin in a header (trainers/model_and_task.py, which imports torch)."""

KINDS = (".pt", ".pth", ".safetensors")


def export(run: RunDir, file: Path, which: str | None = None) -> str:
    """Writes parameters and buffers by name, as a torch state dict or as safetensors. Returns the text to print. For
    `which` see `configs/run/manifest.find_checkpoint`.

    Raises `RunError` if the checkpoint does not exist or is corrupted, or if the suffix of the file is unknown.
    """
    if file.suffix not in KINDS:
        raise RunError(Fault(what=f"the file {file.name} has no known suffix", where=str(file),
                             remedy=f"Use one of these: {', '.join(KINDS)}."))
    path = find_checkpoint(run, which)
    if reason := damage(path):
        raise RunError(Fault(what=f"the checkpoint is corrupted: {reason}", where=str(path),
                             remedy=f"See: drumbeat checkpoints {run.id}"))
    try:
        with (open_file(path / "model.safetensors", None) as weights, replacing(file) as new,
              open(new, "xb") as opened):
            if file.suffix == ".safetensors" and PREFIX not in _header(weights):
                shutil.copyfileobj(weights, opened)
            else:
                _write_model(Path(f"/proc/self/fd/{weights.fileno()}"), file.suffix, opened)
    except OSError as error:
        raise RunError(Fault(what=f"the weights cannot be written: {error.strerror}", where=str(file),
                             remedy="Make the folder first, or name another one.")) from error
    step = Manifest.require(path / "manifest.json").step
    names = [name for name in ("best", "last") if linked_checkpoint(run, name) == path]
    whose = next((f"{name} " for name in names if which in (None, name)), "")
    return f"wrote the {whose}weights, step {step:,}, to {file} ({file.stat().st_size / 1e6:,.1f} MB)"


def _header(weights: IO[bytes]) -> str:
    """The header of a safetensors file, which lists its tensors."""
    text = weights.read(int.from_bytes(weights.read(8), "little")).decode()
    weights.seek(0)
    return text


def _write_model(weights: Path, kind: str, opened: IO[bytes]) -> None:
    """Writes the tensors of the model, without those of a task that is trained with it."""
    import torch
    from safetensors.torch import save

    from drumbeat.trainers.checkpoints.tensors import read_tensors
    from drumbeat.trainers.model_and_task import without_task

    tensors = without_task(read_tensors(weights))
    opened.write(save(tensors)) if kind == ".safetensors" else torch.save(tensors, opened)


def main(folder: str, file: str, which: str | None = None) -> int:
    try:
        print(export(RunDir(Path(folder)), Path(file), which))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    print_text_only()
    sys.exit(main(*sys.argv[1:]))
