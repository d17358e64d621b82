"""Weights & Biases: its servers; or offline, files in the run's folder that `wandb sync` sends later."""

from __future__ import annotations

import io
import netrc
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from drumbeat.configs.run.records import State
from drumbeat.trainers.trackers.tracker import Row, RunInfo, Tracker

BLOCK, HEADER, FILE_HEADER = 32 * 1024, struct.Struct("<IHB"), 7
"""Of a .wandb file: LevelDB's log format (github.com/google/leveldb/blob/main/doc/log_format.md) after seven bytes. A
record's header has its checksum, its length and its kind."""
FULL, LAST = 1, 4
WRITER_SECONDS = 30.0
"""How long wandb's own process may write after the process that started it was killed."""


class WandB(Tracker):
    """A run whose id is the run's. Each row is one of wandb's steps, by number, so a row that wandb has is not sent
    again; the step of the run is the x axis of all curves."""

    package = "wandb"

    def __init__(self, *, project: str = "", entity: str = "", group: str = "") -> None:
        """`project` is '' for that of WANDB_PROJECT, or else the name of the run's experiment."""
        self.project = project or os.environ.get("WANDB_PROJECT", "")
        self.entity, self.group = entity or None, group or None
        self.run: Any = None
        self.count = 0
        """How many rows wandb has."""

    @property
    def offline(self) -> bool:
        return os.environ.get("WANDB_MODE", "") in ("offline", "dryrun")

    def problem(self) -> tuple[str, str]:
        if self.offline or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
            return "", ""
        host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
        with suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(os.environ.get("NETRC")).authenticators(host):
                return "", ""
        return (f"wandb has no API key for {host}", "Type `wandb login`, or export WANDB_API_KEY; or export "
                                                     "WANDB_MODE=offline, and send the run later with `wandb sync`.")

    def start(self, run: RunInfo) -> None:
        import wandb

        folder = run.store / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True,
                               init_timeout=60)
        kept = rows_in(folder) if self.offline else 0
        self.run = wandb.init(project=self.project or run.name, entity=self.entity, group=self.group, id=run.id,
                              name=run.id, resume="allow", dir=folder, settings=quiet,
                              config={**run.config, **{f"drumbeat.{key}": text for key, text in run.links.items()}},
                              allow_val_change=True)
        self.count = kept if self.offline else self.run.step
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def points(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._log(row, dict(row.values))

    def picture(self, row: Row) -> None:
        if row.number >= self.count:
            import wandb
            from PIL import Image

            self._log(row, {tag: wandb.Image(Image.open(io.BytesIO(data))) for tag, data in row.pictures.items()})

    def _log(self, row: Row, values: dict[str, Any]) -> None:
        if row.number >= self.count:
            self.run.log({"step": row.step, **values}, step=row.number, commit=True)
            self.count = row.number + 1

    def end(self, state: State, verdict: str) -> None:
        self.run.summary["drumbeat_state"] = state
        self.run.summary["drumbeat_verdict"] = verdict
        self.run.finish(exit_code=int(state == "failed"))


def rows_in(folder: Path) -> int:
    """How many rows the files of earlier processes have, once nothing writes to them any more."""
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    until = time.monotonic() + WRITER_SECONDS
    while any(map(_is_open, files)) and time.monotonic() < until:
        time.sleep(0.1)
    return max((number + 1 for file in files for number in _numbers(file)), default=0)


def _is_open(file: Path) -> bool:
    """Whether a process of this user on this machine has a file open."""
    for opened in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if opened.samefile(file):
                return True
    return False


def _numbers(file: Path) -> Iterator[int]:
    """The numbers of the rows in a .wandb file."""
    from wandb.proto.wandb_internal_pb2 import Record

    for data in records(file.read_bytes()):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            yield record.history.step.num


def records(content: bytes) -> Iterator[bytes]:
    """The whole records of a .wandb file, of which the last may be torn."""
    at, parts = FILE_HEADER, []
    while at + HEADER.size <= len(content):
        if (left := BLOCK - at % BLOCK) < HEADER.size:
            at += left
            continue
        _, size, kind = HEADER.unpack_from(content, at)
        at += HEADER.size + size
        if not kind or at > len(content):
            return
        parts.append(content[at - size:at])
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
