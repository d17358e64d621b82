"""Leaks between the training set and the others: the same file, the same input, nearly the same image, the same group
(a patient, for example); and copies within the training set whose labels differ."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import file_digest

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.images import ImageFiles
from drumbeat.data.loader import Samples
from drumbeat.data.order import Integers
from drumbeat.data.sample_names import sample_groups
from drumbeat.data.splits import underlying
from drumbeat.trainers.doctor.findings import Finding, of, plural
from drumbeat.trainers.doctor.sample_checks import SIDE
from drumbeat.trainers.doctor.subject import Subject

ALIKE = 0.998
"""The correlation of two miniatures from which on two images are reported as copies. JPEG at quality 10, a third of the
size, noise or another contrast leave more than 0.999 (drawn radiographs); the most similar of 120 different ones have
0.973. In the real Fashion-MNIST, 19 of the 10,000 test images have such a twin among the 60,000 training images."""
GROUP = r"(?i)(?:^|[^a-z])((?:person|patient|subject|case|pat|pid|sub)[-_ ]?\d+)"
"""Names of groups that are recognized without being told."""
REMOVE = "Remove them from one of the sets: the metrics are too good."

Pair = tuple[int, int]
"""Indices of a sample of the set and of its twin in the training set."""
Floats = NDArray[np.float32]


def leak_findings(train: Subject, other: Subject, group: str | None) -> Iterator[Finding]:
    """What the training set and another one share."""
    files = _same_files(train.samples, other.samples)
    if files:
        yield _shared("problem", "same_file", train, other, files, "is also in train, byte for byte",
                      "are also in train, byte for byte")
    known = {first for first, _ in files}
    inputs = [pair for pair in _same_inputs(train, other) if pair[0] not in known]
    if inputs:
        yield _shared("problem", "same_input", train, other, inputs, "has an input that is also in train",
                      "have an input that is also in train")
    known |= {first for first, _ in inputs}
    near = [pair for pair in _near(train, other) if pair[0] not in known]
    if near:
        yield _shared("warning", "near_duplicate", train, other, near, "looks almost the same as one of train",
                      "look almost the same as one of train",
                      "Look at them. If they are copies, remove them from one of the sets: the metrics are too good.")
    yield from _shared_groups(train, other, group)


def copies_in_train(train: Subject) -> Iterator[Finding]:
    """Samples of the training set with the same input: a contradiction if their labels differ."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for check in train.good:
        if check.digest:
            found[check.digest].append(check.index)
    several = [indices for indices in found.values() if len(indices) > 1]
    contradict = [indices for indices in several if len({train.label(index) for index in indices}) > 1]
    if contradict:
        yield Finding("problem", "contradicting_labels",
                      f"{sum(map(len, contradict)):,} samples of train have the same input as one with another label",
                      "One of the labels is wrong: correct or remove them.",
                      [" = ".join(f"{train.sample(index)} ({train.label(index)})" for index in indices[:3])
                       for indices in contradict])
    copies = sum(len(indices) - 1 for indices in several)
    if copies and not contradict:
        yield Finding("note", "copies", f"{plural(copies, 'sample')} of train "
                      f"{'is a copy of another' if copies == 1 else 'are copies of others'}",
                      "They count several times in each epoch.",
                      [" = ".join(map(train.sample, indices[:3])) for indices in several])
    yield from _alike_with_other_labels(train)


def _alike_with_other_labels(train: Subject) -> Iterator[Finding]:
    """Images of the training set that look the same and have different labels."""
    if train.labels is None:
        return
    indices, prints = _miniatures(train)
    labels = train.labels[indices]
    digests = {check.index: check.digest for check in train.good}
    twins = [(indices[one], indices[two]) for one, two in near_twins(prints, prints, labels, labels)]
    if pairs := sorted({(min(pair), max(pair)) for pair in twins if digests[pair[0]] != digests[pair[1]]}):
        yield Finding("warning", "near_duplicate_labels",
                      f"{plural(len(pairs), 'pair')} of images of train look almost the same and have different labels",
                      "Look at them: one of the labels may be wrong.",
                      [f"{train.sample(one)} ({train.label(one)}) ~ {train.sample(two)} ({train.label(two)})"
                       for one, two in pairs])


def _shared(severity: str, kind: str, train: Subject, other: Subject, pairs: Sequence[Pair], one: str,
            several: str, advice: str = REMOVE) -> Finding:
    sign = "~" if kind == "near_duplicate" else "="
    return Finding(severity, kind,  # type: ignore[arg-type]
                   of(len(pairs), len(other.samples), "sample", other.name, one, several), advice,
                   [f"{other.sample(mine)} {sign} {train.sample(twin)}" for mine, twin in pairs])


def _same_files(train: Samples, other: Samples) -> list[Pair]:
    """Image files that are in both sets, byte for byte. Only files of the same size are read."""
    mine, theirs = _by_size(train), _by_size(other)
    pairs = []
    for size in mine.keys() & theirs.keys():
        twins = {_file_digest(file): index for index, file in reversed(mine[size])}
        pairs += [(index, twins[digest]) for index, file in theirs[size] if (digest := _file_digest(file)) in twins]
    return sorted(pairs)


