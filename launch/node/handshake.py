"""The nodes of a job meet before its ranks do: each one is seen to reach the first, at the very port where torchrun
will meet, so that a firewall or a wrong name is one clear line and not a hang.

The first node listens until all have called. What each one came to stands in the attempt's folder, and as a table in
the first node's log.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from drumbeat.configs.run.folder import Attempt
from drumbeat.configs.run.records import AttemptStart, NodeUp
from drumbeat.launch.node.rendezvous import interface_towards, other_node, own_address

PATIENCE = 120.0
"""Seconds until all nodes have to be there: SLURM starts the launchers together, but a loaded disk may delay one."""
KNOCK, LOOK = 5.0, 0.2
"""Seconds that one try to connect may take; and between two."""


def meet(attempt: Attempt, node: int, nodes: int, over: Callable[[], bool]) -> str:
    """This node's part. Returns '' when it is done, or why the nodes cannot work together. Ends early when it is `over`
    for another reason."""
    start = AttemptStart.require(attempt.launch)
    host, port = start.address, start.port
    up = NodeUp(host=own_address(), interface=interface_towards(other_node(host)))
    if node > 0:
        up.write(attempt.node_up(node))
        began = time.monotonic()
        trouble = call(attempt, node, host, port, over)
        replace(up, connection_error=trouble, connection_seconds=time.monotonic() - began).write(attempt.node_up(node))
        if not trouble or over():
            return ""
        through = f" through {up.interface}" if up.interface else ""
        return f"{up.host} does not reach {host}:{port}{through}: {trouble}"
    replace(up, connection_error="").write(attempt.node_up(node))
    try:
        here = listen(attempt, port, nodes, over)
    except OSError as error:
        return f"port {port} of {host} cannot be used: {os.strerror(error.errno or 0)}"
    with open(attempt.node_log(0), "a") as log:
        log.write(table(attempt, nodes, here))
    absent = sorted(set(range(1, nodes)) - here)
    return "" if over() or not absent else "; ".join(_why_absent(attempt, one, f"{host}:{port}") for one in absent)


def listen(attempt: Attempt, port: int, nodes: int, over: Callable[[], bool]) -> set[int]:
    """The nodes that have called. Raises `OSError` where the port is taken."""
    here: set[int] = set()
    until = time.monotonic() + PATIENCE
    with socket.create_server(("", port)) as door:
        door.settimeout(LOOK)
        while len(here) < nodes - 1 and time.monotonic() < until and not over():
            try:
                caller, _ = door.accept()
            except TimeoutError:
                continue
            with caller:
                caller.settimeout(KNOCK)
                try:
                    said = caller.recv(4096).decode(errors="replace").split()
                    if len(said) == 2 and said[0] == _password(attempt) and said[1].isdigit():
                        caller.sendall(b"welcome\n")
                        here.add(int(said[1]))
                except OSError:
                    continue  # it will call again
    return here


def call(attempt: Attempt, node: int, host: str, port: int, over: Callable[[], bool]) -> str:
    """Calls the first node until it answers; '' when it has, else what went wrong in the end."""
    until = time.monotonic() + PATIENCE
    trouble = "it was not tried"
    while time.monotonic() < until and not over():
        try:
            with socket.create_connection((host, port), timeout=KNOCK) as first:
                first.sendall(f"{_password(attempt)} {node}\n".encode())
                if first.recv(64) == b"welcome\n":
                    return ""
                trouble = "somebody else listens there"
        except OSError as error:
            trouble = error.strerror or str(error) or "no answer"
        time.sleep(LOOK)
    return trouble


def table(attempt: Attempt, nodes: int, here: Collection[int]) -> str:
    """Who met whom, for a person."""
    start = AttemptStart.require(attempt.launch)
    rows = [("node", "host", "interface", f"reaches {start.address}:{start.port}")]
    for node in range(nodes):
        up = NodeUp.read(attempt.node_up(node))
        rows.append((str(node), up.host if up else "?", (up.interface if up else None) or "?",
                     "listens there" if node == 0 else "yes" if node in here else _trouble(up)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
                   for row in rows)


def _why_absent(attempt: Attempt, node: int, goal: str) -> str:
    up = NodeUp.read(attempt.node_up(node))
    return f"{up.host if up else f'node {node}'} does not reach {goal}: {_trouble(up)}"


def _trouble(up: NodeUp | None) -> str:
    if up is None:
        return "its launcher has not started, or its files do not appear"
    return up.connection_error or "it calls in vain"


def _password(attempt: Attempt) -> str:
    """What only launchers of this run say, in one word."""
    return f"{attempt.path.parent.parent.name}/{attempt.path.name}".replace(" ", "_")
