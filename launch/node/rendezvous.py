"""Where the ranks of several nodes meet: an address and a port of the first node, chosen when the job starts."""

from __future__ import annotations

import fcntl
import os
import random
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

SIOCGIFADDR = 0x8915
LOOPBACK = "127.0.0.1"
"""The address for a run on one node: no other machine can reach it, and it needs no name resolution."""
FABRIC = re.compile(r"ib|hsn")
"""The names of InfiniBand and Slingshot network interfaces in Linux."""


def own_address() -> str:
    """The name of this node for the other nodes of the job."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def peer_address(first: str) -> str:
    """A node to connect to: the first node, or from there the second, because its own name may resolve to 127.0.1.1."""
    if first != own_address():
        return first
    names = node_names(os.environ.get("SLURM_JOB_NODELIST", ""))
    return next((name for name in names if name != first), first)


def node_names(text: str) -> list[str]:
    """The nodes of a job from SLURM's abbreviation: `n[1-2,07],gpu3` is n1, n2, n07 and gpu3."""
    names = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        if (bracket := re.search(r"\[([^\]]*)\]", part)) is None:
            names.append(part)
            continue
        for numbers in bracket[1].split(","):
            first, _, last = numbers.partition("-")
            for number in range(int(first), int(last or first) + 1):
                name = f"{part[:bracket.start()]}{number:0{len(first)}d}{part[bracket.end():]}"
                names += node_names(name)  # there may be a second bracket
    return names


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


def interface_to(host: str) -> str | None:
    """The network interface through which this node reaches `host`; gloo and NCCL would guess, and may pick a Docker
    bridge. None if the route is unknown."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing; only looks up the route
            address = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                try:
                    answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                except OSError:
                    continue  # an interface without an IPv4 address
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    except OSError:
        return None
    return "lo" if address.startswith("127.") else None


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
