"""The handshake of a job's nodes before its ranks start: each node connects to the first node, at the very port where
torchrun will listen, so that a firewall or a wrong host name gives one clear message and not a hang.

    first node    a random challenge
    other node    its number, a challenge of its own, and a proof that it knows the secret
    first node    a proof that it knows the secret, too

The secret is a file of the attempt that only the owner can read. It is never sent: a proof is an HMAC of the
challenges. Connections of other programs cannot delay the nodes, because all are served at the same time.

The first node listens until all nodes have connected. The results are in the attempt's folder, and as a table in the
first node's log.
"""

from __future__ import annotations

import hmac
import os
import secrets
import selectors
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.files import DamagedError, read_text, write_text
from drumbeat.configs.run.processes import node_name
from drumbeat.configs.run.records import AttemptStart, NodeUp
from drumbeat.configs.text_table import aligned
from drumbeat.launch.attempts.blame import nodes_of
from drumbeat.launch.node.rendezvous import interface_to, listening_address, peer_address

TIMEOUT = 120.0
"""Seconds until all nodes must have connected: SLURM starts the launchers together, but a slow disk may delay one."""
CONNECT_SECONDS, POLL_SECONDS = 5.0, 0.2
"""Seconds for one attempt to connect; and between two of them."""
MAX_STRANGERS = 64
"""The number of connections beyond one for each node. If there are more, the oldest one is closed: a node answers in
milliseconds, and tries again."""
MAX_LINE = 256
"""Bytes of the longest message."""


def write_secret(attempt: Attempt) -> None:
    """First node: writes the secret of an attempt, readable by the owner only."""
    write_text(attempt.secret, secrets.token_hex(32), private=True)


def handshake(attempt: Attempt, node: int, nodes: int, cancelled: Callable[[], bool]) -> str:
    """This node's part of the handshake. Returns '' on success, otherwise why the nodes cannot connect. Returns early
    if the attempt is `cancelled` for another reason."""
    start = AttemptStart.require(attempt.launch)
    up = NodeUp(host=node_name(), interface=interface_to(peer_address(start.address)))
    if node > 0:
        up.write(attempt.node_up(node))
        began = time.monotonic()
        failure = connect(attempt, node, start.address, start.port, cancelled)
        replace(up, connection_error=failure, connection_seconds=time.monotonic() - began).write(attempt.node_up(node))
        if not failure or cancelled():
            return ""
        through = f" through {up.interface}" if up.interface else ""
        return f"{up.host} does not reach {_goal(start)}{through}: {failure}"
    replace(up, connection_error="").write(attempt.node_up(node))
    try:
        connected = listen(attempt, start.address, start.port, nodes, cancelled)
    except OSError as error:
        replace(up, connection_error=os.strerror(error.errno or 0)).write(attempt.node_up(node))
        return f"port {start.port} of {start.host or start.address} cannot be used: {os.strerror(error.errno or 0)}"
    with open(attempt.node_log(0), "a") as log:
        log.write(table(attempt, nodes, connected))
        if not listening_address(start.address):
            log.write(f"{start.address} listens on all its interfaces: the route to the other nodes is unknown\n")
    missing = sorted(set(range(1, nodes)) - connected)
    if cancelled():
        return ""
    return "; ".join(_missing_text(attempt, one, _goal(start)) for one in missing)


@dataclass(eq=False)
class Caller:
    """A connection to the first node: perhaps from another node, perhaps from another program."""

    connection: socket.socket
    challenge: str
    until: float
    """When it is closed, on the monotonic clock."""
    received: bytes = b""


def listen(attempt: Attempt, address: str, port: int, nodes: int, cancelled: Callable[[], bool]) -> set[int]:
    """The nodes that have connected. Raises `OSError` if the port is in use."""
    connected: set[int] = set()
    callers: list[Caller] = []  # the oldest first
    until = time.monotonic() + TIMEOUT
    most = nodes + MAX_STRANGERS
    secret = _secret(attempt)
    with (socket.create_server((listening_address(address), port), backlog=most) as server,
          selectors.DefaultSelector() as selector):
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ)
        while len(connected) < nodes - 1 and (now := time.monotonic()) < until and not cancelled():
            done = [*callers[:-most], *(caller for caller in callers[-most:] if caller.until < now)]
            for key, _ in selector.select(POLL_SECONDS):
                if key.data is None:
                    if caller := _accept(server):
                        callers.append(caller)
                        selector.register(caller.connection, selectors.EVENT_READ, caller)
                elif key.data not in done and (answer := _answer(key.data, secret, nodes)) is not None:
                    connected |= answer
                    done.append(key.data)
            for caller in done:
                selector.unregister(caller.connection)
                caller.connection.close()
                callers.remove(caller)
        for caller in callers:
            caller.connection.close()
    return connected


