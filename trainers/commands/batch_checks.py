"""Checks before a run whether its batches can be cut, mixed and gathered as the config asks."""

from __future__ import annotations

from torch import Tensor

from drumbeat.configs.errors import Fault
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Batch, Samples
from drumbeat.data.mixing import CutMix, RandomMix
from drumbeat.data.order import shard
from drumbeat.data.structure import uncut
from drumbeat.trainers.build import build_mixing
from drumbeat.trainers.doctor.masks import REMEDY, masks_of, only_background_text
from drumbeat.trainers.micro_batches import largest as micro_batch_size
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tasks.task import WholeBatchLoss


def batch_faults(config: Config, task: Task, batch: Batch, world_size: int) -> list[Fault]:
    """What the run would refuse about its batches, of which `batch` is one of a few samples. `world_size` is the number
    of parts that they are divided into."""
    faults = []
    largest = max(len(shard(phase.batch_size or config.batch_size, 0, world_size)) for phase in config.phases.values()
                  if phase is not None)
    searches = config.micro_batch_size == "auto"
    cut = searches or micro_batch_size(config.micro_batch_size, largest) < largest
    most = "auto: as many as fit" if searches else config.micro_batch_size
    given = f"{most} of the {largest} samples of a rank"
    if isinstance(task, WholeBatchLoss) and cut:
        faults.append(Fault(what="a loss of the whole batch cannot be computed in micro-batches, because it compares "
                            "all samples", where="micro_batch_size", given=given,
                            remedy="Set micro_batch_size: null, and use more ranks or a smaller batch_size."))
    if isinstance(task, WholeBatchLoss) and config.data.mix:
        faults.append(Fault(what="mixed samples need a loss of each sample, and the task has one of the whole batch",
                            where="data.mix", remedy="Remove data.mix, or use a task with losses."))
    mixing = build_mixing(config)
    kinds = mixing.of if isinstance(mixing, RandomMix) else [mixing]
    if any(isinstance(kind, CutMix) for kind in kinds) and task.kind != "multilabel" and _is_for_each_element(
            batch.targets["own"]):
        faults.append(Fault(what="CutMix mixes the targets of two samples as wholes, and these have a class for each "
                            "element of a sample, as masks have", where="data.mix",
                            remedy="Use drumbeat.data.Mixup, or remove data.mix."))
    targets = batch.targets["own"] if config.data.mix else batch.targets
    if config.evaluation.views and isinstance(targets, Tensor) and _is_for_each_element(targets):
        faults.append(Fault(what="the outputs of several views cannot be averaged, because they have a class for each "
                            "element of a sample, which a view may move", where="evaluation.views",
                            remedy="Remove evaluation.views. A model of yours may average them, moved back."))
    size = len(batch.positions)
    sides = {"inputs": batch.inputs, "targets": batch.targets}
    reasons = [f"{name}: {reason}" for name, value in sides.items() if (reason := uncut(value, size))]
    if cut and reasons:
        faults.append(Fault(
            what=f"a batch cannot be cut into micro-batches, because it has not a row for each of {size} samples",
            where="micro_batch_size", given="\n".join([given, *reasons]),
            remedy="Set micro_batch_size: null; or let data.collate_fn return tensors with a row for each sample, or "
                   "lists with an item for each."))
    return faults


def _is_for_each_element(targets: Tensor) -> bool:
    """Whether targets are classes of elements, integers [n, ...]."""
    return targets.dim() > 1 and not targets.is_floating_point()


def mask_fault(samples: Samples) -> Fault | None:
    """The fault of a training set whose masks hold one class alone and pixels that do not count; None for others."""
    masks = masks_of(samples)
    if masks is None or not masks.only_background:
        return None
    return Fault(what=only_background_text(masks), where="data.train", remedy=REMEDY)
