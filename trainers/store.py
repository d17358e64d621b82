"""torchrun's store, where the ranks of a run find each other. It serves whoever reaches it, without asking who."""

from __future__ import annotations

import socket
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import static_tcp_rendezvous


def keep_on_loopback() -> None:
    """torchrun's static rendezvous opens its store on all network interfaces, whatever address it is given (read in
    torch 2.9.0 and 2.14.1). From now on a store for the ranks of one node is opened where only that node reaches it."""
    static_tcp_rendezvous.TCPStore = _store  # type: ignore[assignment, attr-defined, misc]


def _store(host: str, port: int, world_size: int, is_master: bool, timeout: Any, **options: Any) -> TCPStore:
    if is_master and host.startswith("127."):
        options["master_listen_fd"] = socket.create_server((host, port)).detach()
    return TCPStore(host, port, world_size, is_master, timeout, **options)