def _accept(server: socket.socket) -> Caller | None:
    """Accepts a connection and sends it a challenge; None if it has gone."""
    try:
        connection, _ = server.accept()
    except OSError:
        return None
    connection.setblocking(False)
    caller = Caller(connection, secrets.token_hex(16), time.monotonic() + CONNECT_SECONDS)
    with suppress(OSError):  # noticed when it is read
        connection.sendall(f"{caller.challenge}\n".encode())
    return caller


def _answer(caller: Caller, secret: bytes, nodes: int) -> set[int] | None:
    """Reads what has come from a connection. Returns None while its message is incomplete, then the node that it has
    proven to be, or nothing."""
    try:
        piece = caller.connection.recv(MAX_LINE)
        caller.received += piece
        if piece and not piece.endswith(b"\n") and len(caller.received) < MAX_LINE:
            return None
        number, own, proof = caller.received.decode("ascii").removesuffix("\n").split(" ")
        node = int(number)
        if 0 < node < nodes and hmac.compare_digest(proof, _proof(secret, "node", node, caller.challenge, own)):
            caller.connection.sendall(f"{_proof(secret, 'first', node, caller.challenge, own)}\n".encode())
            return {node}
    except (OSError, ValueError):  # it has gone, or is another program
        pass
    return set()


def connect(attempt: Attempt, node: int, host: str, port: int, cancelled: Callable[[], bool]) -> str:
    """Connects to the first node. Returns '' on success, otherwise the last error."""
    until = time.monotonic() + TIMEOUT
    failure = "not tried"
    while time.monotonic() < until and not cancelled():
        try:
            failure = _prove(_secret(attempt), node, host, port)
        except DamagedError as error:  # its disk does not answer for a moment
            failure = error.reason
        except OSError as error:
            failure = error.strerror or str(error) or "no answer"
        if not failure:
            return ""
        time.sleep(POLL_SECONDS)
    return failure


def _prove(secret: bytes, node: int, host: str, port: int) -> str:
    """Connects once, and proves to be this node. Returns '', or what is wrong. Raises `OSError`."""
    until = time.monotonic() + CONNECT_SECONDS
    with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as first:
        challenge, own = _line(first, until), secrets.token_hex(16)
        first.sendall(f"{node} {own} {_proof(secret, 'node', node, challenge, own)}\n".encode())
        expected, answer = _proof(secret, "first", node, challenge, own), _line(first, until)
        return "" if hmac.compare_digest(answer.encode(), expected.encode()) else "another program listens there"


def _line(connection: socket.socket, until: float) -> str:
    """The next line, or what has come of it if the connection ends. Raises `OSError`, also when the time is over."""
    received = b""
    while not received.endswith(b"\n") and len(received) < MAX_LINE:
        connection.settimeout(max(0.001, until - time.monotonic()))
        if not (piece := connection.recv(MAX_LINE)):
            break
        received += piece
    return received.decode("ascii", "replace").rstrip("\n")


def _secret(attempt: Attempt) -> bytes:
    return read_text(attempt.secret, MAX_LINE).encode()


def _proof(secret: bytes, role: str, node: int, challenge: str, own: str) -> str:
    """What only a launcher of this attempt can compute. `role` is who proves it: a node, or the first node."""
    return hmac.new(secret, f"{role} {node} {challenge} {own}".encode(), "sha256").hexdigest()


def table(attempt: Attempt, nodes: int, connected: Collection[int]) -> str:
    """The result of the handshake as a table."""
    start = AttemptStart.require(attempt.launch)
    rows = [("node", "host", "interface", f"reaches {_goal(start)}")]
    for node in range(nodes):
        up = NodeUp.read(attempt.node_up(node))
        rows.append((str(node), up.host if up else "?", (up.interface if up else None) or "?",
                     "listens there" if node == 0 else "yes" if node in connected else _failure(up)))
    return "".join(f"{line}\n" for line in aligned(rows))


def _goal(start: AttemptStart) -> str:
    """The place that the nodes connect to: n1:29500, or n1 (10.0.0.1:29500)."""
    place = f"{start.address}:{start.port}"
    return place if start.host in ("", start.address) else f"{start.host} ({place})"


def _missing_text(attempt: Attempt, node: int, goal: str) -> str:
    up, names = NodeUp.read(attempt.node_up(node)), nodes_of(attempt)
    name = up.host if up else names[node] if names else f"node {node}"
    return f"{name} does not reach {goal}: {_failure(up)}"


def _failure(up: NodeUp | None) -> str:
    if up is None:
        return "its launcher has not started, or its files are not visible"
    return up.connection_error or "its connection timed out"
