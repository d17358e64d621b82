"""A port that is free and stays free, a host name of this node, and the network interface of the route."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.attempts.processes import descendants
from drumbeat.launch.node import rendezvous
from drumbeat.launch.node.rendezvous import (
    LOOPBACK,
    Route,
    free_port,
    interface_to,
    listening_address,
    meeting_address,
    network_variables,
    peer_address,
    route_to,
)
from tests.launch.node import two_nodes
from tests.processes import until
from tests.tiny import latest, write_config


def test_a_port_below_the_ephemeral_range() -> None:
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 15, "each run gets its own port"
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


def test_the_first_node_uses_the_route_to_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[7-9]")
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    assert peer_address("n7") == "n8"
    monkeypatch.setenv("SLURMD_NODENAME", "n9")
    assert peer_address("n7") == "n7"
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    assert peer_address("n9") == "n9"


def test_the_interface_of_the_route() -> None:
    assert interface_to("127.0.0.1") == "lo"
    assert interface_to("127.0.0.2") == "lo"
    assert route_to("127.0.0.2") == Route("127.0.0.1", "lo")
    assert interface_to("no-such-host.invalid") is None


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A folder like /sys/class/net: an Ethernet that is up and an InfiniBand that is down."""
    for name, state in (("lo", "unknown"), ("eth0", "up"), ("ib0", "down")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(f"{state}\n")
    return tmp_path


def test_nccl_gets_the_exact_interface_and_gloo_its_name(net: Path) -> None:
    assert network_variables(LOOPBACK, {}, net) == {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo"}
    assert network_variables("no-such-host.invalid", {}, net) == {}
    assert network_variables(LOOPBACK, {}, net / "absent")["NCCL_SOCKET_IFNAME"] == "=lo"


@pytest.mark.parametrize("name", ["ib0", "ibp12s0", "hsn0"])
def test_nccl_chooses_for_itself_where_a_faster_fabric_is_up(net: Path, name: str) -> None:
    (net / name).mkdir(exist_ok=True)
    (net / name / "operstate").write_text("up\n")
    assert network_variables(LOOPBACK, {}, net) == {"GLOO_SOCKET_IFNAME": "lo"}


def test_the_users_interface_stays(net: Path) -> None:
    assert network_variables(LOOPBACK, {"GLOO_SOCKET_IFNAME": "eth1"}, net) == {"NCCL_SOCKET_IFNAME": "=lo"}
    assert network_variables(LOOPBACK, {"NCCL_SOCKET_IFNAME": "eth"}, net) == {"GLOO_SOCKET_IFNAME": "lo"}


def listening(process: int) -> set[str]:
    """The addresses on which a process listens for TCP connections, in hexadecimal as the kernel prints them."""
    files = [str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir() if path.is_symlink()]
    sockets = {found[1] for name in files if (found := re.match(r"socket:\[(\d+)\]", name))}
    tables = "".join(Path(f"/proc/{process}/net/{table}").read_text() for table in ("tcp", "tcp6"))
    rows = [row.split() for row in tables.splitlines()]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


@pytest.mark.slow
def test_a_run_on_one_node_listens_on_loopback_only(tmp_path: Path) -> None:
    """Neither its ranks nor torchrun ask for a password, so nobody else may reach their ports. Root tries it on a host
    whose name does not resolve."""
    nameless = ["unshare", "--uts", "sh", "-c", 'hostname nowhere.invalid && exec "$@"', "sh"]
    arguments = [str(write_config(tmp_path)), "--procs", "2", "--no-preflight", "task._target_=tests.tiny.Fuse",
             f"task.folder={tmp_path}", "task.at=[3]", "task.how=wait"]
    command = [*(nameless if os.geteuid() == 0 else []), sys.executable, str(ROOT / "launch" / "run.py"), *arguments]
    with subprocess.Popen(command, cwd=tmp_path) as run:
        until((tmp_path / "blown-0").exists)
        processes = [process for process in descendants(run.pid)
                     if Path(f"/proc/{process}/comm").read_text().startswith(("rank", "forkserver", "pt_elastic"))]
        found = [listening(process) for process in processes]
        (tmp_path / "go").touch()
        assert run.wait() == 0
    assert len(processes) == 4, "the fork server, torchrun, two ranks"
    assert set().union(*found) == {"0100007F"}, "127.0.0.1"
    assert RunDir(latest(tmp_path).path).result.exists()


@pytest.mark.slow
def test_a_run_on_two_nodes_listens_on_the_address_of_the_route_only(tmp_path: Path) -> None:
    """torchrun's store does, and gloo on the first address of that interface, 127.0.0.1 here. What a stranger writes
    into the store is never executed; the worst of it is that the run fails."""
    done = two_nodes.in_namespace(tmp_path)
    if done.returncode == 77:
        pytest.skip("this machine allows no network namespaces")
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert lines["listening"] == "0100007F 016433C6", f"not on all zeros, which are all interfaces; {done.stderr}"
    assert (lines["address"], lines["keys"], lines["executed"]) == ("198.51.100.1", "True", "False")
    assert lines["state"] in ("finished", "failed")


def test_the_address_at_which_the_ranks_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several nodes, that of the first on the way to the second: the address of its name may be 127.0.1.1."""
    assert meeting_address(1) == LOOPBACK
    monkeypatch.setenv("SLURMD_NODENAME", "n1.invalid")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1.invalid,127.0.0.2")
    assert meeting_address(2) == LOOPBACK
    assert listening_address(LOOPBACK) == LOOPBACK
    for unknown in ("n1.invalid,n2.invalid", "n1.invalid", ""):
        monkeypatch.setenv("SLURM_JOB_NODELIST", unknown)
        assert meeting_address(2) == "n1.invalid"
    assert listening_address("n1.invalid") == "", "all interfaces"