def _by_size(samples: Samples) -> dict[int, list[tuple[int, str]]]:
    """Index and file of each image of a set, by the size in bytes."""
    files: dict[int, list[tuple[int, str]]] = defaultdict(list)
    if found := underlying(samples, ImageFiles):
        images, rows = found
        for index, number in enumerate(rows.tolist()):
            files[int(images.stamps[number, 0])].append((index, images.file(number)))
    return files


def _file_digest(file: str) -> str:
    """The SHA-256 of a file; another one for each file that cannot be read."""
    try:
        with open(file, "rb") as opened:
            return file_digest(opened, "sha256").hexdigest()
    except OSError:
        return file


def _same_inputs(train: Subject, other: Subject) -> list[Pair]:
    """Samples of both sets, among those that were read, with the same input."""
    twins = {check.digest: check.index for check in reversed(train.good) if check.digest}
    return [(check.index, twins[check.digest]) for check in other.good if check.digest in twins]


def _near(train: Subject, other: Subject) -> list[Pair]:
    """Images of both sets, among those that were read, that look almost the same: for each the most similar one."""
    (mine, prints), (theirs, other_prints) = _miniatures(train), _miniatures(other)
    return sorted((theirs[one], mine[two]) for one, two in near_twins(other_prints, prints))


def _miniatures(subject: Subject) -> tuple[list[int], Floats]:
    """The indices of the images of a set that were read, and their miniatures, float32 [n, pixels]."""
    checks = [check for check in subject.good if check.miniature]
    data = np.frombuffer(b"".join(check.miniature for check in checks), np.float16).astype(np.float32)
    return [check.index for check in checks], data.reshape(-1, SIDE * SIDE)


def near_twins(some: Floats, others: Floats, labels: Integers | None = None, other_labels: Integers | None = None, *,
               block: int = 256) -> list[Pair]:
    """For each row of `some` with any, the row of `others` with the highest correlation, if that is at least `ALIKE`;
    with labels, among those with another label. All rows have norm 1.

    Rows that are that close are also close on any axis: both are sorted along the axis of the largest variance, and
    only neighbors on it are compared.
    """
    if not len(some) or not len(others):
        return []
    sample = others[::max(1, len(others) // 4096)]
    axis = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][0]
    reach = float(np.sqrt(2 * (1 - ALIKE))) + 1e-3
    places, steps = some @ axis, others @ axis
    order, other_order = np.argsort(places), np.argsort(steps)
    sorted_others, steps = others[other_order], steps[other_order]
    found: list[Pair] = []
    for start in range(0, len(order), block):
        rows = order[start:start + block]
        near = slice(*np.searchsorted(steps, [places[rows[0]] - reach, places[rows[-1]] + reach]))
        alike = some[rows] @ sorted_others[near].T
        if labels is not None and other_labels is not None:
            alike[labels[rows][:, None] == other_labels[other_order[near]]] = -1
        if alike.shape[1]:
            best = alike.argmax(axis=1)
            twins = alike[np.arange(len(rows)), best] >= ALIKE
            found += zip(rows[twins].tolist(), other_order[near][best[twins]].tolist(), strict=True)
    return found


def _shared_groups(train: Subject, other: Subject, group: str | None) -> Iterator[Finding]:
    """Groups, such as patients, with samples in both sets."""
    mine, theirs = (groups_of(one, group) for one in (train, other))
    both = [name for name in theirs if name in mine]
    if both:
        samples = sum(len(theirs[name]) for name in both)
        yield Finding("problem" if group or own_groups(train) else "warning", "shared_group",
                      f"{len(both):,} of {plural(len(theirs), 'group')} of {other.name}, with "
                      f"{plural(samples, 'sample')}, {'is' if len(both) == 1 else 'are'} also in train",
                      "Split by group, so that all samples of a patient are in one set: Split with by: group. If the "
                      "names mean something else: --group PATTERN",
                      [f"{name}: {other.sample(theirs[name][0])}, {train.sample(mine[name][0])}" for name in both])


def groups_of(subject: Subject, pattern: str | None) -> dict[str, list[int]]:
    """The indices of the samples of each group. The groups are the set's own, `samples.groups()` in the order of the
    set; or what `pattern`, with one group in parentheses, finds in the names; or, if half of the names have one, a
    person, patient or subject with a number."""
    found: dict[str, list[int]] = defaultdict(list)
    own = own_groups(subject) if pattern is None else []
    matches = [] if own else [re.search(pattern or GROUP, name) for name in subject.names]
    for index, name in enumerate(own or [match[1] if match else "" for match in matches]):
        if name:
            found[name].append(index)
    if pattern is None and not own and 2 * sum(map(len, found.values())) < len(subject.names):
        return {}
    return found


def own_groups(subject: Subject) -> list[str]:
    """The group of each sample as the set names them; empty if it does not know them."""
    try:
        return sample_groups(subject.samples) or []
    except ValueError:
        return []
