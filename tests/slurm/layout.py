"""The ports, folders and configuration files of a test cluster."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.slurm import accounting
from tests.slurm.keeper import CGROUPS, JOBS_PER_CLUSTER

Proctrack = Literal["cgroup", "linuxproc", "pgid"]

NODES, CPUS, GPUS = 3, 64, 4
"""The number of nodes, and the resources of each, which are fake. A job sees the GPUs as CUDA_VISIBLE_DEVICES."""
GPU_TYPE, NVME = "v100", 3600
"""The type of the GPUs, and the gigabytes of local disk that jobs may request."""
KILL_WAIT = 8
"""Seconds from SIGTERM to SIGKILL when a job or a step is ended. For a job, SLURM takes at least five."""
GRACE = 10
"""Seconds between SIGTERM and the requeue of a preempted job of partition `main`. SLURM checks for its
end only every half minute. Without a GraceTime there is no SIGTERM, and the requeue is immediate."""

_PORTS = range(20000, 32000, 20)
"""Blocks of twenty, below the ports that Linux gives to outgoing connections (32768 and above)."""


def claim_ports() -> tuple[int, Path]:
    """The first of twenty free ports, and a new folder that is named after it.

    Making the folder is what claims the ports against another cluster that starts now. Its path is short, since that
    of a socket in it may have 107 characters at most, and outside of pytest's folders, which munge may not enter.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        if _free(range(port, port + _PORTS.step)):
            scratch = Path(f"/tmp/slurm-test-{port}")
            try:
                scratch.mkdir(mode=0o755)
            except FileExistsError:
                continue
            return port, scratch
    raise OSError(f"no twenty free ports in a row between {_PORTS.start} and {_PORTS.stop}")


def _free(ports: range) -> bool:
    with ExitStack() as stack:
        try:
            for port in ports:
                stack.enter_context(socket.socket()).bind(("", port))
        except OSError:
            return False
    return True


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The settings that the configuration files depend on."""

    folder: Path
    """Configuration and logs; kept after the tests."""
    scratch: Path
    """Sockets, keys and the daemons' state; removed after the tests."""
    database: Path
    """MariaDB's folder, with accounting; removed after the tests."""
    port: int
    """The controller's port; the nodes have the following ones, and the last of the twenty is slurmdbd's."""
    proctrack: Proctrack
    """How SLURM finds a job's processes, which decides who receives a job's signals."""
    nodes: int = NODES
    """Up to 18. Partition `wide` has all nodes, the others have all but the last."""
    cpus: int = CPUS
    """The cores of each node."""
    name: str = "test"
    beside: Layout | None = None
    """Another cluster, whose munged and slurmdbd this one shares."""
    accounting: bool = False
    """Whether it has accounts and QOS, and enforces them. Without them, sacct fails, as on some real sites."""

    def __post_init__(self) -> None:
        if set(" #%,") & set(str(self.folder)):
            raise ValueError(f"folder={str(self.folder)!r}: slurm.conf takes no path with a space, '#', '%' or ','")

    @property
    def hosts(self) -> dict[str, str]:
        """Node names, and addresses of this machine for them."""
        return {f"n{number}": f"127.0.0.{number}" for number in range(1, self.nodes + 1)}

    @property
    def first_job(self) -> int:
        """Another one for each port, so that clusters which run side by side never share a job's cgroup folder."""
        return self.port // _PORTS.step * JOBS_PER_CLUSTER

    @property
    def munge_socket(self) -> Path:
        return (self.beside or self).scratch / "munge" / "socket"

    def files(self) -> dict[str, str]:
        """Name to text of the files in `folder`."""
        files = {
            "slurm.conf": self._slurm_conf(),
            "cgroup.conf": _cgroup_conf(),
            "gres.conf": f"Name=gpu Type={GPU_TYPE} File=/dev/tty[0-{GPUS - 1}]\nName=nvme Count={NVME}\n",
        }
        if self.accounting:
            settings = {"port": (self.beside or self).port + _PORTS.step - 1, "munge_socket": self.munge_socket}
            gather = "cgroup" if self.proctrack == "cgroup" else "linux"
            files["slurm.conf"] += accounting.slurm_conf(**settings, gather=gather)
            files["slurmdbd.conf"] = accounting.slurmdbd_conf(**settings, folder=self.folder, scratch=self.scratch)
        return files

    def _slurm_conf(self) -> str:
        # A requeued job waits until its old credential has expired: cred_expire=5 makes that 8 s, the default 121 s.
        host, last = socket.gethostname().partition(".")[0], self.nodes
        return f"""\
ClusterName={self.name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={self.port}
SlurmUser=root
SlurmctldPidFile={self.scratch}/slurmctld.pid
SlurmdPidFile={self.scratch}/%n.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/%n.log
StateSaveLocation={self.scratch}/state
SlurmdSpoolDir={self.scratch}/%n
MailProg=/bin/true
AuthType=auth/munge
AuthInfo=socket={self.munge_socket},cred_expire=5
ProctrackType=proctrack/{self.proctrack}
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
GresTypes=gpu,nvme
SlurmdParameters=config_overrides
ReturnToService=2
KillWait={KILL_WAIT}
SlurmdTimeout=300
FirstJobId={self.first_job}
SchedulerParameters=sched_interval=1,batch_sched_delay=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=DEFAULT CPUs={self.cpus} RealMemory={self.cpus * 2000} Gres=gpu:{GPU_TYPE}:{GPUS},nvme:{NVME}
NodeName=n[1-{last - 1}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{self.port + 1}-{self.port + last - 1}]
NodeName=n{last} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.port + last} Weight=10
PartitionName=DEFAULT Nodes=n[1-{last - 1}] MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE
PartitionName=main Default=YES GraceTime={GRACE}
PartitionName=cancel PreemptMode=CANCEL
PartitionName=requeue
PartitionName=wide Nodes=ALL
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
"""


def _cgroup_conf() -> str:
    """What differs between SLURM 22.05 on cgroup v1, which this is mostly run with, and newer ones on cgroup v2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return "CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n"  # Or slurmd would ask systemd for its folder.
    return "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
