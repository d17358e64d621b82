"""torchrun's store, where the ranks of a run find each other. It serves whoever reaches it, without asking who."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import static_tcp_rendezvous

LOOPBACK = "127.0.0.1"


def keep_on_loopback(listener: socket.socket | None = None) -> None:
    """torchrun's static rendezvous opens its store on all network interfaces, whatever address it is given (read in
    torch 2.9.0 and 2.14.1). From now on a store for the ranks of one node is opened where only that node reaches it, or
    listens on a socket that is open already."""
    static_tcp_rendezvous.TCPStore = partial(_store, listener)  # type: ignore[assignment, attr-defined, misc]


def meet_on_loopback() -> list[str]:
    """torchrun's words for ranks of this node alone. The port at which they meet is taken here and now."""
    listener = socket.create_server((LOOPBACK, 0))
    keep_on_loopback(listener)
    return ["--nnodes=1", "--rdzv-backend=static", "--node-rank=0", f"--master-addr={LOOPBACK}",
            f"--master-port={listener.getsockname()[1]}"]


def _store(listener: socket.socket | None, host: str, port: int, world_size: int, is_master: bool, timeout: Any,
           **options: Any) -> TCPStore:
    if is_master and host.startswith("127."):
        options["master_listen_fd"] = (listener or socket.create_server((host, port))).detach()
    return TCPStore(host, port, world_size, is_master, timeout, **options)
