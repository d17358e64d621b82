"""The nodes connect to each other before their ranks do, and those that do not connect, or cannot, are named."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.records import AttemptStart, NodeUp
from drumbeat.launch.node import handshake as meeting
from drumbeat.launch.node.handshake import handshake
from drumbeat.launch.node.rendezvous import free_port


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    monkeypatch.setattr(meeting, "TIMEOUT", 1.0)
    monkeypatch.setattr(meeting, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(meeting, "CONNECT_SECONDS", 1.0)
    monkeypatch.setenv("SLURMD_NODENAME", "127.0.0.1")
    attempt = RunDir(tmp_path / "run").claim_attempt()
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


def test_other_programs_and_other_runs_are_ignored(attempt: Attempt) -> None:
    port = AttemptStart.require(attempt.launch).port
    with socket.create_server(("127.0.0.1", port)) as stranger:
        def talk() -> None:
            caller, _ = stranger.accept()
            with caller:
                caller.recv(64)
                caller.sendall(b"220 mail.example.org\n")

        threading.Thread(target=talk).start()
        answer = meeting.connect(attempt, 1, "127.0.0.1", port, lambda: False)
        assert answer.startswith(("somebody else", "Conn", "timed"))

    def knock() -> None:
        for message in (b"GET / HTTP/1.0\n", b"run/000 9999999999 more\n", b"other/000 1\n"):
            with socket.create_connection(("127.0.0.1", port)) as caller:
                caller.sendall(message)
                caller.recv(64)

    knocking = threading.Timer(0.2, knock)
    knocking.start()
    assert "node 1 does not reach" in handshake(attempt, 0, 2, never)
    knocking.join()


def test_a_port_that_was_taken_meanwhile(attempt: Attempt) -> None:
    port = AttemptStart.require(attempt.launch).port
    with socket.create_server(("", port)):
        assert handshake(attempt, 0, 2, never) == f"port {port} of 127.0.0.1 cannot be used: Address already in use"


def test_a_stop_ends_the_waiting(attempt: Attempt) -> None:
    assert handshake(attempt, 0, 2, lambda: True) == ""
    assert handshake(attempt, 1, 2, lambda: True) == ""
