"""torchrun's store, through which the ranks of a run find each other. It accepts all clients without authentication, so
it must be reachable by as few as possible."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import static_tcp_rendezvous

LOOPBACK = "127.0.0.1"


def listen_narrowly(listener: socket.socket | None = None) -> None:
    """Makes torchrun's static rendezvous open the store on one network interface only, the one with the IP address at
    which the ranks meet, or use a socket that is already open. By default it opens the store on all interfaces,
    whatever its address (read in torch 2.9.0 and 2.14.1); so it does if the ranks meet at a host's name."""
    static_tcp_rendezvous.TCPStore = partial(_store, listener)  # type: ignore[assignment, attr-defined, misc]


def meet_on_loopback() -> list[str]:
    """torchrun's arguments for ranks on this node only. The port of the store is opened here, and gloo and NCCL, which
    would ask for the address of the host's name, listen on loopback, too, unless the user has set their interface."""
    for variable, interface in (("GLOO_SOCKET_IFNAME", "lo"), ("NCCL_SOCKET_IFNAME", "=lo")):
        os.environ.setdefault(variable, interface)
    listener = socket.create_server((LOOPBACK, 0))
    listen_narrowly(listener)
    return ["--nnodes=1", "--node-rank=0", f"--log-dir={os.devnull}", "--rdzv-backend=static",
            f"--master-addr={LOOPBACK}", f"--master-port={listener.getsockname()[1]}"]


def _store(listener: socket.socket | None, host: str, port: int, world_size: int, is_master: bool, timeout: Any,
           **options: Any) -> TCPStore:
    if is_master and (listener or _is_address(host)):
        options["master_listen_fd"] = (listener or socket.create_server((host, port))).detach()
    return TCPStore(host, port, world_size, is_master, timeout, **options)


def _is_address(host: str) -> bool:
    """Whether this is an IPv4 address and not a name."""
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return False
    return True
