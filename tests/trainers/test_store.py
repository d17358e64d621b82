"""torchrun's store accepts all clients, so it listens on one address only, and nothing in it is ever executed."""

from __future__ import annotations

import subprocess
import sys

from drumbeat.configs.layers import ROOT

MEETING = """
import torch.distributed as dist
from pathlib import Path
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import create_rdzv_handler
from drumbeat.trainers.store import meet_on_loopback
words = dict(word.removeprefix("--").split("=") for word in meet_on_loopback())
endpoint = f"{words['master-addr']}:{words['master-port']}"
parameters = RendezvousParameters("static", endpoint, "run", 1, 1, rank=0)
met = create_rdzv_handler(parameters).next_rendezvous()
dist.init_process_group("gloo", store=met.store, rank=0, world_size=1)
sockets = {path.readlink().name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
rows = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{file}").read_text().splitlines()]
listening = [row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
print(len(listening), *set(listening))
"""


def test_the_ranks_of_an_evaluation_meet_on_loopback() -> None:
    """torchrun's store and gloo: two sockets."""
    done = subprocess.run([sys.executable, "-c", MEETING], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "2 0100007F\n", done.stderr
