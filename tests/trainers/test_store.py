"""torchrun's store, which serves whoever reaches it: only this machine does where the ranks are on one node."""

from __future__ import annotations

import subprocess
import sys

from drumbeat.configs.layers import ROOT

MEETING = """
from pathlib import Path
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import create_rdzv_handler
from drumbeat.trainers.store import meet_on_loopback
words = dict(word.removeprefix("--").split("=") for word in meet_on_loopback())
endpoint = f"{words['master-addr']}:{words['master-port']}"
parameters = RendezvousParameters("static", endpoint, "run", 1, 1, rank=0)
met = create_rdzv_handler(parameters).next_rendezvous()
listening = [line.split()[1] for file in ("/proc/net/tcp", "/proc/net/tcp6") for line in open(file) if " 0A " in line]
print(*[address.rpartition(":")[0] for address in listening
        if address.endswith(f":{int(words['master-port']):04X}")])
"""


def test_the_ranks_of_an_evaluation_meet_on_loopback() -> None:
    done = subprocess.run([sys.executable, "-c", MEETING], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "0100007F\n", done.stderr
