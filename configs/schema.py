"""All keys of a config: frozen dataclasses with a docstring under each field.

A section of type `dict[str, Any]` is a target: `_target_: package.module.Name` and the arguments of that name. Targets
are checked by `trainers/commands/preflight.py`, which imports torch; everything else is checked when the config is
loaded. Bounds of numbers are in the fields' metadata (`at_least`, `above`) and are checked by `merge.py`. All numbers
must be finite.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from drumbeat.configs.fields import MISSING, above, at_least, path, plain_name
from drumbeat.configs.initialize import Initialize
from drumbeat.configs.operation import Checkpoints, Launch, Notify, Reference, Tracking, Watchdog


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """Lists of targets, applied in order."""

    train: list[Any] = field(default_factory=list)
    """Transforms of each training sample, applied on the CPU. Random ones are seeded by the sample's position."""
    evaluate: list[Any] = field(default_factory=list)
    """Transforms of each sample in evaluation and prediction, applied on the CPU."""
    batch: list[Any] = field(default_factory=list)
    """Transforms of each batch, applied on the device in training and evaluation: normalization, for example."""
    fuse: bool = True
    """Compute torchvision's crops, resizes, rotations, flips and color jitter at the start of a list in one operation,
    which is faster and interpolates once."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The datasets. Each is a target that builds a map-style dataset."""

    root: str | None = path(None)
    """A folder that the datasets can refer to, as in root: "${data.root}/train". One key then moves all of them."""
    train: dict[str, Any] = field(default_factory=dict)
    """The training set."""
    validation: dict[str, Any] = field(default_factory=dict)
    """The validation set, which determines the best weights. Empty for none."""
    test: dict[str, Any] = field(default_factory=dict)
    """The test set, evaluated once at the end with the best weights. Empty for none."""
    download_hint: str = ""
    """How to get the data: shown with the error if a dataset does not exist."""
    transforms: Transforms = field(default_factory=Transforms)
    shuffle: bool = True
    """Shuffle the samples in each epoch; false keeps the order of the dataset."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """How samples are drawn, if not each one once per epoch: drumbeat.data.ClassBalanced, Weighted or Repeated. Empty
    for the default."""
    bucket_batches: int | None = at_least(1, None)
    """Sort the samples of this many batches by length, so that each batch has samples of similar length. Null does not
    sort."""
    collate_fn: dict[str, Any] = field(default_factory=dict)
    """Makes a batch of a list of samples: a function, called with the list and these arguments, or a class, whose
    object is called with the list. Empty to stack the samples."""
    mix: dict[str, Any] = field(default_factory=dict)
    """Mix training samples: drumbeat.data.Mixup, CutMix, or RandomMix of several. Empty for no mixing."""
    cache: str | None = path(None)
    """A folder for decoded images, best on a local disk of the node. $VARIABLES in it are expanded on the node. Null
    decodes images each time."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do about an unreadable sample: raise ends the run, skip uses the next sample instead and reports it."""
    max_skipped: float = at_least(0, 0.01)
    """The largest fraction of the samples that on_error: skip may skip before the run ends. One in each epoch is
    always allowed, unless this is 0."""
    allow_change: bool = False
    """Resume a run even if files of the training set have changed since its checkpoint."""
    workers: int | None = at_least(0, None)
    """Loader processes per rank. Null uses one less than the rank's cores, at most 8."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that a phase trains in another way than the others. What differs is in `optimizer`."""

    match: list[Any] = field(default_factory=list, metadata={"text": True})
    """Which parameters: names of modules or parameters, patterns of names ("*.bias"), and types of modules ({type:
    torch.nn.LayerNorm}), as in freeze. Empty for all. A parameter belongs to the first group that it fits."""
    ndim: list[int] = field(default_factory=list)
    """Of these, only those with so many dimensions: [0, 1] are biases and the weights of norms, [2] matrices. Empty for
    any number."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """Arguments that replace those of the phase's optimizer: {weight_decay: 0}. With _target_, another optimizer, which
    has these arguments alone."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of the training, with its own optimizer and learning-rate schedule."""

    epochs: float = above(0)
    """The length of the phase in epochs of the training set. Fractions are allowed."""
    patience: int | None = at_least(1, None)
    """End the phase after this many evaluations in a row without a better value of evaluation.monitor in this phase.
    Null trains all epochs."""
    min_delta: float = at_least(0, 0.0)
    """The value must be better by more than this to count for patience."""
    target: float | None = None
    """End the phase when evaluation.monitor has reached this value. Null trains all epochs."""
    batch_size: int | None = at_least(1, None)
    """Samples in one optimizer step over all ranks. Null uses the run's batch_size."""
    start_from: Literal["last", "best"] = "last"
    """The weights to start from: the last ones of the previous phase, or the best ones of the run so far."""
    freeze: list[Any] = field(default_factory=list, metadata={"text": True})
    """What is not trained: names of modules or parameters, patterns of names (layer1.*), and types of modules ({type:
    torch.nn.BatchNorm2d}). Modules stay in evaluation mode, so that the statistics of BatchNorm do not change."""
    optimizer: dict[str, Any] = MISSING
    """A torch optimizer for the parameters that are not frozen. On a GPU, Adam, AdamW and SGD use fused: true, unless
    fused, foreach, capturable or differentiable is given."""
    groups: dict[str, Group | None] = field(default_factory=dict)
    """Parameters that are trained in another way, by name: no weight decay on norms, another rate, another optimizer.
    All others are trained as `optimizer` says. Null removes a group of the base file."""
    layers: list[Any] = field(default_factory=list, metadata={"text": True})
    """The model's layers from input to output, for layer_decay: names and patterns as in freeze, each of which may fit
    several ("blocks.*"); a list of them within the list is one layer. Each trained parameter must be in one."""
    layer_decay: float = above(0, 1.0)
    """The learning rate of each of the `layers` is that of the next one times this number."""
    scheduler: dict[str, Any] = field(default_factory=dict)
    """A torch learning-rate scheduler. Empty for a constant learning rate. Those within it get the optimizer, too."""
    scheduler_every: Literal["step", "epoch"] = "step"
    """When the scheduler steps: after each optimizer step, or at the end of each epoch."""
    average: dict[str, Any] = field(default_factory=dict)
    """An average of the weights over the steps (EMA, SWA), which is evaluated, exported and loaded in place of the
    trained weights: torch.optim.swa_utils.AveragedModel. Empty for none."""
    average_every: int | None = at_least(1, 1)
    """Optimizer steps between two updates of the average. Null updates it at the end of each epoch."""
    clip_norm: float | None = above(0, None)
    """The largest norm of the gradient: a larger gradient is scaled down to it. Null does not clip."""
    transforms: list[Any] = field(default_factory=list)
    """Transforms of each training sample in this phase, to another image size for example. Empty for those of
    data.transforms.train."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the validation and test sets are evaluated."""

    batch_size: int = at_least(1, 64)
    """Samples in one forward pass of a rank. It affects the last digits of the metrics, so it does not depend on the
    number of ranks."""
    monitor: str = "loss"
    """The validation metric that determines the best weights: one of the task's, of `metrics`, or of those that
    `drumbeat evaluate` computes."""
    every_epochs: float = above(0, 1.0)
    """Epochs between two evaluations of the validation set; 0.25 evaluates four times in each. The end of a phase is
    always evaluated."""
    every_steps: int | None = at_least(1, None)
    """Evaluate after every so many optimizer steps of the run as well. Null evaluates by every_epochs only."""
    at_start: bool = False
    """Evaluate once before the first step as well. These weights are not saved, and are never the best ones."""
    mode: Literal["min", "max"] = "min"
    """Whether the best weights have the lowest (min) or the highest (max) value of that metric."""
    batch_statistics: bool = False
    """Let BatchNorm use the statistics of each evaluation batch, as in training, instead of its running statistics."""
    views: list[Any] = field(default_factory=list)
    """Test-time augmentation: transforms of a batch's inputs, on the device. The model's outputs are the mean of those
    for the inputs as they are and for each view."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """More metrics by name, such as those of torchmetrics: {_target_: torchmetrics.classification.MulticlassF1Score,
    num_classes: 10}. Each may be monitored."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the whole run may use. When it is used up, the run ends as at the end of its last phase: it is evaluated, on
    the test set too, and saved."""

    steps: int | None = at_least(1, None)
    """Optimizer steps of the run, over all phases. Null trains all phases to their ends."""
    hours: float | None = above(0, None)
    """Hours of training, over all attempts: of loading, steps, evaluation and saving. The step at which they end
    depends on the machine. Null does not limit them."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    name: str = plain_name()
    """The name of the experiment: its runs are in runs/NAME/."""
    seed: int = 0
    """The seed of all random numbers of the run."""
    model: dict[str, Any] = MISSING
    """A torch module that maps a batch of inputs to outputs."""
    task: dict[str, Any] = field(default_factory=lambda: {"_target_": "drumbeat.trainers.tasks.Classification"})
    """The task: loss, metrics and plots."""
    initialize: Initialize = field(default_factory=Initialize)
    data: Data = field(default_factory=Data)
    batch_size: int = at_least(1)
    """Samples in one optimizer step over all ranks, so that 1 and 8 GPUs train on the same batches."""
    micro_batch_size: int | Literal["auto"] | None = at_least(1, None)
    """The largest number of samples in one forward pass of a rank: larger shares of the batch are split, and gradients
    are accumulated. Null does not split; auto splits in halves when a rank is out of memory."""
    virtual_ranks: int | None = at_least(1, None)
    """Compute each step in so many parts, which are the same on any number of ranks up to this one, and sum their
    gradients exactly: the run has the same bits on 1, 2 or 8 ranks. Null has one part for each rank."""
    precision: Literal["auto", "bf16", "fp16", "tf32", "fp32"] = "auto"
    """The precision of the forward pass. auto is bf16 if the device supports it in hardware, else fp32. fp16 scales the
    loss, for GPUs without bf16. tf32 lets a GPU multiply fp32 numbers with 10 bits of mantissa; on the CPU it is fp32.
    """
    channels_last: bool = True
    """Keep images and convolution weights in channels-last (NHWC) memory format, which is faster. Other models are not
    affected."""
    deterministic: bool = True
    """Use kernels that give the same bits each time, if the device has them. false uses the fastest ones, as measured
    by cuDNN's benchmark mode."""
    recompute: list[Any] = field(default_factory=list, metadata={"text": True})
    """Modules that keep no activations for the backward pass, but compute them again (gradient checkpointing), which
    takes less memory and more time: names, patterns and types, as in freeze."""
    compile: dict[str, Any] = field(default_factory=dict)
    """Compile the model for training: the arguments of torch.compile, such as {mode: default} or {dynamic: true}. Empty
    does not compile."""
    sync_batchnorm: bool = False
    """Let BatchNorm use the statistics of all ranks' samples in training (torch's SyncBatchNorm). On GPUs alone; on one
    rank it changes nothing."""
    find_unused_parameters: bool = False
    """Let several ranks train a model in which some parameters take no part in some steps: mixtures of experts, or
    branches that are dropped. Each step then looks for them, which takes time."""
    on_nonfinite: Literal["stop", "skip", "ignore"] = "stop"
    """What to do if the loss or the gradient is NaN or Inf: stop saves the state before the step and ends the run, skip
    skips the step, ignore does not check."""
    phases: dict[str, Phase | None] = field(default_factory=dict)
    """The phases by name, in the order in which they run. Null removes a phase of the base file."""
    budget: Budget = field(default_factory=Budget)
    limit_batches: int | None = at_least(1, None)
    """Take at most this many steps in each phase, and evaluate at most this many batches of each set: a trial of the
    whole run, from the first step to the test set, in seconds. Null is the whole run."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    tracking: Tracking = field(default_factory=Tracking)
    notify: Notify = field(default_factory=Notify)
    watchdog: Watchdog = field(default_factory=Watchdog)
    launch: Launch = field(default_factory=Launch)
    reference: Reference = field(default_factory=Reference)
