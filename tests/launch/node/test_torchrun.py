"""The fork server of a node and its agents."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.launch import standin
from tests.launch.node.stage import Stage


def test_only_the_launcher_receives_signals(stage: Callable[..., Stage]) -> None:
    """Not even who installs a handler, as torch's loader workers do; SLURM may send them to all."""
    here = stage()
    here.launch()
    for pid in here.up().values():
        for number in standin.HEARD:
            os.kill(pid, number)
    here.launchers[0].send_signal(signal.SIGUSR2)
    assert here.end() == ["leave"]
    assert here.verdict(0).message == "stopped at step 1: the job's time limit is near"
    assert standin.heard(here.run.path) == {}
