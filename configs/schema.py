"""What a config file can say: frozen dataclasses, a docstring under each field.

A section typed `dict[str, Any]` is a target: `_target_: package.module.Name` plus the arguments of that name. Those are
checked by `trainers/commands/preflight.py`, which may import torch; everything else is checked here, before anything
runs. Numbers that have a smallest sensible value say so in their metadata (`at_least`, `above`), and `merge.py`
enforces it. All numbers are finite.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

MISSING: Any = "???"
"""OmegaConf's word for a value that must be given. Not imported, because that takes longer than all of --help."""


def at_least(minimum: float, default: Any = MISSING) -> Any:
    """A field whose value, where there is one, is no smaller than `minimum`."""
    return field(default=default, metadata={"at_least": minimum})


def above(bound: float, default: Any = MISSING) -> Any:
    """A field whose value, where there is one, is larger than `bound`."""
    return field(default=default, metadata={"above": bound})


def path(default: Any = MISSING) -> Any:
    """A field whose value, where there is one, is a path: a relative one counts from the current folder."""
    return field(default=default, metadata={"path": True})


def plain_name() -> Any:
    """A field whose value can name a folder, a job and a curve."""
    return field(default=MISSING, metadata={"plain_name": True})


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """Lists of targets, applied in order."""

    train: list[Any] = field(default_factory=list)
    """On each training sample, on the CPU; random ones are seeded by the sample's position in the stream."""
    evaluate: list[Any] = field(default_factory=list)
    """On each sample that is evaluated or predicted."""
    batch: list[Any] = field(default_factory=list)
    """On each batch, on the device, in training and in evaluation: normalising, for example."""
    fuse: bool = True
    """Compute torchvision's crops, resizes, rotations, flips and colour jitter in one go where they stand first."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where samples come from. Each set is a target that builds a map-style dataset of (input, target) pairs."""

    root: str | None = path(None)
    """A folder that the sets refer to, root: "${data.root}/train", so that all of them are moved with one key."""
    train: dict[str, Any] = field(default_factory=dict)
    """The set that is trained on."""
    validation: dict[str, Any] = field(default_factory=dict)
    """The set that picks the best weights; empty for none."""
    test: dict[str, Any] = field(default_factory=dict)
    """The set that is evaluated once, with the best weights, at the end; empty for none."""
    download_hint: str = ""
    """What to do when a set is not there, for a reader: shown with the error."""
    transforms: Transforms = field(default_factory=Transforms)
    shuffle: bool = True
    """Whether each epoch has an order of its own; false keeps the order of the set."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Another order than each sample once an epoch: drumbeat.data.ClassBalanced or Weighted; empty for none."""
    bucket_batches: int | None = at_least(1, None)
    """Sort so many batches by the samples' lengths, so that each holds similar ones; null keeps the order."""
    mix: dict[str, Any] = field(default_factory=dict)
    """Mix training samples with one another: drumbeat.data.Mixup or CutMix; empty for none."""
    cache: str | None = path(None)
    """A folder for decoded images, best on the node's own disk; $VARIABLES are the node's. Null decodes each time."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do about a sample that cannot be read: end the run, or take the next one of the set and tell."""
    max_skipped: float = at_least(0, 0.01)
    """The fraction of the samples read that may be skipped before the run ends after all."""
    allow_change: bool = False
    """Go on with a run although files of the training set have changed since its checkpoint."""
    workers: int | None = at_least(0, None)
    """Loader processes of each rank; null takes the cores a rank has less one, at most 8."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training with its own optimizer and schedule."""

    epochs: float = above(0)
    """How long, in passes over the training set; fractions are allowed."""
    batch_size: int | None = at_least(1, None)
    """Samples in one optimizer step over all ranks; null takes the run's."""
    start_from: Literal["last", "best"] = "last"
    """The weights to start from: those the phase before ended with, or the best of the run so far."""
    freeze: list[str] = field(default_factory=list)
    """Modules held as they are, by name: no gradients, and evaluation mode, so BatchNorm's statistics stand still."""
    optimizer: dict[str, Any] = MISSING
    """A torch optimizer; its parameters are those that are not frozen. On a GPU Adam, AdamW and SGD get fused: true,
    unless fused, foreach, capturable or differentiable is given."""
    scheduler: dict[str, Any] = field(default_factory=dict)
    """A torch learning-rate scheduler; empty keeps the rate constant."""
    scheduler_every: Literal["step", "epoch"] = "step"
    """When the scheduler advances: after each optimizer step, or at each epoch boundary."""
    clip_norm: float | None = above(0, None)
    """The gradient's norm is cut to this; null leaves it."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the validation and test sets are evaluated."""

    batch_size: int = at_least(1, 64)
    """Samples in one forward pass. Part of the result's last digits, so the same on any number of ranks."""
    monitor: str = "loss"
    """The validation metric that decides which weights are best."""
    mode: Literal["min", "max"] = "min"
    """Whether a low (min) or a high (max) value of that metric is good."""
    batch_statistics: bool = False
    """Let BatchNorm use the statistics of the samples judged together, as in training, in place of its running ones."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When to save and what to keep. A checkpoint is also written at each evaluation, at a stop and at the end."""

    every_steps: int | None = at_least(1, None)
    """Save after each so many steps; null leaves it to the clock."""
    every_minutes: float = above(0, 10.0)
    """Save when so many minutes have passed since the last one."""
    disk_wait_minutes: float = at_least(0, 20.0)
    """How long a run pauses for a disk that is full, read-only or gone, before the attempt fails."""
    keep: int = at_least(1, 2)
    """How many of the newest to keep. The best one is kept beside them."""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """What rank 0 writes for TensorBoard."""

    every_steps: int = at_least(1, 10)
    """Steps between two points of the training curves."""
    loss_smoothing_steps: int = at_least(1, 1)
    """How many of the last steps' losses a point of the training loss is the mean of; begins anew on resume."""
    images: int = at_least(0, 16)
    """Images in each sheet (training samples, misclassified validation samples); 0 for none."""


