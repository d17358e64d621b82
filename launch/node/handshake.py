"""The handshake of a job's nodes before its ranks start: each node connects to the first node, at the very port where
torchrun will listen, so that a firewall or a wrong host name gives one clear message and not a hang.

The first node listens until all nodes have connected. The results are in the attempt's folder, and as a table in the
first node's log.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from drumbeat.configs.run.folder import Attempt
from drumbeat.configs.run.records import AttemptStart, NodeUp
from drumbeat.configs.text_table import aligned
from drumbeat.launch.node.rendezvous import interface_to, own_address, peer_address

TIMEOUT = 120.0
"""Seconds until all nodes must have connected: SLURM starts the launchers together, but a slow disk may delay one."""
CONNECT_SECONDS, POLL_SECONDS = 5.0, 0.2
"""Seconds for one attempt to connect; and between two of them."""


def handshake(attempt: Attempt, node: int, nodes: int, cancelled: Callable[[], bool]) -> str:
    """This node's part of the handshake. Returns '' on success, otherwise why the nodes cannot connect. Returns early
    if the attempt is `cancelled` for another reason."""
    start = AttemptStart.require(attempt.launch)
    host, port = start.address, start.port
    up = NodeUp(host=own_address(), interface=interface_to(peer_address(host)))
    if node > 0:
        up.write(attempt.node_up(node))
        began = time.monotonic()
        failure = connect(attempt, node, host, port, cancelled)
        replace(up, connection_error=failure, connection_seconds=time.monotonic() - began).write(attempt.node_up(node))
        if not failure or cancelled():
            return ""
        through = f" through {up.interface}" if up.interface else ""
        return f"{up.host} does not reach {host}:{port}{through}: {failure}"
    replace(up, connection_error="").write(attempt.node_up(node))
    try:
        connected = listen(attempt, port, nodes, cancelled)
    except OSError as error:
        return f"port {port} of {host} cannot be used: {os.strerror(error.errno or 0)}"
    with open(attempt.node_log(0), "a") as log:
        log.write(table(attempt, nodes, connected))
    missing = sorted(set(range(1, nodes)) - connected)
    if cancelled():
        return ""
    return "; ".join(_missing_text(attempt, one, f"{host}:{port}") for one in missing)


def listen(attempt: Attempt, port: int, nodes: int, cancelled: Callable[[], bool]) -> set[int]:
    """The nodes that have connected. Raises `OSError` if the port is in use."""
    connected: set[int] = set()
    until = time.monotonic() + TIMEOUT
    with socket.create_server(("", port)) as server:
        server.settimeout(POLL_SECONDS)
        while len(connected) < nodes - 1 and time.monotonic() < until and not cancelled():
            try:
                client, _ = server.accept()
            except TimeoutError:
                continue
            with client:
                client.settimeout(CONNECT_SECONDS)
                try:
                    received = client.recv(4096).decode(errors="replace").split()
                    if len(received) == 2 and received[0] == _token(attempt) and received[1].isdigit():
                        client.sendall(b"welcome\n")
                        connected.add(int(received[1]))
                except OSError:
                    continue  # the node will try again
    return connected


def connect(attempt: Attempt, node: int, host: str, port: int, cancelled: Callable[[], bool]) -> str:
    """Connects to the first node. Returns '' on success, otherwise the last error."""
    until = time.monotonic() + TIMEOUT
    failure = "not tried"
    while time.monotonic() < until and not cancelled():
        try:
            with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as first:
                first.sendall(f"{_token(attempt)} {node}\n".encode())
                if first.recv(64) == b"welcome\n":
                    return ""
                failure = "another program listens there"
        except OSError as error:
            failure = error.strerror or str(error) or "no answer"
        time.sleep(POLL_SECONDS)
    return failure


def table(attempt: Attempt, nodes: int, connected: Collection[int]) -> str:
    """The result of the handshake as a table."""
    start = AttemptStart.require(attempt.launch)
    rows = [("node", "host", "interface", f"reaches {start.address}:{start.port}")]
    for node in range(nodes):
        up = NodeUp.read(attempt.node_up(node))
        rows.append((str(node), up.host if up else "?", (up.interface if up else None) or "?",
                     "listens there" if node == 0 else "yes" if node in connected else _failure(up)))
    return "".join(f"{line}\n" for line in aligned(rows))


def _missing_text(attempt: Attempt, node: int, goal: str) -> str:
    up = NodeUp.read(attempt.node_up(node))
    return f"{up.host if up else f'node {node}'} does not reach {goal}: {_failure(up)}"


def _failure(up: NodeUp | None) -> str:
    if up is None:
        return "its launcher has not started, or its files are not visible"
    return up.connection_error or "its connection timed out"


def _token(attempt: Attempt) -> str:
    """A word that only launchers of this run send."""
    return f"{attempt.path.parent.parent.name}/{attempt.path.name}".replace(" ", "_")
