"""Where the ranks of several nodes meet: an address and a port of the first node, chosen when the job starts."""

from __future__ import annotations

import fcntl
import os
import random
import re
import socket
import struct
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.run.processes import node_name
from drumbeat.launch.slurm.node_list import node_names

SIOCGIFCONF, IFREQ_BYTES = 0x8912, 40
LOOPBACK = "127.0.0.1"
"""The address for a run on one node: no other machine can reach it, and it needs no name resolution."""
FABRIC = re.compile(r"ib|hsn")
"""The names of InfiniBand and Slingshot network interfaces in Linux."""


def peer_address(first: str) -> str:
    """A node to connect to: the first node, or from there the second, because its own name may resolve to 127.0.1.1."""
    if first != node_name():
        return first
    names = node_names(os.environ.get("SLURM_JOB_NODELIST", ""))
    return next((name for name in names if name != first), first)


def step_nodes(count: int) -> tuple[str, ...]:
    """The names of the nodes that the launchers run on, in their order; "node 0" and so on if they are unknown."""
    text = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST") or node_name()
    with suppress(ValueError):
        if len(names := node_names(text)) == count:
            return tuple(names)
    return tuple(f"node {number}" for number in range(count))


def free_port() -> int:
    """A free TCP port below the kernel's ephemeral range: any connection could take a port of that range before
    torchrun binds it."""
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    choice = random.SystemRandom()
    for _ in range(100):
        port = choice.randrange(10_000, max(ephemeral, 20_000))
        with socket.socket() as candidate:
            try:
                candidate.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError("100 ports tried below the ephemeral range, none is free")


@dataclass(frozen=True)
class Route:
    """How this node reaches another one."""

    address: str
    """This node's own IPv4 address on that way."""
    interface: str | None
    """The name of the network interface; None if it is unknown."""


def route_to(host: str) -> Route | None:
    """The route from this node to `host`; None if it is unknown, for example because the name does not resolve."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing; only looks up the route
            address = probe.getsockname()[0]
            return Route(address, next((name for name, own in _interfaces(probe) if own == address), None))
    except OSError:
        return None


def _interfaces(probe: socket.socket) -> Iterator[tuple[str, str]]:
    """The network interfaces of this node with each of their IPv4 addresses: struct ifreq of netdevice(7)."""
    buffer = array("B", bytes(2**16))
    where, size = buffer.buffer_info()
    answer = fcntl.ioctl(probe.fileno(), SIOCGIFCONF, struct.pack("@iP", size, where))
    for at in range(0, struct.unpack("@iP", answer)[0], IFREQ_BYTES):
        label = buffer[at:at + 16].tobytes().partition(b"\0")[0].decode()
        yield label.partition(":")[0], socket.inet_ntoa(buffer[at + 20:at + 24].tobytes())


def interface_to(host: str) -> str | None:
    """The network interface through which this node reaches `host`; gloo and NCCL would guess, and may pick a Docker
    bridge. None if the route is unknown."""
    route = route_to(host)
    return route.interface if route else None


def meeting_address(nodes: int) -> str:
    """First node: the address at which the ranks of all nodes meet, and the only one on which this node listens for
    them. For several nodes it is this node's address on the way to the second node; its name if that is unknown, and
    then it has to listen on all interfaces."""
    if nodes == 1:
        return LOOPBACK
    name = node_name()
    peer = peer_address(name)
    route = route_to(peer) if peer != name else None
    return route.address if route else name


def listening_address(address: str) -> str:
    """The local address to listen on for connections to `address`: itself, or '' for all interfaces if it is a name."""
    try:
        socket.inet_pton(socket.AF_INET, address)
    except OSError:
        return ""
    return address


def network_variables(address: str, environ: Mapping[str, str],
                      interfaces: Path = Path("/sys/class/net")) -> dict[str, str]:
    """The variables that select the network interface of this node's ranks towards `address`. gloo takes an exact name;
    NCCL needs '=' before it, otherwise it is a prefix. If a faster fabric is up, NCCL is left to find it. Variables
    that are set in `environ` are the user's choice and are kept."""
    interface = interface_to(peer_address(address))
    if interface is None:
        return {}
    fabric = any(FABRIC.match(path.name) and _is_up(path) for path in interfaces.glob("*"))
    found = {"GLOO_SOCKET_IFNAME": interface} | ({} if fabric else {"NCCL_SOCKET_IFNAME": f"={interface}"})
    return {name: value for name, value in found.items() if name not in environ}


def _is_up(interface: Path) -> bool:
    try:
        return (interface / "operstate").read_text().strip() == "up"
    except OSError:
        return False
