"""Classes: how many samples each has, and which are missing, doubtful or rare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from drumbeat.trainers.doctor.findings import Finding, plural
from drumbeat.trainers.doctor.subject import Subject

RARE = 10
"""The rarest class is reported if the most frequent one has this many times as many samples."""
NO_VALUES = {"", "n/a", "na", "nan", "none", "null", "unknown", "undefined", "?"}
"""Labels that tables use for a missing one, in lower case."""
SYSTEM_FOLDERS = ("@", "#", "$", "__", "lost+found")
"""How the names of folders begin that file servers and archives make."""


def class_counts(subject: Subject) -> str:
    """The number of samples, and those of the first classes, as text."""
    if subject.labels is None or not subject.classes:
        return f"{subject.name:<11}{len(subject.samples):,}"
    counts = np.bincount(subject.labels, minlength=len(subject.classes))
    shown = [f"{title} {count:,} ({count / max(1, len(subject.labels)):.0%})"
             for title, count in zip(subject.classes, counts, strict=True)]
    more = f", and {len(shown) - 6} more" if len(shown) > 6 else ""
    return f"{subject.name:<11}{len(subject.labels):,}: {', '.join(shown[:6])}{more}"


def label_findings(subject: Subject, train: Subject) -> Iterator[Finding]:
    """What is wrong with the classes of a set."""
    if subject.labels is None or not subject.classes:
        return
    counts = np.bincount(subject.labels, minlength=len(subject.classes))
    n, present = len(subject.labels), np.flatnonzero(counts)
    missing = [title for title, count in zip(subject.classes, counts, strict=True) if not count]
    if len(present) == 1:
        yield Finding("problem", "one_class",
                      f"all {n:,} samples of {subject.name} are of one class: {subject.classes[present[0]]}",
                      "A model that always answers it is right. Is the root one folder too high or too low?")
    elif missing:
        yield Finding("problem" if subject is train else "warning", "class_without_samples",
                      f"{subject.name} has no sample of {len(missing):,} of its {len(counts):,} classes",
                      "Such a class is never learned." if subject is train else
                      "Its metrics say nothing of such a class: use a larger part, or Split with by: class.", missing)
    if subject is not train:
        return
    if len(present) > 1 and counts[present].min() * RARE < counts.max():
        rarest, largest = present[counts[present].argmin()], counts.argmax()
        yield Finding("note", "rare_class", f"the rarest class of train, {subject.classes[rarest]}, has "
                      f"{plural(int(counts[rarest]), 'sample')}, and {subject.classes[largest]} has "
                      f"{counts[largest]:,}",
                      "data.sampling={_target_: drumbeat.data.ClassBalanced} draws all classes equally often.")
    yield from _names(subject.classes)


def _names(classes: list[str]) -> Iterator[Finding]:
    """Names of classes that are probably mistakes."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[" ".join(name.lower().split())].append(name)
    if doubled := [" = ".join(map(repr, names)) for names in alike.values() if len(names) > 1]:
        several = "1 class occurs" if len(doubled) == 1 else f"{len(doubled):,} classes occur"
        yield Finding("warning", "similar_classes", f"{several} in several spellings",
                      "Give each class one name.", doubled)
    if empty := [repr(name) for name in classes if name.strip().lower() in NO_VALUES]:
        yield Finding("warning", "missing_label_class", "a class has a name that usually stands for a missing label",
                      "Remove the samples without a label, or name the class.", empty)
    if system := [repr(name) for name in classes if name.startswith(SYSTEM_FOLDERS)]:
        yield Finding("warning", "system_folder", "a class is probably a folder of the file system or of an archive",
                      "Move it out of the folder of the classes.", system)
