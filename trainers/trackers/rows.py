"""The points of a run, in the order in which they were written and each once, read from its event files as they grow.

After a restart a run computes the steps since its checkpoint again, with the same values. A point counts as long as its
step is later than all before it on its curve, so the rows are the same however often the run was killed, and whenever
this process was started: rows are only added.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from drumbeat.configs.run.files import DamagedError, open_file
from drumbeat.trainers.trackers.tracker import Row

LENGTH, CHECKSUM = struct.Struct("<QI"), 4
"""Of a TFRecord: its length and the checksum of that, then the content and its checksum."""
MAX_BYTES = 64 * 2**20
"""No record is larger (`trainers/event_file.py`)."""


class Rows:
    """Reads the event files of a folder. Each call of `new` continues where the last one has stopped."""

    def __init__(self, folder: Path, until: Mapping[str, int] | None = None) -> None:
        """`until` has the last step that counts of some files, by name: of those that a fork has from its parent, which
        may have gone on from there."""
        self.folder = folder
        self.until = until or {}
        self.file: Path | None = None
        """The file that is read."""
        self.position = 0
        """Bytes of it that are read."""
        self.steps: dict[str, int] = {}
        """The last step of each tag."""
        self.number = 0
        """How many rows have been read."""

    def new(self) -> Iterator[Row]:
        """The rows that have been written since. The end of a file that is written to may be torn: it is read again
        later. That of an older file, whose attempt was killed, is left out."""
        for file in sorted(self.folder.glob("*tfevents*")):
            if self.file is None or file.name > self.file.name:
                self.file, self.position = file, 0
            if file.name == self.file.name:
                yield from self._rows(file)

    def _rows(self, file: Path) -> Iterator[Row]:
        from tensorboard.compat.proto.event_pb2 import Event

        last = self.until.get(file.name)
        for content in self._records(file):
            event = Event.FromString(content)
            if last is not None and event.step > last:
                continue
            values, pictures = {}, {}
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                if kind in ("simple_value", "image") and event.step > self.steps.get(value.tag, -1):
                    self.steps[value.tag] = event.step
                    if kind == "image":
                        pictures[value.tag] = value.image.encoded_image_string
                    else:
                        values[value.tag] = value.simple_value
            if values or pictures:
                self.number += 1
                yield Row(number=self.number - 1, step=event.step, time=event.wall_time, values=values,
                          pictures=pictures)

    def _records(self, file: Path) -> Iterator[bytes]:
        """The whole records from the position on."""
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

        try:
            opened = open_file(file, None)
        except (DamagedError, FileNotFoundError):
            return
        with opened:
            opened.seek(self.position)
            while len(head := opened.read(LENGTH.size)) == LENGTH.size:
                size, checksum = LENGTH.unpack(head)
                if size > MAX_BYTES or masked_crc32c(head[:8]) != checksum:
                    return
                content = opened.read(size + CHECKSUM)
                if len(content) < size + CHECKSUM:
                    return
                self.position += LENGTH.size + len(content)
                yield content[:size]
