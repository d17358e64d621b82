"""What grows with the number of ranks: everything that a rank, a node launcher or a command does once, or at each step,
at world sizes from 8 to 4,096 with a set of a thousand million samples.

    python -m benchmarks.scale [--worlds N N ...] [--json]

One process stands in for one rank (torch's FakeProcessGroup, whose collectives do nothing) or for one launcher; the
handshake has a thread for each node. All figures are of this process's CPU time, the smallest of several. A node has
eight ranks. What the network takes is not in them.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks.report import Row, show
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import AttemptStart, Heartbeat, NodeDown, NodeUp, RankError
from drumbeat.configs.run.view import View
from drumbeat.configs.site import Site
from drumbeat.data.ledger import digest
from drumbeat.data.order import Stream, shard
from drumbeat.data.schedule import Schedule
from drumbeat.launch.attempts.verdict import verdict_of
from drumbeat.launch.node.handshake import connect, listen, write_secret
from drumbeat.launch.node.launcher import POLL_SECONDS, Launcher
from drumbeat.launch.node.rendezvous import LOOPBACK, free_port
from drumbeat.launch.runs.status import status_text
from drumbeat.trainers.step_times import Times
from drumbeat.trainers.stopping import RANKS_PER_SECOND, SECONDS_BETWEEN_EXCHANGES, StopCoordinator
from drumbeat.trainers.stragglers import Stragglers
from drumbeat.trainers.tracking import NullTracker
from drumbeat.trainers.world import World

SAMPLES, SAMPLES_A_RANK = 10**9, 32
RANKS_A_NODE = 8
WORLDS = (8, 64, 512, 4096)

LIMIT = """Limit: what a rank does at a step does not depend on the number of ranks (ratio 1). What the first rank or
node does for all others grows with their number (ratio 0.002 at 512 times as many), and has to stay short: rank 0
exchanges times less often with more ranks, and a verdict is determined once."""


def seconds(act: Callable[[], object], tries: int = 5, repeat: int = 1) -> float:
    """The smallest CPU time of `tries`, in each of which it is repeated."""
    found = []
    for _ in range(tries):
        began = time.process_time()
        for _ in range(repeat):
            act()
        found.append((time.process_time() - began) / repeat)
    return min(found)


def peak(act: Callable[[], object]) -> int:
    """The largest number of bytes that Python and numpy held in it."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def joined(size: int, rank: int = 0) -> Iterator[World]:
    """A rank of so many."""
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    try:
        yield World(rank=rank, local_rank=0, size=size, device=torch.device("cpu"))
    finally:
        dist.destroy_process_group()


@contextmanager
def attempt_of(size: int) -> Iterator[Attempt]:
    """An attempt in which so many ranks train, with the files of each rank and node."""
    nodes = size // RANKS_A_NODE
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / "runs" / "scale" / "20260101-000000-aaaaa")
        attempt = run.claim_attempt()
        plan = JobPlan(run_dir=str(run.path), name="scale", backend="slurm", restarts=3, environment={}, site=Site(),
                       folder=folder, topology=Topology(nodes=nodes, ranks_per_node=RANKS_A_NODE, device="cpu",
                                                        cpus_per_rank=1))
        plan.write(run.plan)
        run.write_status("running", attempt=0)
        AttemptStart(job="1.0.0", address=LOOPBACK, port=free_port(), nodes=tuple(f"n{n}" for n in range(nodes)),
                     on_slurm=True).write(attempt.launch)
        write_secret(attempt)
        Heartbeat(step=100, steps=1000, loss=0.5).write(attempt.heartbeat)
        for node in range(nodes):
            NodeUp(host=f"n{node}", interface="eth0", connection_error="").write(attempt.node_up(node), durable=False)
            attempt.node_log(node).touch()
        for rank in range(size):
            attempt.log(rank).write_text("a line\n" * 20)
            attempt.stacks(rank).write_text("step        100\n")
        yield attempt


