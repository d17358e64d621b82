"""The nodes connect to each other before their ranks do, and those that do not connect, or cannot, are named."""

from __future__ import annotations

import hmac
import socket
import stat
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, NodeUp
from drumbeat.launch.node import handshake as meeting
from drumbeat.launch.node.handshake import handshake, write_secret
from drumbeat.launch.node.rendezvous import free_port
from tests.processes import listening_addresses


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    monkeypatch.setattr(meeting, "TIMEOUT", 1.0)
    monkeypatch.setattr(meeting, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(meeting, "CONNECT_SECONDS", 1.0)
    monkeypatch.setenv("SLURMD_NODENAME", "127.0.0.1")
    attempt = RunDir(tmp_path / "run").claim_attempt()
    write_secret(attempt)
    AttemptStart(job="7.0", address="127.0.0.1", port=free_port()).write(attempt.launch)
    return attempt


def never() -> bool:
    return False


def test_all_nodes_connect_and_the_port_is_free_afterwards(attempt: Attempt) -> None:
    came: dict[int, str] = {}
    others = [threading.Thread(target=lambda node=node: came.update({node: handshake(attempt, node, 3, never)}))
              for node in (1, 2)]
    for other in others:
        other.start()
    assert handshake(attempt, 0, 3, never) == ""
    for other in others:
        other.join()
    assert came == {1: "", 2: ""}
    port = AttemptStart.require(attempt.launch).port
    assert attempt.node_log(0).read_text() == (
        f"node  host       interface  reaches 127.0.0.1:{port}\n"
        "0     127.0.0.1  lo         listens there\n"
        "1     127.0.0.1  lo         yes\n"
        "2     127.0.0.1  lo         yes\n")
    with socket.socket() as torchrun:
        torchrun.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        torchrun.bind(("", port))


def test_a_node_that_does_not_connect_is_named(attempt: Attempt) -> None:
    NodeUp(host="n2", interface="ib0", connection_error="No route to host").write(attempt.node_up(1))
    port = AttemptStart.require(attempt.launch).port
    assert handshake(attempt, 0, 3, never) == (
        f"n2 does not reach 127.0.0.1:{port}: No route to host; node 2 does not reach 127.0.0.1:{port}: "
        "its launcher has not started, or its files are not visible")
    assert "2     ?          ?          its launcher has not started" in attempt.node_log(0).read_text()


def test_a_node_that_cannot_connect_reports_the_error(attempt: Attempt) -> None:
    port = AttemptStart.require(attempt.launch).port
    assert handshake(attempt, 1, 2, never) == (
        f"127.0.0.1 does not reach 127.0.0.1:{port} through lo: Connection refused")
    assert NodeUp.require(attempt.node_up(1)).connection_error == "Connection refused"


def until_connected(port: int) -> socket.socket:
    """A connection to the first node, as soon as it listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_another_program_at_the_first_nodes_port_is_not_taken_for_it(attempt: Attempt) -> None:
    """Whether it talks, echoes what it gets, or is silent."""
    secret = attempt.secret.read_bytes()
    for answer in (lambda caller: caller.sendall(b"220 mail.example.org\n250 ok\n"),
                   lambda caller: (caller.sendall(b"abc\n"), caller.sendall(caller.recv(256))),
                   lambda caller: caller.sendall(b"abc\n" + meeting._proof(b"wrong", "first", 1, "abc", "").encode())):
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            def talk(answer: object = answer, stranger: socket.socket = stranger) -> None:
                caller, _ = stranger.accept()
                with caller:
                    answer(caller)  # type: ignore[operator]
                    caller.shutdown(socket.SHUT_WR)
                    caller.recv(256)

            talking = threading.Thread(target=talk)
            talking.start()
            assert meeting._prove(secret, 1, *stranger.getsockname()) == "another program listens there"
            talking.join()


def test_what_other_programs_send_is_ignored(attempt: Attempt) -> None:
    """Also the run's id, which `ps` and SLURM show; a proof with another secret; and a digit that is no decimal."""
    meeting.TIMEOUT = 60.0  # restored by the fixture
    port = AttemptStart.require(attempt.launch).port
    answers: list[bytes | str] = []
    over = threading.Event()

    def knock() -> None:
        for message in (b"GET / HTTP/1.0\n", b"run/000 1\n", "\N{SUPERSCRIPT TWO} x y\n".encode(), b"9" * 5000,
                        b"\n", b""):
            with until_connected(port) as caller, suppress(OSError):
                caller.recv(256)
                caller.sendall(message)
                caller.shutdown(socket.SHUT_WR)
                answers.append(caller.recv(256))
        answers.append(meeting._prove(b"another secret", 1, "127.0.0.1", port))
        over.set()

    knocking = threading.Thread(target=knock)
    knocking.start()
    assert meeting.listen(attempt, "127.0.0.1", port, 2, over.is_set) == set()
    knocking.join()
    assert set(answers) == {b"", "another program listens there"}


def test_a_recorded_conversation_is_of_no_use(attempt: Attempt) -> None:
    secret, port = attempt.secret.read_bytes(), AttemptStart.require(attempt.launch).port
    meeting.TIMEOUT = 60.0  # restored by the fixture
    over = threading.Event()
    listening = threading.Thread(target=lambda: meeting.listen(attempt, "127.0.0.1", port, 3, over.is_set))
    listening.start()
    until_connected(port).close()
    with until_connected(port) as caller:
        challenge = caller.recv(256).decode().strip()
        proof = hmac.new(secret, f"node 1 {challenge} own".encode(), "sha256").hexdigest()
        spoken = f"1 own {proof}\n".encode()
        caller.sendall(spoken)
        assert caller.recv(256) == f"{meeting._proof(secret, 'first', 1, challenge, 'own')}\n".encode()
    with until_connected(port) as caller:
        caller.recv(256)
        caller.sendall(spoken)
        assert caller.recv(256) == b""
    over.set()
    listening.join()


def test_silent_connections_do_not_delay_the_nodes(attempt: Attempt) -> None:
    """More of them than are served at a time; each would be waited for longer than the nodes wait."""
    meeting.CONNECT_SECONDS, meeting.TIMEOUT = 60.0, 30.0  # restored by the fixture
    port = AttemptStart.require(attempt.launch).port
    results: dict[int, str] = {}
    first = threading.Thread(target=lambda: results.update({0: handshake(attempt, 0, 2, never)}))
    first.start()
    with ExitStack() as strangers:
        for _ in range(2 * meeting.MAX_STRANGERS):
            strangers.enter_context(until_connected(port))
        results[1] = handshake(attempt, 1, 2, never)
        first.join()
    assert results == {0: "", 1: ""}


def test_only_the_owner_reads_the_secret_and_no_message_has_it(attempt: Attempt) -> None:
    mode = stat.S_IMODE(attempt.secret.stat().st_mode)
    assert mode == 0o600
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        def ask() -> None:
            caller, _ = stranger.accept()
            with caller:
                caller.sendall(b"abc\n")
                sent.append(caller.recv(4096))

        sent: list[bytes] = []
        asking = threading.Thread(target=ask)
        asking.start()
        meeting._prove(attempt.secret.read_bytes(), 1, *stranger.getsockname())
        asking.join()
    assert attempt.secret.read_bytes() not in sent[0]


def test_it_listens_on_the_address_of_the_route_only(attempt: Attempt) -> None:
    port = AttemptStart.require(attempt.launch).port
    found: list[str] = []
    handshake(attempt, 0, 2, lambda: bool(found.extend(listening_addresses(port)) or found))
    assert found == ["0100007F"]


def test_without_a_known_route_it_listens_everywhere_and_says_so(attempt: Attempt) -> None:
    """The address is a name then, which the other nodes resolve."""
    start = AttemptStart(job="7.0", host=socket.gethostname(), address="localhost", port=free_port())
    start.write(attempt.launch)
    other = threading.Thread(target=handshake, args=(attempt, 1, 2, never))
    other.start()
    assert handshake(attempt, 0, 2, never) == ""
    other.join()
    assert "localhost listens on all its interfaces" in attempt.node_log(0).read_text()


def test_a_port_that_was_taken_meanwhile(attempt: Attempt) -> None:
    port = AttemptStart.require(attempt.launch).port
    with socket.create_server(("", port)):
        assert handshake(attempt, 0, 2, never) == f"port {port} of 127.0.0.1 cannot be used: Address already in use"


def test_a_stop_ends_the_waiting(attempt: Attempt) -> None:
    assert handshake(attempt, 0, 2, lambda: True) == ""
    assert handshake(attempt, 1, 2, lambda: True) == ""
