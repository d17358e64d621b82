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
"""Where the ranks of a run on one node meet: nobody else can reach it, and it needs no name."""
FABRIC = re.compile(r"ib|hsn")
"""How Linux names network interfaces of InfiniBand and of Slingshot."""


def own_address() -> str:
    """The name by which the other nodes of the job know this one."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def other_node(first: str) -> str:
    """A node to reach from here: the first one, or from that one the next. Its own name may lead it to 127.0.1.1."""
    if first != own_address():
        return first
    names = node_names(os.environ.get("SLURM_JOB_NODELIST", ""))
    return next((name for name in names if name != first), first)


def node_names(text: str) -> list[str]:
    """The nodes of a job, which SLURM abbreviates: `n[1-2,07],gpu3` is n1, n2, n07 and gpu3."""
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
    """A TCP port that nobody listens on, below the range from which the kernel hands out ports of its own accord: one
    of those could be taken by any connection between now and the moment torchrun binds it."""
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


def interface_towards(host: str) -> str | None:
    """The network interface by which this node reaches `host`: gloo and NCCL otherwise guess, and may pick a bridge of
    docker's. None where the route cannot be told."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing: only asks for the route
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
    """By which network interface the ranks of this node reach the others, who meet at `address`: gloo takes one name as
    it stands, NCCL one after '=' (or it is the beginning of several). Where a faster fabric is up, NCCL finds it better
    alone. What stands in `environ` is the user's choice, and stays."""
    interface = interface_towards(other_node(address))
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