def order(size: int) -> Callable[[], object]:
    """Which samples the last rank reads in a step, and their share in the ledger."""
    stream, batch = Stream(SAMPLES, seed=0, phase=0), SAMPLES_A_RANK * size
    schedule, own = Schedule(SAMPLES, batch, epochs=3), shard(batch, size - 1, size)

    def step() -> object:
        positions = np.asarray(schedule.positions(schedule.steps // 2)[own.start:own.stop])
        return digest(positions, stream.indices(positions))

    return step


def agreement(size: int) -> float:
    """The seconds of rank 0 for one check whether to stop."""
    with joined(size) as world, attempt_of(8) as attempt:
        coordinator = StopCoordinator(world=world, attempt=attempt, save_seconds=1e9)

        def check() -> None:
            coordinator.check_before(100)
            coordinator.before(100)

        return seconds(check, repeat=20)


def exchange(size: int, rank: int) -> float:
    """The part of its time that a rank spends on telling rank 0 its times, or rank 0 on comparing them."""
    with joined(size, rank) as world, attempt_of(8) as attempt, contextlib.redirect_stdout(None):
        stragglers = Stragglers(world, attempt, NullTracker())
        times = Times(0.1, 1.0, 0.0, 0.1, SAMPLES_A_RANK)
        interval = max(SECONDS_BETWEEN_EXCHANGES, size / RANKS_PER_SECOND)
        return seconds(lambda: stragglers.exchange(times, 100)) / interval


def launcher_poll(size: int) -> float:
    """The part of its time that a node's launcher spends on looking whether another node has failed."""
    with attempt_of(size) as attempt:
        run = RunDir(attempt.path.parent.parent)
        launcher = Launcher(run, JobPlan.require(run.plan), node=size // RANKS_A_NODE - 1)
        return seconds(lambda: launcher.is_over(attempt), repeat=5) / POLL_SECONDS


def verdict(size: int) -> tuple[float, int]:
    """Seconds of the first node's launcher for the verdict when all ranks report an error at once, and its bytes."""
    with attempt_of(size) as attempt:
        run = RunDir(attempt.path.parent.parent)
        for rank in range(size):
            message = "Connection closed by peer [10.0.0.1]:1234" if rank else "CUDA error: an illegal memory access"
            RankError(rank=rank, node=f"n{rank // RANKS_A_NODE}", type="RuntimeError", message=message, step=100,
                      traceback="  File train.py, line 1\n" * 20).write(attempt.error(rank), durable=False)
        for node in range(size // RANKS_A_NODE):
            NodeDown(exit_code=1, host=f"n{node}").write(attempt.node_down(node), durable=False)
        taken = seconds(lambda: verdict_of(run, attempt, restarts=3).write(attempt.verdict), tries=2)
        return taken, attempt.verdict.stat().st_size


def status(size: int) -> float:
    """Seconds of `drumbeat status` after its imports."""
    with joined(size) as world, attempt_of(size) as attempt:
        Stragglers(world, attempt, NullTracker()).exchange(Times(0.1, 1.0, 0.0, 0.1, SAMPLES_A_RANK), 100)
        return seconds(lambda: status_text(View.read(RunDir(attempt.path.parent.parent))))


def files(size: int) -> float:
    """Files of an attempt for each node."""
    with attempt_of(size) as attempt:
        return len(list(attempt.path.iterdir())) * RANKS_A_NODE / size


def handshake(size: int) -> float:
    """Seconds for each node until all have connected to the first, with two nodes at least."""
    nodes = max(2, size // RANKS_A_NODE)
    with attempt_of(max(size, 16)) as attempt:
        start = AttemptStart.require(attempt.launch)
        threads = [Thread(target=connect, args=(attempt, node, LOOPBACK, start.port, lambda: False), daemon=True)
                   for node in range(1, nodes)]
        began = time.process_time()
        for thread in threads:
            thread.start()
        connected = listen(attempt, LOOPBACK, start.port, nodes, lambda: False)
        taken = time.process_time() - began
        for thread in threads:
            thread.join()
        assert connected == set(range(1, nodes))
        return taken / nodes


def measure(worlds: Sequence[int]) -> tuple[list[Row], list[str]]:
    """A row for each work at the largest world, compared with the smallest; and a line with the figures of all."""
    works: dict[str, tuple[str, Callable[[int], float]]] = {
        "a rank: order and ledger of a step": ("us", lambda size: 1e6 * seconds(order(size), repeat=20)),
        "a rank: memory for that": ("kB", lambda size: peak(order(size)) / 1000),
        "rank 0: a check whether to stop": ("us", lambda size: 1e6 * agreement(size)),
        "a rank: its times for rank 0": ("% of its time", lambda size: 100 * exchange(size, size - 1)),
        "rank 0: comparing the ranks": ("% of its time", lambda size: 100 * exchange(size, 0)),
        "a launcher: has a node failed?": ("% of its time", lambda size: 100 * launcher_poll(size)),
        "handshake, for each node": ("ms", lambda size: 1000 * handshake(size)),
        "verdict of errors of all ranks": ("s", lambda size: verdict(size)[0]),
        "its size": ("bytes", lambda size: float(verdict(size)[1])),
        "drumbeat status": ("ms", lambda size: 1000 * status(size)),
        "files for each node": ("", files),
    }
    rows, lines = [], []
    for name, (unit, work) in works.items():
        found = [work(size) for size in worlds]
        rows.append(Row(name=name, unit=unit, ours=found[-1], peer=found[0], peer_name=f"itself at {worlds[0]} ranks",
                        ratio=found[0] / found[-1]))
        lines.append(f"{name}: " + ", ".join(f"{value:.3g}" for value in found))
    return rows, [f"At {', '.join(map(str, worlds))} ranks:", *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--worlds", type=int, nargs="+", default=list(WORLDS), help="world sizes (default: 8 to 4,096)")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    rows, lines = measure(args.worlds)
    show(rows, as_json=args.json, limit="\n".join([*lines, LIMIT]))


if __name__ == "__main__":
    main()
