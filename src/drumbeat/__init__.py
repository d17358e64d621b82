"""Drumbeat trains PyTorch models from one config file, on a laptop, on many GPUs, or on a SLURM cluster.

    import drumbeat
    run = drumbeat.run("resnet50_xray_demo", ["batch_size=64"], procs=2)      # as `drumbeat run`; docs/python.md
    run.wait().metrics

Importing it costs nothing: each part is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drumbeat.api import Run, Runs, run, runs
    from drumbeat.configs.errors import UserError
    from drumbeat.sweep_api import Sweep, sweep

__version__ = "0.1.0"

__all__ = ["Run", "Runs", "Sweep", "UserError", "__version__", "run", "runs", "sweep"]

LAZY = {"Run": "drumbeat.api", "Runs": "drumbeat.api", "run": "drumbeat.api", "runs": "drumbeat.api",
        "Sweep": "drumbeat.sweep_api", "sweep": "drumbeat.sweep_api", "UserError": "drumbeat.configs.errors"}
"""The module of each name of the Python API, which is imported when the name is used."""


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module 'drumbeat' has no attribute '{name}'")
    return getattr(import_module(LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
