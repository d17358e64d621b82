"""A run on two nodes with real launchers, torchrun and ranks, in a network namespace of its own: `play` runs there, and
prints the addresses that something listens on, and what comes of a stranger who writes into torchrun's store.

    python -m tests.launch.node.two_nodes FOLDER
"""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
from pathlib import Path

from drumbeat.configs.importing import environment
from drumbeat.configs.layers import ROOT
from drumbeat.configs.load import load
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Topology
from drumbeat.configs.run.records import AttemptStart, Status
from tests.processes import until
from tests.runs import write_plan
from tests.tiny import write_config

NODES = ("198.51.100.1", "198.51.100.2")
"""Addresses for documentation (RFC 5737), here of the loopback device of the namespace."""
LAUNCHER = """
import sys
from pathlib import Path
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.node.launcher import Launcher
run = RunDir(Path(sys.argv[1]))
Launcher(run, JobPlan.require(run.plan), node=int(sys.argv[2])).run_attempts()
"""


def in_namespace(folder: Path) -> subprocess.CompletedProcess[str]:
    """Plays it; the return code is 77 if this machine allows no namespaces."""
    addresses = " && ".join(f"ip addr add {address}/24 dev lo" for address in NODES)
    script = f'ip link set lo up && {addresses} || exit 77; exec "$@"'
    return subprocess.run(["unshare", "--map-root-user", "--net", "sh", "-c", script, "sh", sys.executable, "-m",
                           "tests.launch.node.two_nodes", str(folder)], cwd=ROOT, text=True, capture_output=True,
                          check=False)


class Bomb:
    """Executed by whoever unpickles it: it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.file),)


def attack(port: int, file: Path) -> list[str]:
    """What a stranger does who reaches the store: gives every key, and those of torchrun's other backends, a pickle.
    Returns the keys."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(NODES[0], port, None, False)
    keys = [str(key) for key in store.list_keys()]
    for key in [*keys, "torch.rendezvous.none", "/torch.rendezvous.none"]:
        for content in (pickle.dumps(Bomb(file)), base64.b64encode(pickle.dumps(Bomb(file)))):
            store.set(key, content)
    return keys


def play(folder: Path) -> None:
    """Runs the tiny experiment up to its third step, looks and attacks, and lets it end."""
    run = RunDir(folder / "run")
    loaded = load(write_config(folder), ["task._target_=tests.tiny.Fuse", f"task.folder={folder}", "task.at=[3]",
                                         "task.how=wait"])
    write_plan(run, topology=Topology(nodes=2, ranks_per_node=1, device="cpu", cpus_per_rank=1), restarts=0,
               environment=environment(str(folder), [str(ROOT)]), folder=str(folder))
    write_text(run.config, loaded.as_yaml())
    variables = os.environ | {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": ",".join(NODES)}
    launchers = [subprocess.Popen([sys.executable, "-c", LAUNCHER, str(run.path), str(node)],
                                  env=variables | {"SLURMD_NODENAME": address})
                 for node, address in enumerate(NODES)]
    until(lambda: (folder / "blown-0").exists() or launchers[0].poll() is not None)
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()]
    print("listening", *sorted({row[1].partition(":")[0] for row in rows if row[3] == "0A"}))
    start = AttemptStart.require(run.attempt(0).launch)
    print("address", start.address)
    print("keys", len(attack(start.port, folder / "executed")) > 0)
    (folder / "go").touch()
    for launcher in launchers:
        launcher.wait()
    print("state", Status.require(run.status).state)
    print("executed", (folder / "executed").exists())


if __name__ == "__main__":
    play(Path(sys.argv[1]))
