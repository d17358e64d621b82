"""Curves and images for TensorBoard, and the heartbeat of an attempt. Rank 0 writes them."""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.files import write_soon
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Heartbeat

SECONDS_BETWEEN_STATUS = 1.0
HEARTBEAT_BYTES = 4096
"""A block of most file systems: on a full disk the next heartbeat is written over the last one."""


class Tracker:
    """Rank 0's tracker. `NullTracker` has the same methods for the others."""

    def __init__(self, run: RunDir, attempt: Attempt, *, step: int, config_text: str,
                 device: torch.device | None = None) -> None:
        from drumbeat.trainers.event_file import EventFile  # slow to import, and only needed on one rank

        self.file = attempt.heartbeat
        self.fields: dict[str, Any] = {"step": step}
        """Of the next heartbeat."""
        self.device = device
        # Readers drop an earlier attempt's points from `purge_step` on, that is, after the checkpoint; all of them if
        # that attempt was killed before its first checkpoint.
        self.events = EventFile(run.tensorboard, purge_step=step + 1 if step else 0)
        self.status_at = 0.0
        if step == 0:
            self.events.text("config", "\n".join(f"    {line}" for line in config_text.splitlines()), 0)
        self.events.flush()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Points of curves after `step` steps, by "group/name"."""
        self.events.scalars(values, step)

    def picture(self, step: int, name: str, sheet: Image.Image) -> None:
        self.events.image(name, sheet, step)

    def status(self, *, now: bool = False, **fields: Any) -> None:
        """Changes fields of the heartbeat, and writes it at most once a second, or `now`, if the disk takes it:
        training does not depend on it."""
        self.fields.update(fields)
        moment = time.monotonic()
        if now or moment - self.status_at >= SECONDS_BETWEEN_STATUS:
            self.status_at = moment
            beat = Heartbeat(**self.fields, gpu=gpu_use(self.device), time=time.time())
            write_soon(self.file, json.dumps(beat.as_json(), indent=2), HEARTBEAT_BYTES)

    def flush(self) -> None:
        """Writes all points to the event file. Called at each checkpoint, so that the curves have no gap after a
        restart."""
        self.events.flush()

    def close(self) -> None:
        self.events.close()


def gpu_use(device: torch.device | None) -> dict[str, int]:
    """The use of a GPU in bytes: `reserved` by torch, at most in tensors (`peak`), and what the GPU has (`total`);
    and its `utilization` in percent if nvidia-ml-py is installed. Empty on the CPU."""
    if device is None or device.type != "cuda":
        return {}
    used = {"reserved": torch.cuda.memory_reserved(device), "peak": torch.cuda.max_memory_allocated(device),
            "total": torch.cuda.get_device_properties(device).total_memory}
    with suppress(Exception):  # NVML's errors: some drivers and MIG instances do not report it
        used["utilization"] = torch.cuda.utilization(device)
    return used


class NullTracker:
    """The tracker of ranks other than 0."""

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def picture(self, step: int, name: str, sheet: Image.Image) -> None: ...

    def status(self, *, now: bool = False, **fields: Any) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


PLAIN, CORRECT, WRONG = (235, 235, 235), (95, 211, 141), (255, 128, 112)
"""Colours of titles."""


def contact_sheet(images: Sequence[Tensor], titles: Sequence[str] = (), *, columns: int = 4, side: int = 192,
                  colours: Sequence[tuple[int, int, int]] = (), heading: str = "") -> Image.Image:
    """Images [C, H, W], uint8 or float of any range, in a grid on a dark background, with a heading above the grid and
    a title of one or more lines above each image, in the title's colour if there are colours."""
    columns = max(1, min(columns, len(images)))
    line = 3 + 15 * max(len(title.splitlines()) for title in titles) if titles else 0
    rows = -(-len(images) // columns)
    above = 24 if heading else 0
    sheet = Image.new("RGB", (columns * (side + 6) + 6, above + rows * (side + line + 6) + 6), (24, 24, 28))
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 6), _fitted(draw, heading, sheet.width - 12, 15), font_size=15, fill=PLAIN)
    for number, image in enumerate(images):
        left = 6 + number % columns * (side + 6)
        top = above + 6 + number // columns * (side + line + 6)
        if titles:
            for row, text in enumerate(titles[number].splitlines()):
                draw.text((left, top + 1 + 15 * row), _fitted(draw, text, side, 12), font_size=12,
                          fill=colours[number] if colours else PLAIN)
        picture = ImageOps.contain(_picture(image), (side, side))
        sheet.paste(picture, (left + (side - picture.width) // 2, top + line))
    return sheet


def _fitted(draw: ImageDraw.ImageDraw, title: str, width: int, size: int) -> str:
    """A title in a font of `size`, cut to `width` pixels. A character is at least one pixel wide."""
    if len(title) <= width and draw.textlength(title, font_size=size) <= width:
        return title
    lengths = range(min(len(title), width) + 1)
    wider = bisect_right(lengths, width, key=lambda length: ceil(draw.textlength(f"{title[:length]}...",
                                                                                 font_size=size)))
    return f"{title[:max(0, wider - 1)]}..."


def as_rgb(image: Tensor) -> Tensor:
    """An image [C, H, W], uint8 or float of any range, as uint8 [3, H, W]."""
    values = image.detach().float().cpu()
    if image.dtype != torch.uint8:  # a normalised image: stretch each channel's range to 0..255
        low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
        values = (values - low) / (high - low).clamp(min=1e-6) * 255
    return (values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)).byte()


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(as_rgb(image).permute(1, 2, 0).contiguous().numpy())
