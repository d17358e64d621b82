"""Benchmarks on one GPU, in about five minutes and without network access.

    python -m benchmarks.gpu [PART ...] [--json]     step, inside, save, run, join; by default all
    python -m benchmarks.gpu --smoke                 every part at toy size on the CPU, to test the script

step     images per second of a training step of ResNet-50 (256 px, bf16, channels_last, batch 128), compared with a
         bare loop, and with a bare loop whose batch is already on the device
inside   how often the host waits for the GPU in a step, and what the step launches
save     how long saving 307 MB and 4 GB blocks a step, compared with DCP and one pinned copy
run      whole runs: their speed, their start, and their recovery from SIGKILL with the same bits
join     how long ranks take to join with NCCL and gloo

Exit code 2 if torch cannot use a GPU, 1 if something could not be measured: that row says why.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import torch

from benchmarks.gpu.figure import Figure, show
from benchmarks.gpu.machine import describe
from benchmarks.gpu.scale import SCALES
from drumbeat.configs.errors import Fault

SECONDS = {"step": 75, "inside": 45, "save": 75, "run": 150, "join": 75}
"""The time limit of each part: seven minutes for all of them. Each part is the module of that name."""
GRACE = 20
"""Seconds that an interrupted part has to end the processes it has started."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="only these parts")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--smoke", action="store_true", help="at toy size on the CPU, in about a minute")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(SECONDS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}: there are {', '.join(SECONDS)}")
    if not args.smoke and not torch.cuda.is_available():
        print(Fault(what="no GPU that torch can use", where="python -m benchmarks.gpu",
                    given=f"torch {torch.__version__}", remedy="Run it on a machine with an NVIDIA GPU and a torch "
                    "built for its driver (see nvidia-smi). To try the script itself: --smoke"), file=sys.stderr)
        return 2
    scale = "smoke" if args.smoke else "full"
    figures = [figure for part in args.parts or SECONDS for figure in carry_out(part, scale)]
    show(figures, describe(SCALES[scale]), as_json=args.json)
    return int(any(figure.error for figure in figures))


def carry_out(part: str, scale: str) -> list[Figure]:
    """The figures that a part measures within its time limit."""
    began, limit, late = time.monotonic(), SECONDS[part] * SCALES[scale].patience, ""
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # as the launcher sets it, for the bare loop too
    with subprocess.Popen([sys.executable, "-m", "benchmarks.gpu.part", part, scale], stdout=subprocess.PIPE, text=True,
                          env=environment, start_new_session=True) as process:
        try:
            text, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            late = f"not done within {limit} s"
            text = _interrupted(process)
        except KeyboardInterrupt:
            _interrupted(process)
            raise
    figures = [Figure(**json.loads(line)) for line in text.splitlines()]
    if process.returncode and not any(figure.error for figure in figures):
        late = late or f"ended with code {process.returncode}"
    print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return figures + ([Figure(part=part, name="the part failed", error=late)] if late else [])


def _interrupted(process: subprocess.Popen[str]) -> str:
    """Interrupts a part as Ctrl-C does, and kills it if that does not end it. Returns the figures it has printed."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=GRACE)[0]
    return ""


if __name__ == "__main__":
    sys.exit(main())
