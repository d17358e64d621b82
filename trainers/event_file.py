"""A TensorBoard event file that survives errors of its disk.

torch's SummaryWriter writes from its own thread, which ends at the first error: if the disk is full for a moment, the
run fails, or a record is cut off, and TensorBoard reads nothing after it. Here each record is written whole or not at
all, and records that the disk does not accept stay in memory until it does.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

SECONDS_BETWEEN_WRITES = 5.0
MAX_BYTES = 64 * 2**20
"""The limit for events that wait for the disk; later ones are dropped."""


class EventFile:
    """One file of events, in the format that TensorBoard calls brain.Event:2."""

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        """Readers drop the points at and after `purge_step` from earlier files of the folder."""
        moment = time.time_ns()
        # Readers order files by name. Two attempts may begin within one second.
        self.path = folder / (f"events.out.tfevents.{moment // 10**9:010d}.{moment % 10**9:09d}."
                              f"{socket.gethostname()}.{os.getpid()}")
        self.waiting = io.BytesIO()
        """Records that are not in the file yet."""
        self.records = RecordWriter(self.waiting)
        self.points: list[tuple[Mapping[str, float], int, float]] = []
        """Values by tag, step and time: not records yet. Many at once take a fifth of the time."""
        self.size = 0
        """Bytes of the file, which are whole records."""
        self.written_at = 0.0
        self._add(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._add(Event(session_log=SessionLog(status=SessionLog.START), step=purge_step))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to each curve, by tag, in one record."""
        self.points.append((values, step, time.time()))
        self._flush_in_time()

    def text(self, tag: str, text: str, step: int) -> None:
        """Adds a text in Markdown."""
        self._summary(summary.text(tag, text), step)

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        self._summary(summary.image(tag, np.asarray(image.convert("RGB")), dataformats="HWC"), step)

    def _summary(self, content: Any, step: int) -> None:
        self._add(Event(summary=content, step=step))
        self._flush_in_time()

    def _flush_in_time(self) -> None:
        if time.monotonic() - self.written_at >= SECONDS_BETWEEN_WRITES:
            self.flush()

    def _add(self, *events: Event) -> None:
        """Makes records of the points and then of the events, if there is room for them."""
        points = [Event(step=step, wall_time=moment, summary=Summary(value=[
            Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]))
            for values, step, moment in self.points]
        self.points = []
        for event in (*points, *events):
            if self.waiting.tell() < MAX_BYTES:
                event.wall_time = event.wall_time or time.time()
                self.records.write(event.SerializeToString())

    def flush(self) -> bool:
        """Writes the waiting records. Returns False if the disk does not accept them."""
        self.written_at = time.monotonic()
        self._add()
        content = self.waiting.getvalue()
        try:
            self._append(content)
        except OSError:
            return False
        self.size += len(content)
        self.waiting.seek(0)
        self.waiting.truncate()
        return True

    def _append(self, content: bytes) -> None:
        """Appends `content` to the whole records. After an `OSError` it is written again at the same position."""
        if self.size == 0:  # later, a missing file means a missing disk
            self.path.parent.mkdir(exist_ok=True)
        flags = os.O_WRONLY | os.O_CLOEXEC | (0 if self.size else os.O_CREAT)
        handle = os.open(self.path, flags, 0o666)
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(handle, content[written:], self.size + written)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, self.size)
            raise
        finally:
            os.close(handle)  # which is where NFS says that the disk is full

    def close(self) -> None:
        """Writes what waits. Prints a line if the disk does not take it."""
        if not self.flush():
            print(f"{self.waiting.tell():,} bytes of TensorBoard events are lost: the disk is full or gone", flush=True)