@dataclass(frozen=True, kw_only=True)
class Watchdog:
    """Ranks that hang, or whose weights differ."""

    timeout_minutes: float | None = above(0, None)
    """After so long without a step, a rank's stacks are written to the run folder, the rank is killed, and the run
    restarts; null waits half an hour, or fifty times as long as the longest step."""
    desync_check_steps: int = at_least(1, 1000)
    """Steps between two checks that all ranks have the same weights, to the bit."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How many processes, and with what. Flags of the same name set these."""

    nodes: int | None = at_least(1, None)
    """Machines; null is one, and with --here all that the allocation has."""
    gpus: int | None = at_least(0, None)
    """Ranks on each node, a GPU each; null takes all that this machine has, 0 trains on the CPU."""
    procs: int = at_least(1, 1)
    """Ranks on each node where no GPU is used."""
    cpus_per_rank: int | None = at_least(1, None)
    """Cores for each rank; null divides this machine's, and asks a cluster for 8 beside a GPU and 2 without."""
    restarts: int = at_least(0, 3)
    """Attempts in a row that may fail without a new checkpoint before the run is given up."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    name: str = plain_name()
    """The folder under runs/ that collects the runs of this experiment."""
    seed: int = 0
    """All randomness of the run is derived from it."""
    model: dict[str, Any] = MISSING
    """A torch module from inputs to outputs."""
    task: dict[str, Any] = field(default_factory=lambda: {"_target_": "drumbeat.trainers.tasks.Classification"})
    """What the outputs mean: the loss, the metrics, the pictures."""
    data: Data = field(default_factory=Data)
    batch_size: int = at_least(1)
    """Samples in one optimizer step, over all ranks: a run on 1 GPU and one on 8 see the same batches."""
    micro_batch_size: int | None = at_least(1, None)
    """The largest micro-batch; a rank's share of the batch is cut into parts no larger. Null never cuts."""
    precision: Literal["auto", "bf16", "tf32", "fp32"] = "auto"
    """Arithmetic of the forward pass; auto is bf16 where the device multiplies it in hardware. tf32 is fp32, of which a
    GPU multiplies only 10 bits of mantissa; on the CPU both are the same."""
    channels_last: bool = True
    """Keep images and convolution weights in NHWC memory order, which is faster; no effect on other models."""
    deterministic: bool = True
    """Prefer kernels that give the same bits each time, as far as the device has them; false takes the fastest ones,
    which cuDNN measures."""
    on_nonfinite: Literal["stop", "skip", "ignore"] = "stop"
    """What to do when the loss or the gradient is NaN or Inf: keep the state before that step and end the run, skip the
    step, or not check."""
    phases: dict[str, Phase | None] = field(default_factory=dict)
    """The phases by name, in the order they run; null leaves out one of the base file."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    tracking: Tracking = field(default_factory=Tracking)
    watchdog: Watchdog = field(default_factory=Watchdog)
    launch: Launch = field(default_factory=Launch)


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
    time_minutes: int = at_least(1, 1440)
    """The job's time limit. A run that needs longer saves before it and is queued again."""
    gpu_flag: Literal["gres", "gpus-per-node", "none"] = "gres"
    """How GPUs are asked for. gres works on every site; gpus-per-node needs the cons_tres plugin; none, where a whole
    node comes with its GPUs."""
    gpu_type: str | None = None
    """Asked for as gpu:TYPE:COUNT where given."""
    mem_gb_per_node: float | None = above(0, None)
    """Memory of each node, in GB. At most one of these three; without any it is the site's default."""
    mem_gb_per_cpu: float | None = above(0, None)
    """Memory for each core, in GB."""
    mem_gb_per_gpu: float | None = above(0, None)
    """Memory for each GPU, in GB."""
    signal_seconds: int = at_least(1, 120)
    """How long before the time limit SLURM sends the signal that lets the run save."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the job's command: module load and the like."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that every process of the run finds set."""
    prefix: str = ""
    """What comes before Python on the nodes, to run it in a container: apptainer exec --nv image.sif, for example."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """Any other sbatch option by its long name; true for one without a value, false to leave out one of Drumbeat's."""
