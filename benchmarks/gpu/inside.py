"""Inside a training step on the GPU: how often the host waits for the GPU, and the kernels that the step launches."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.figure import Figure
from benchmarks.gpu.loops import Loop, bare, ours
from benchmarks.gpu.scale import Scale

STEPS = 5
"""Steps in which synchronizations and kernels are counted."""


def figures(scale: Scale) -> Iterator[Figure]:
    """Counts of waits and kernels in a step of Drumbeat and of the bare loop."""
    loops = {"ours": ours(scale, deterministic=True), "bare": bare(scale, deterministic=True)}
    for loop in loops.values():
        loop.settings()
        for _ in range(max(2, scale.warm_up)):
            loop.step()
    waits = {name: synchronisations(scale, loop) for name, loop in loops.items()}
    yield Figure(part="inside", name="times the host waits for the GPU in a step", ours=len(waits["ours"]) / STEPS,
                 peer=len(waits["bare"]) / STEPS, peer_name="bare loop", limit=0.0,
                 note=", ".join(sorted(set(waits["ours"]))))
    traces = {name: traced(scale, loop) for name, loop in loops.items()}
    for what in traces["ours"]:
        yield Figure(part="inside", name=what, ours=traces["ours"][what], peer=traces["bare"][what],
                     peer_name="bare loop")


WARNING = "called a synchronizing"
"""Part of torch's warning about a call that waits for the GPU. torch also warns once that this check is a prototype."""


def synchronisations(scale: Scale, loop: Loop) -> list[str]:
    """The places, as file:line, where torch warns in some steps that a call waits for the GPU. It does not warn of a
    wait for an event, which the profiler counts."""
    scale.synchronize()
    loop.settings()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if scale.on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        for _ in range(STEPS):
            loop.step()
        if scale.on_gpu:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{one.filename.rpartition('/')[2]}:{one.lineno}" for one in caught if WARNING in str(one.message)]


def traced(scale: Scale, loop: Loop) -> dict[str, float]:
    """Counts for a step, and the part of the time in which the GPU works, from the profiler's trace."""
    loop.settings()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if scale.on_gpu else [])]
    with profile(activities=activities) as trace:
        wall = scale.seconds(lambda: [loop.step() for _ in range(STEPS)])
    events = trace.events() or []
    on_device = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    called = Counter(event.name for event in events if event.device_type == DeviceType.CPU)
    copies = [event for event in on_device if event.name.startswith(("Memcpy", "Memset"))]
    computing = sum(event.time_range.elapsed_us() for event in on_device) / 1e6
    return {"kernels in a step": (len(on_device) - len(copies)) / STEPS,
            "copies and fills on the device in a step": len(copies) / STEPS,
            "cudaStreamSynchronize in a step": called["cudaStreamSynchronize"] / STEPS,
            "cudaEventSynchronize in a step": called["cudaEventSynchronize"] / STEPS,
            "part of the time in which the GPU works, with the profiler on": computing / wall}
