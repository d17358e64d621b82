"""The keys of a cluster's profile: configs/clusters/NAME.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from drumbeat.configs.fields import above, at_least


@dataclass(frozen=True, kw_only=True)
class Site:
    """One cluster: configs/clusters/NAME.yaml, chosen with --profile NAME."""

    partition: str | None = None
    """The partition to submit to; null is the site's default. `sinfo` lists them."""
    account: str | None = None
    """The account that is charged; null is your default. `sacctmgr show associations user=$USER` lists yours."""
    qos: str | None = None
    """The quality of service; null is your default."""
    constraint: str | None = None
    """Features that the nodes must have, such as a100. `sinfo -o '%P %f'` lists them."""
    time_minutes: int = field(default=1440, metadata={"at_least": 1, "minutes": True})
    """The job's time limit in minutes, or as SLURM writes it: 12:00:00, 1-0, 1-12:30. A run that takes longer saves
    before the limit and is requeued."""
    gpu_flag: Literal["gres", "gpus-per-node", "none"] = "gres"
    """How GPUs are requested: gres works on all clusters, gpus-per-node needs the cons_tres plugin, and none is for
    clusters that allocate whole nodes with their GPUs."""
    gpu_type: str | None = None
    """The type of GPU to request, as gpu:TYPE:COUNT. Null accepts any type."""
    mem_gb_per_node: float | None = above(0, None)
    """Memory in GB. At most one of these three keys; without any, the cluster's default applies."""
    mem_gb_per_cpu: float | None = above(0, None)
    """Memory for each core, in GB."""
    mem_gb_per_gpu: float | None = above(0, None)
    """Memory for each GPU, in GB."""
    signal_seconds: int = at_least(1, 120)
    """Seconds before the time limit at which SLURM signals the run to save."""
    setup: list[str] = field(default_factory=list, metadata={"shell": True})
    """Shell commands that run before the job's command, such as module load. ${NAME} is a variable of the shell."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables for every process of the run."""
    prefix: str = field(default="", metadata={"shell": True})
    """A command that is put before Python on the nodes, to run it in a container: apptainer exec --nv image.sif."""
    node_check: str = field(default="", metadata={"shell": True})
    """A shell command that runs on each node before the ranks start. If it fails, or takes longer than 5 s, the run is
    queued again without that node, for a day. Its last line of output tells why."""
    sbatch: dict[str, Any] = field(default_factory=dict, metadata={"text": True})
    """Other sbatch options by their long names. true is an option without a value, false removes one of Drumbeat's
    (requeue, chdir); all other values are text, as sbatch reads them."""
