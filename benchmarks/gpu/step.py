"""The speed of a training step on the GPU, without the data pipeline around it."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.figure import Figure
from benchmarks.gpu.loops import bare, images_per_second, ours
from benchmarks.gpu.scale import Scale


def figures(scale: Scale) -> Iterator[Figure]:
    """Images per second of one process whose batch is in pinned memory."""
    for deterministic in (True, False):
        found = images_per_second(scale, {
            "ours": ours(scale, deterministic=deterministic), "bare": bare(scale, deterministic=deterministic),
            "limit": bare(scale, deterministic=deterministic, on_device=True)})
        peer = "bare loop, deterministic" if deterministic else "bare loop, cudnn.benchmark"
        yield Figure(part="step", name=f"a step, deterministic: {str(deterministic).lower()}", unit="images/s",
                     ours=found["ours"], peer=found["bare"], peer_name=peer, limit=found["limit"],
                     limit_name="with the batch on the device")
