"""What an evaluation keeps of its chunks, and how rank 0 joins them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, keystr, tree_flatten_with_path, tree_map, tree_unflatten

from drumbeat.data.loader import Batch, one_thread, seed_generators
from drumbeat.data.order import key
from drumbeat.data.structure import item
from drumbeat.trainers.messages import packed, unpacked
from drumbeat.trainers.metrics import values_of
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.tasks.losses import mean, summed
from drumbeat.trainers.tasks.task import FeedsMetrics, Results, Summarizes, Task

SEED = 0
"""What draws random numbers in an evaluation draws the same in each one: sets, transforms, models and metrics."""


@dataclass(frozen=True)
class Part:
    """What is kept of the samples of a chunk that could be read. `values` are of any structure: tensors [n, ...], lists
    of n, or tuples and dicts of these."""

    indices: Tensor
    """int64 [n]: of the samples in the set."""
    losses: Tensor
    """float32 [n]."""
    weights: Tensor | None
    """float32 [n]."""
    values: dict[str, Any]
    """Of "outputs", "targets", "summary", "predictions" and "terms" those that are needed."""

    def packed(self) -> Tensor:
        """As bytes, uint8 [n]. Raises `TypeError` for values that cannot be sent."""
        leaves = {name: _by_path(value)[0] for name, value in self.values.items()}
        return packed([self.indices, self.losses, self.weights, leaves])


def part_of(task: Task, batch: Batch, outputs: Any, terms: Tensor | Mapping[str, Tensor], *, draws: bool,
            metrics: bool) -> Part:
    """The part of a batch that is kept: its losses, and their `terms` if they have several; the task's summary, or the
    outputs and targets, which `metrics` need too; and the predictions if the task `draws`. Raises `ValueError` and
    `TypeError` for values that are not one for each sample."""
    losses, targets = summed(terms), batch.targets
    values: dict[str, Any] = {}
    if not isinstance(terms, Tensor):
        values["terms"] = {name: term.detach().float() for name, term in terms.items()}
    weights: Tensor | None = getattr(task, "weights", lambda targets: None)(targets)
    if summarizes := isinstance(task, Summarizes):
        values["summary"] = task.summary(outputs, targets)
    if metrics or not summarizes:
        values |= {"outputs": outputs, "targets": targets}
    if draws:
        values["predictions"] = task.predictions(outputs)
    rows = (~batch.replaced).nonzero().flatten()
    kept = {name: tree_map(lambda leaf, name=name: _rows(leaf, rows, len(losses), name), value, is_leaf=_is_list)
            for name, value in values.items()}
    return Part(batch.indices[rows], losses.float().cpu()[rows],
                None if weights is None else weights.float().cpu()[rows], kept)


@dataclass
class Collector:
    """Joins the parts of all chunks on rank 0, which come in the order of the set."""

    task: Task
    metrics: Mapping[str, Any]
    """The metrics that are updated with each chunk."""
    draws: int
    """The number of samples whose predictions are kept for pictures."""
    n: int
    """The number of samples in the set."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What is kept of all parts so far: `Rows` in the structures of the first part."""
    worst: list[tuple[float, int, Any]] = field(default_factory=list)
    """The negative mean loss, the number among the results and the prediction of the worst samples, worst first."""
    count: int = 0
    structures: dict[str, tuple[list[str], TreeSpec]] = field(default_factory=dict)
    """The paths of the leaves, and the structure, of the values of the first part, which is rank 0's own."""

    def unpacked(self, data: Tensor) -> Part:
        """The part that another rank has packed. Raises `ValueError` if its values have another structure."""
        indices, losses, weights, leaves = unpacked(data)
        for name, (paths, _) in self.structures.items():
            if leaves[name].keys() != {*paths}:
                raise ValueError(f"the {name} of two batches have different structures: {', '.join(paths)}, and "
                                 f"{', '.join(leaves[name])}")
        return Part(indices, losses, weights, {
            name: tree_unflatten([leaves[name][path] for path in paths], structure)
            for name, (paths, structure) in self.structures.items()})

    def add(self, part: Part) -> None:
        """Takes the next part."""
        for name, value in part.values.items() if not self.structures else ():
            leaves, structure = _by_path(value)
            self.structures[name] = [*leaves], structure
        if self.metrics:
            outputs, targets = (part.values[name] for name in ("outputs", "targets"))
            given = metric_inputs(self.task, outputs, targets)
            seed_generators(key(SEED, "metrics", self.count))
            with one_thread():
                for metric in self.metrics.values():
                    metric.update(*given)
        values = dict(part.values)
        if self.draws:
            self._keep_worst(part, values.pop("predictions"))
        if isinstance(self.task, Summarizes):
            values = {name: values[name] for name in ("summary", "terms") if name in values}
        values |= {"indices": part.indices, "losses": part.losses, "weights": part.weights}
        self.kept = self.kept or tree_map(lambda leaf: Rows(self.n), values, is_leaf=_is_list)
        tree_map(Rows.add, self.kept, values)
        self.count += len(part.losses)

    def _keep_worst(self, part: Part, predictions: Any) -> None:
        means = part.losses if part.weights is None else part.losses / part.weights
        new = [(-math.inf if math.isnan(mean) else -mean, self.count + row, row) for row, mean in
               enumerate(means.tolist()) if part.weights is None or part.weights[row] > 0]
        chosen = nsmallest(self.draws, [*self.worst, *new], key=lambda one: one[:2])
        self.worst = [(mean, number, tree_map(_copy, item(predictions, value)) if number >= self.count else value)
                      for mean, number, value in chosen]

    def results(self) -> Results:
        """The results of the set. Raises `ValueError` if two chunks do not fit together."""
        padding = self.task.ignore_index if isinstance(self.task, Classification) else None
        paddings = {} if padding is None else {"outputs": (0, 1), "targets": (padding, 0)}
        joined = {name: tree_map(lambda rows, name=name: rows.joined(*paddings.get(name, ())), kept)
                  for name, kept in self.kept.items()}
        indices = joined.pop("indices")
        terms = {name: mean(term, joined["weights"]) for name, term in joined.pop("terms", {}).items()}
        if self.metrics:
            seed_generators(key(SEED, "metrics", self.count))
        with one_thread():
            found = {full: value for name, metric in self.metrics.items() for full, value in
                     values_of(name, metric.compute()).items()}
        return Results(**joined, subset=None if self.count == self.n else indices, metrics=found, terms=terms,
                       worst={number: prediction for _, number, prediction in self.worst})


