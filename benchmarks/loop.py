"""Our training loop compared with a bare hand-written one and a naive fp32 one, on 2 ranks on this machine's CPU.

    python -m benchmarks.loop [--rounds N] [--only WORD] [--json]

Every measurement is a whole run under torchrun. Ours is the real worker with a real run folder, curves, status and
checkpoints. The contestants alternate (A B A B); the medians over the rounds are shown.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.report import Row, show
from benchmarks.work import WORKS, Work
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import Loaded, build_config
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.site import Site
from drumbeat.launch.backends.environment import environment
from drumbeat.launch.node.rendezvous import LOOPBACK, free_port
from drumbeat.launch.node.torchrun import Agents
from drumbeat.launch.plan.job import Machine, plan_job, torchrun_command

RANKS = 2
LIMIT = """Limit: the loop cannot be faster than the computation of the model. A ratio of 1 to the bare loop means no
overhead; a ratio above 1 is possible because whole batches are fetched instead of single samples."""


def config_values(work: Work, ranks: int = RANKS) -> dict[str, object]:
    """Our config for the work."""
    sizes = {"pixels": work.pixels, "channels": work.channels, "samples": work.samples}
    return {
        "name": "benchmark", "batch_size": work.batch, "model": work.model,
        "data": {"train": {"_target_": "benchmarks.work.images", **sizes}, "workers": 0, "transforms": {"batch": [
            {"_target_": "drumbeat.data.Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}]}},
        "phases": {"only": {"epochs": work.steps * work.batch / work.samples, "freeze": list(work.freeze),
                            "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3, "fused": True}}},
        "tracking": {"every_steps": work.every, "images": 0},
        "launch": {"gpus": 0, "procs": ranks, "cpus_per_rank": 1},
    }


@contextmanager
def prepared(values: dict[str, object], ranks: int = RANKS) -> Iterator[tuple[RunDir, JobPlan]]:
    """The folder and the plan of our run of this config, with its environment."""
    config = build_config([Layer(values=values, origin="benchmark")])
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / "run")
        plan = plan_job(config, run_dir=run.path, backend="local", machine=Machine(cpus=ranks, gpus=()), site=Site(),
                        folder=Path.cwd())
        run.path.mkdir()
        write_text(run.config, Loaded(config=config).as_yaml())
        plan.write(run.plan)
        with environment(plan):
            yield run, plan


def start(plan: JobPlan, agents: Agents, attempt: Attempt) -> None:
    """Starts torchrun for an attempt."""
    command = torchrun_command(plan, attempt=str(attempt.number), node="0", address=LOOPBACK, port=str(free_port()))
    agents.start(command[3:], {}, attempt)


def train(run: RunDir, plan: JobPlan) -> Attempt:
    """A whole attempt under torchrun, from the start of a fork server."""
    attempt = run.claim_attempt()
    agents = Agents(plan, attempt, 0)
    start(plan, agents, attempt)
    while (code := agents.poll(within=1.0)) is None:
        pass
    agents.close()
    if code:
        raise RuntimeError(attempt.node_log(0).read_text())
    return attempt


def ours(name: str) -> tuple[float, float]:
    """Seconds per step of the real worker, according to its curves, and seconds of the whole torchrun."""
    with prepared(config_values(WORKS[name])) as (run, plan):
        began = time.perf_counter()
        train(run, plan)
        whole = time.perf_counter() - began
        events = EventAccumulator(str(run.tensorboard)).Reload()
        readings = [event.value for event in events.Scalars("speed/step_seconds")]
        return statistics.median(readings[1:] or readings), whole


def bare(name: str, kind: str) -> tuple[float, float]:
    """The same two times of the hand-written loop."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}", "-m",
               "benchmarks.bare", name, kind]
    began = time.perf_counter()
    done = subprocess.run(["env", "OMP_NUM_THREADS=1", *command], check=True, capture_output=True, text=True)
    return float(done.stdout.split("seconds ")[1]), time.perf_counter() - began


def compared(name: str, work: Work, mine: list[float], theirs: list[float], peer: str) -> Row:
    """Medians of the measurements: seconds for start-up, otherwise images per second."""
    own, other = statistics.median(mine), statistics.median(theirs)
    if work.steps == 1:
        return Row(name=name, unit="s", ours=own, peer=other, peer_name=peer, ratio=other / own)
    return Row(name=name, unit="images/s", ours=work.batch / own, peer=work.batch / other, peer_name=peer,
               ratio=other / own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each contestant (default: 3)")
    parser.add_argument("--only", default="", metavar="WORD", help="only benchmarks with this word in their names")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    rows = []
    for name, work in WORKS.items():
        if args.only not in name:
            continue
        peers = {"bare DDP loop": "tuned"} | ({"naive fp32 DDP loop": "naive"} if "ResNet" in name else {})
        whole = int(work.steps == 1)  # start-up is measured by a run of one step
        readings: dict[str, list[float]] = {"ours": [], **{peer: [] for peer in peers}}
        for number in range(args.rounds):
            for contestant, taken in readings.items():
                reading = ours(name) if contestant == "ours" else bare(name, peers[contestant])
                taken.append(reading[whole])
                print(f"{name}, round {number + 1} of {args.rounds}: {contestant} {taken[-1]:.4f} s", file=sys.stderr)
        rows += [compared(name, work, readings["ours"], readings[peer], peer) for peer in peers]
    show(rows, as_json=args.json, limit=LIMIT)


if __name__ == "__main__":
    main()
