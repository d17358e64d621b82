"""A port that is free and stays so, a name that leads here, the interface of the route."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from launch import rendezvous
from launch.rendezvous import free_port, interface_towards, node_names, other_node, own_address


def test_a_port_below_the_ephemeral_range() -> None:
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 15, "each run gets one of its own"
    assert all(1024 < port < max(ephemeral, 20_000) for port in ports)


def test_a_port_that_somebody_listens_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        free = free_port()
        choices = [taken.getsockname()[1], free]

        class Choice:
            def randrange(self, first: int, last: int) -> int:
                return choices.pop(0)

        monkeypatch.setattr(rendezvous.random, "SystemRandom", Choice)
        assert free_port() == free


def test_no_port_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()

        class Choice:
            def randrange(self, first: int, last: int) -> int:
                return int(taken.getsockname()[1])

        monkeypatch.setattr(rendezvous.random, "SystemRandom", Choice)
        with pytest.raises(OSError, match="none is free"):
            free_port()


def test_slurms_name_of_the_node_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    assert own_address() == socket.gethostname()
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    assert own_address() == "n7"


@pytest.mark.parametrize(("text", "names"), [
    ("", []),
    ("n1", ["n1"]),
    ("n[1-2]", ["n1", "n2"]),
    ("n[1-2,07],gpu-3", ["n1", "n2", "n07", "gpu-3"]),
    ("rack[1-2]-n[08-10].site", [f"rack{rack}-n{node}.site" for rack in (1, 2) for node in ("08", "09", "10")]),
])
def test_the_nodes_of_a_job(text: str, names: list[str]) -> None:
    assert node_names(text) == names


def test_the_first_node_looks_for_the_route_to_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[7-9]")
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    assert other_node("n7") == "n8"
    monkeypatch.setenv("SLURMD_NODENAME", "n9")
    assert other_node("n7") == "n7"
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    assert other_node("n9") == "n9"


def test_the_interface_of_the_route() -> None:
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("127.0.0.2") == "lo"
    assert interface_towards("no-such-host.invalid") is None
