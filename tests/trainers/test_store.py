"""torchrun's store accepts all clients, so it listens on one address only, and nothing in it is ever executed."""

from __future__ import annotations

import subprocess
import sys

from drumbeat.configs.layers import ROOT

MEETING = """
from pathlib import Path
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import create_rdzv_handler
from drumbeat.trainers.store import meet_on_loopback
from tests.processes import listening_addresses
words = dict(word.removeprefix("--").split("=") for word in meet_on_loopback())
endpoint = f"{words['master-addr']}:{words['master-port']}"
parameters = RendezvousParameters("static", endpoint, "run", 1, 1, rank=0)
met = create_rdzv_handler(parameters).next_rendezvous()
print(*listening_addresses(int(words["master-port"])))
"""


def test_the_ranks_of_an_evaluation_meet_on_loopback() -> None:
    done = subprocess.run([sys.executable, "-c", MEETING], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "0100007F\n", done.stderr