class Rows:
    """The rows of all parts of one value: in one block of memory, which is as large as the whole set, as long as they
    are tensors of one shape."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.block: Tensor | None = None
        self.filled = 0
        """The number of rows in the block."""
        self.others: list[Any] = []
        """What comes after these."""

    def add(self, part: Any) -> None:
        """Takes the rows of the next part: a tensor [n, ...], a list, or None."""
        if isinstance(part, Tensor) and not self.others:
            if self.block is None:
                self.block = part.new_empty((self.n, *part.shape[1:]))  # takes no memory until it is filled
            if (part.dtype, part.shape[1:]) == (self.block.dtype, self.block.shape[1:]):
                self.block[self.filled:self.filled + len(part)] = part
                self.filled += len(part)
                return
        self.others.append(part)

    def joined(self, padding: float | None = None, fixed: int = 0) -> Any:
        """All rows: see `_joined`."""
        first = [] if self.block is None else [self.block[:self.filled]]
        return _joined([*first, *self.others], padding, fixed)


def metric_inputs(task: Task, outputs: Any, targets: Any) -> tuple[Any, Any]:
    """What the metrics of `evaluation.metrics` are updated with: the task's choice or, without one, the probabilities,
    or the predictions if there are none, and the targets."""
    if isinstance(task, FeedsMetrics):
        return task.metric_inputs(outputs, targets)
    probabilities = task.probabilities(outputs)
    return (task.predictions(outputs) if probabilities is None else probabilities), targets


def _by_path(value: Any) -> tuple[dict[str, Any], TreeSpec]:
    """The leaves by their paths, because the keys of two dicts may come in different orders; and the structure."""
    leaves, structure = tree_flatten_with_path(value, is_leaf=_is_list)
    return {keystr(path): leaf for path, leaf in leaves}, structure


def _is_list(value: Any) -> bool:
    """Whether a part of a structure is a list: it then has a value for each sample."""
    return isinstance(value, list)


def _rows(leaf: Any, rows: Tensor, n: int, name: str) -> Any:
    """These rows of a tensor [n, ...] or of a list of n, on the CPU."""
    if leaf is None:
        return None
    if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == n:
        return _plain(leaf, name)[rows]
    if isinstance(leaf, list) and len(leaf) == n:
        return [_plain(leaf[row], name) for row in rows.tolist()]
    found = f"a tensor {list(leaf.shape)}" if isinstance(leaf, Tensor) else (
        f"a list of {len(leaf)}" if isinstance(leaf, list) else f"a {type(leaf).__name__}")
    raise ValueError(f"the {name} of {n} samples contain {found}; an evaluation needs tensors with a row for each "
                     "sample, lists with a value for each, or tuples and dicts of these")


def _plain(value: Any, name: str) -> Any:
    """A value on the CPU, outputs as float32. Raises `TypeError` for what another rank could not send."""
    if isinstance(value, Tensor):
        return (value.float() if name == "outputs" and value.is_floating_point() else value).cpu()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) in (list, tuple):
        return type(value)(_plain(one, name) for one in value)
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _plain(one, name)) for key, one in value.items())
    raise TypeError(f"the {name} of a sample contain a {type(value).__name__}; an evaluation needs tensors, numbers, "
                    "texts, and lists, tuples and dicts of these")


def _copy(leaf: Any) -> Any:
    """A value that does not keep the memory of its batch."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _joined(leaves: list[Any], padding: float | None = None, fixed: int = 0) -> Any:
    """One tensor or list of all chunks. Rows of different shapes are filled with `padding` to the largest, but for
    their first `fixed` dimensions. Raises `ValueError` if two chunks do not fit together."""
    first = leaves[0]
    if not isinstance(first, Tensor):
        return None if first is None else list(chain.from_iterable(leaves))
    differing = [leaf for leaf in leaves if leaf.shape[1:] != first.shape[1:]]
    if differing and padding is not None and len({(leaf.dim(), leaf.shape[1:1 + fixed]) for leaf in leaves}) == 1:
        return _padded(leaves, padding)
    if differing:
        raise ValueError(f"two batches have the shapes {list(first.shape)} and {list(differing[0].shape)}; an "
                         "evaluation needs outputs and targets of one shape: pad them to one length or, for a task of "
                         "your own, return lists")
    return torch.cat(leaves) if len(leaves) > 1 else first


def _padded(leaves: list[Tensor], padding: float) -> Tensor:
    """The rows of all tensors, in the shape of the largest, filled with `padding` at the ends."""
    rows, *shape = zip(*(leaf.shape for leaf in leaves), strict=True)
    joined, start = leaves[0].new_full((sum(rows), *map(max, shape)), padding), 0
    for leaf in leaves:
        joined[(slice(start, start + len(leaf)), *map(slice, leaf.shape[1:]))] = leaf
        start += len(leaf)
    return joined
