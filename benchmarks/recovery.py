"""The cost of faults: the time from SIGKILL of a rank or of the launcher to the next step, compared with torchrun's
restart; the effective training time ratio at one fault per minute; and the slowdown of training while a checkpoint is
written.

    python -m benchmarks.recovery [--minutes M] [--only WORD] [--json]

All on 2 ranks on this machine's CPU, with one thread each. Ours are ordinary runs that a drill starts, kills and
resumes, with each type of fault in turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.loop import RANKS, config_values
from benchmarks.report import Row, show
from benchmarks.work import WORKS
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import Loaded, build_config
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, FirstStep
from drumbeat.configs.run.view import View
from drumbeat.launch.drill.drill import Drill
from drumbeat.launch.runs.goodput import effective_ratio, goodput, text
from drumbeat.models.transfer import ResNet50ConcatPool
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.checkpoints.state import parameter_names, training_state

LIMIT = """Limit: joining, reading the checkpoint and a discarded step take time before the next step, so the effective
training time ratio falls with the number of faults. (Published: 0.97 on 9,600 GPUs, with a failure every few hours:
ByteRobust, arXiv 2509.16293.)"""

SMALL = "small CNN, 32 px, batch 128"
STEPS = 600
"""The length of the run whose ranks or launcher are killed."""
TARGETS = {"rank": 1.5, "launcher": 4.0}
"""Seconds from SIGKILL of these to the next step."""
BATCH = 512
"""The batch size of the run with faults: one loader process keeps up with two ranks on two cores."""


def write_config(folder: Path, steps: int, every_steps: int, batch: int = WORKS[SMALL].batch) -> Path:
    """A config of the small CNN with `steps` steps, 32 per epoch, and a checkpoint every `every_steps`."""
    values: dict[str, Any] = config_values(dataclasses.replace(WORKS[SMALL], batch=batch, samples=32 * batch))
    values["phases"]["only"]["epochs"] = steps / 32
    values["checkpoints"] = {"every_steps": every_steps}
    values["data"]["workers"] = 1
    file = folder / "recovery.yaml"
    file.write_text(Loaded(config=build_config([Layer(values=values, origin="benchmark")])).as_yaml())
    return file


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What SIGKILL of one kind of process costs, in seconds: of the injected faults, the medians, and the mean of the
    steps that were lost."""

    start: float
    """From the start of the run to its first step."""
    seconds: float
    """From the fault to the next step."""
    lost: float
    """Of the steps that were taken again."""
    stages: dict[str, float]
    """The parts of `seconds`."""

    @property
    def ratio(self) -> float:
        """The effective training time ratio that one such fault per minute leaves."""
        return max(0.0, 1 - (self.seconds + self.lost) / 60)


def recovery(name: str) -> Recovery:
    """The cost of SIGKILL of a "rank" or of the "launcher", after which a command resumes the run."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        run, injections = _drill(home, write_config(home, steps=STEPS, every_steps=50)).with_faults(
            STEPS, count=3, only=name)
        done = [one for one in injections if not one.not_injected]
        beat = View.read(run).heartbeat
        pace = beat.seconds["training"] / STEPS if beat else 0.0
        start = FirstStep.require(run.attempt(0).first_step).time - AttemptStart.require(run.attempt(0).launch).time
        parts = [stages(run, number, one.recovery_seconds) for number, one in enumerate(done, start=1)]
        return Recovery(start, statistics.median(one.recovery_seconds for one in done),
                        statistics.fmean(one.lost_steps * pace for one in done),
                        {label: statistics.median(part[label] for part in parts) for label in parts[0]})


def stages(run: RunDir, number: int, seconds: float) -> dict[str, float]:
    """The parts of the `seconds` from a fault to the first step of attempt `number`."""
    attempt = run.attempt(number)
    step, claimed = FirstStep.require(attempt.first_step).time, AttemptStart.require(attempt.launch).time
    joined = attempt.versions.stat().st_mtime
    return {"until the next attempt": claimed - (step - seconds), "until its ranks have met": joined - claimed,
            "until its first step": step - joined}


def faulted_run(minutes: float) -> tuple[dict[str, float], int]:
    """The time budget of a run with one fault per minute, of alternating types, and the number of faults."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        pace = _pace(home)
        file = write_config(home, steps=int(60 * minutes / pace), every_steps=max(1, int(4 / pace)), batch=BATCH)
        run, injections = _drill(home, file).with_faults(1, count=int(minutes), every=60.0)
        return goodput(View.read(run)), sum(not one.not_injected for one in injections)


def _drill(home: Path, file: Path) -> Drill:
    return Drill([str(file)], home / "runs", name=file.stem, seed=0, console=Console(stderr=True))


def _pace(home: Path) -> float:
    """Seconds per step."""
    file = write_config(home, steps=100, every_steps=1000, batch=BATCH)
    beat = View.read(_drill(home, file).baseline()).heartbeat
    assert beat and beat.samples_per_second
    return BATCH / beat.samples_per_second


def torchrun_restart(tries: int = 4) -> float:
    """Seconds from a rank's SIGKILL to the next step of the bare loop under torchrun --max-restarts, the smallest of
    `tries`. Its new ranks often find the addresses of the old ones and do not meet (torch 2.14.1, gloo); infinity if
    they never do."""
    return min(_torchrun_restart() for _ in range(tries))


