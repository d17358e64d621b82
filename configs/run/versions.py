"""The software, device and precision that compute a run. The last digits of its result depend on them."""

from __future__ import annotations

from dataclasses import dataclass

from drumbeat.configs.run.record import Record

LABELS = {"torch": "torch", "torchvision": "torchvision", "cuda": "CUDA", "nccl": "NCCL", "python": "Python",
          "drumbeat": "Drumbeat"}
"""The names of the software, as texts write them."""


@dataclass(frozen=True, kw_only=True)
class Versions(Record):
    """What one process found. '' is for what it could not know."""

    drumbeat: str = ""
    python: str = ""
    torch: str = ""
    torchvision: str | None = None
    """None if it is not installed."""
    cuda: str | None = None
    """The CUDA version that torch is built for; None on the CPU."""
    nccl: str | None = None
    """None on the CPU."""
    device: str = ""
    """The name of the GPU or of the CPU."""
    precision: str = ""
    """bf16, fp16, tf32 or fp32: what `precision: auto` means on this device."""

    def software(self) -> str:
        """The versions in one line: "torch 2.14.1, CUDA 13.0, Python 3.11.2, Drumbeat 0.1.0"."""
        return ", ".join(f"{label} {value}" for name, label in LABELS.items() if (value := getattr(self, name)))

    def hardware(self) -> str:
        """The device and the precision in one line: "NVIDIA H100 80GB HBM3, bf16"."""
        return ", ".join(filter(None, (self.device, self.precision)))


@dataclass(frozen=True, kw_only=True)
class AttemptVersions(Record):
    """attempts/K/versions.json: the versions that an attempt computes with. Written by its rank 0 when it starts."""

    versions: Versions
    changes: tuple[str, ...] = ()
    """What differs from the checkpoint that the attempt resumed from, a sentence for each."""


def changes(before: Versions | None, now: Versions) -> tuple[str, ...]:
    """A sentence for each version, device or precision that is not as it was at the checkpoint."""
    labels = {**LABELS, "device": "device", "precision": "precision"}
    pairs = {label: (getattr(before, name), getattr(now, name)) for name, label in labels.items()} if before else {}
    return tuple(f"{label} {old or 'none'} at the checkpoint, {new or 'none'} now: the result may differ in its last "
                 "digits" for label, (old, new) in pairs.items() if old != new and "" not in (old, new))