def _torchrun_restart() -> float:
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "marks"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}",
                   "--max-restarts=3", "-m", "benchmarks.bare", SMALL, "tuned", str(marks)]
        with subprocess.Popen(["env", "OMP_NUM_THREADS=1", *command], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            first = _marked(marks, process)
            killed_at = time.time()
            os.kill(int(first["pid"]), signal.SIGKILL)
            seconds = float(_marked(marks, process, after=killed_at + 0.5)["time"]) - killed_at
            process.terminate()
        return seconds


def _marked(marks: Path, process: subprocess.Popen[bytes], after: float = 0.0) -> dict[str, float]:
    """The first step that the bare loop has recorded after a time; infinity if it ends before, or takes a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        for line in marks.read_text().splitlines() if marks.exists() else ():
            mark: dict[str, float] = json.loads(line)
            if mark["time"] > after:
                return mark
        time.sleep(0.02)
    return {"time": float("inf")}


def while_writing() -> tuple[float, float, float]:
    """Steps per second of two processes that train ResNet-50, without and during the write of a checkpoint; and the
    seconds that the write takes while both cores are busy."""
    context = get_context("spawn")
    steps, stop = context.Value("q", 0), context.Event()
    other = context.Process(target=_train, args=(steps, stop), daemon=True)
    other.start()
    while steps.value < 2:
        time.sleep(0.1)
    torch.set_num_threads(1)
    model, optimizer, step = _resnet()
    names = parameter_names(model)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / "run")
        checkpoints = Checkpoints(run, run.claim_attempt(), keep=1)

        def save(number: int) -> None:
            checkpoints.save(Progress(step=number), model.state_dict(), *training_state(optimizer, None, names))

        save(1)
        checkpoints.wait()
        speeds, seconds = [], 0.0
        for writing in (False, True):
            if writing:
                save(2)
            began, before, mine = time.perf_counter(), steps.value, 0
            while checkpoints.pending or mine < 8:
                step()
                mine += 1
                if checkpoints.pending:
                    checkpoints.check()
                    seconds = time.perf_counter() - began
                    if not checkpoints.pending:
                        break
            speeds.append((mine + steps.value - before) / (time.perf_counter() - began))
        checkpoints.close()
    stop.set()
    other.join()
    return speeds[0], speeds[1], seconds


def _resnet() -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
    model = ResNet50ConcatPool(classes=2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    images = torch.randn(4, 3, 128, 128).to(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(images).float().square().mean()
        loss.backward()
        optimizer.step()

    step()
    return model, optimizer, step


def _train(steps: Any, stop: Any) -> None:
    """Trains on the other core."""
    torch.set_num_threads(1)
    _, _, step = _resnet()
    while not stop.is_set():
        step()
        steps.value += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=4.0, help="length of the run with faults (default: 4)")
    parser.add_argument("--only", choices=["writing", "restart", "faults"], help="only this part")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    rows, notes = [], [LIMIT]
    if args.only in (None, "writing"):
        without, during, seconds = while_writing()
        rows.append(Row(name="ResNet-50 while writing 308 MB", unit="steps/s", ours=during, peer=without,
                        peer_name="without a write", ratio=during / without))
        notes.append(f"The write took {seconds:.1f} s at the lowest priority, while both cores trained.")
    if args.only in (None, "restart"):
        bare = torchrun_restart()
        for name, peers in (("rank", {"torchrun --max-restarts": bare}), ("launcher", {})):
            found = recovery(name)
            rows += [Row(name=f"from SIGKILL of a {name} to the next step", unit="s", ours=found.seconds, peer=peer,
                         peer_name=peer_name, ratio=peer / found.seconds)
                     for peer_name, peer in (*peers.items(), ("starting the same run", found.start))]
            rows.append(Row(name=f"from SIGKILL of a {name} to the next step", unit="s", ours=found.seconds,
                            peer=TARGETS[name], peer_name="target", ratio=TARGETS[name] / found.seconds, wanted=1.0))
            rows.append(Row(name=f"effective training time ratio at such a fault of a {name} per minute, from its cost",
                            unit="", ours=found.ratio, peer=0.9, peer_name="target", ratio=found.ratio / 0.9,
                            wanted=1.0))
            parts = ", ".join(f"{seconds:.1f} s {label}" for label, seconds in found.stages.items())
            notes.append(f"After SIGKILL of a {name}: {parts}; {found.lost:.1f} s of steps are taken again.")
    if args.only in (None, "faults"):
        spent, faults = faulted_run(args.minutes)
        rows.append(Row(name="effective training time ratio, one fault per minute", unit="",
                        ours=effective_ratio(spent), peer=0.9,
                        peer_name="target", ratio=effective_ratio(spent) / 0.9, wanted=1.0))
        minutes = sum(spent.values()) / 60
        notes.append(f"With {faults} injected faults in {minutes:.1f} minutes: {text(spent)}.")
    show(rows, as_json=args.json, limit="\n".join(notes))


if __name__ == "__main__":
    main()
