"""Removes what nobody needs any more (`leftovers.py`): says what, asks, and removes it under the lock of each run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError, hang
from drumbeat.configs.layers import short
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import changing, is_changing
from drumbeat.configs.run.manifest import checkpoint_path, damage
from drumbeat.configs.run.view import View
from drumbeat.configs.text_table import aligned
from drumbeat.launch.backends.backend import running_evidence
from drumbeat.launch.runs.caches import is_filling, orphaned
from drumbeat.launch.runs.disk_use import Freed, bytes_text
from drumbeat.launch.runs.find import all_runs
from drumbeat.launch.runs.leftovers import Leftover, essential, needed_by, of_commands, of_replays, of_run, why_kept

WIDTH = 11
"""Of the labels."""


def clean(named: Sequence[RunDir], runs: Path, *, all_but_best: bool, caches: bool, yes: bool,
          busy: Collection[Path] = ()) -> int:
    """Removes what nobody needs of the runs `named`; without one, of all runs below `runs`, and what replays and killed
    commands have left there and, with `caches`, the decoded images that no run uses. Prints what would go, and asks,
    unless `yes`. The runs in the folders `busy` stay. Returns the exit code: 1 if something could not be removed.
    Raises `UserError`, before anything is removed, if a run that is named may not be cleaned."""
    every = all_runs(runs)
    views, kept = _cleanable(named or every, busy)
    if named and kept:
        raise RunError(*(Fault(what=f"run {run.id} cannot be cleaned: {reason}", where=short(run.path),
                               remedy="Only finished runs that nobody changes are cleaned. To delete a run, delete its "
                                      "folder.")
                         for run, reason in kept))
    needed = needed_by(every)
    found = {view.run: of_run(view, all_but_best=all_but_best, needed=needed) for view in views}
    others = [] if named else [*of_replays(runs), *of_commands(runs), *(orphaned(every) if caches else [])]
    leftovers = [*(one for some in found.values() for one in some), *others]
    if kept:
        print(f"{'kept':<{WIDTH}}{len(kept):,} of {len(every):,} runs: not finished, or may not be changed now",
              file=sys.stderr)
    if not leftovers:
        print("nothing to remove")
        return 0
    print("\n".join(table(leftovers)), flush=True)
    if not yes and not _agreed():
        return 0
    freed, total = Freed(), 0
    problems: list[str] = []
    for run, some in found.items():
        if some:
            total += _clean_run(run, some, needed, freed, problems, all_but_best=all_but_best)
    for one in others:
        if is_changing(RunDir(one.path)) or is_filling(one.path):
            problems.append(f"{short(one.path)}: a process has begun to use it")
        else:
            total += _remove([one], freed, problems)
    with suppress(OSError):
        (runs / ".replays").rmdir()
    print(f"{'removed':<{WIDTH}}{bytes_text(total)}")
    for problem in problems:
        print(hang(f"{'not done':<{WIDTH}}", problem), file=sys.stderr)
    return 1 if problems else 0


def table(leftovers: Iterable[Leftover]) -> list[str]:
    """What would go, in lines of text: a row for each run and kind, with the bytes that it frees, and the total."""
    freed, rows, total = Freed(), [("of", "what", "frees")], 0
    for (owner, what), group in groupby(leftovers, key=lambda one: (one.owner, one.what)):
        some = [*group]
        size = sum(freed.by(one.path) for one in some)
        rows.append((owner, _what(what, some), bytes_text(size)))
        total += size
    return aligned([*rows, ("total", "", bytes_text(total))], (2,))


def _what(what: str, some: Sequence[Leftover]) -> str:
    """How many of a kind, as text; checkpoints with their steps."""
    noun, _, more = what.partition(" of ")
    head, _, comma = noun.rpartition(" ")
    text = f"{len(some):,} {head}{' ' * bool(head)}{comma}{'s' * (len(some) > 1)}{f' of {more}' if more else ''}"
    steps = [f"{one.step:,}" for one in some if one.step >= 0]
    shown = ", ".join([*steps[:3], "...", steps[-1]] if len(steps) > 5 else steps)
    return f"{text}, step{'s' * (len(steps) > 1)} {shown}" if steps else text


def _cleanable(runs: Iterable[RunDir], busy: Collection[Path]) -> tuple[list[View], list[tuple[RunDir, str]]]:
    """The runs that may be cleaned, and the others with the reason."""
    views, kept = [], []
    for run in runs:
        try:
            reason = why_kept(view := View.read(run)) or ("its sweep may resume it" if run.path in busy else "")
        except (DamagedError, OSError) as error:
            reason = f"a file of it cannot be read: {error.reason if isinstance(error, DamagedError) else error}"
        if reason:
            kept.append((run, reason))
        else:
            views.append(view)
    return views, kept


def _agreed() -> bool:
    """Whether the user agrees. Without a terminal nobody can be asked."""
    if not (sys.stdin and sys.stdin.isatty()):
        print("\nnothing is removed; to remove it, add --yes")
        return False
    try:
        answer = input("\nremove it? (y/N) ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        return True
    print("nothing is removed")
    return False


def _clean_run(run: RunDir, planned: Sequence[Leftover], needed: set[Path], freed: Freed, problems: list[str], *,
               all_but_best: bool) -> int:
    """Removes what was planned of a run and may still go, while no other command can change it. Returns the bytes that
    this frees. `problems` gets the reasons why something stays."""
    try:
        with changing(run, "clean"):
            view = View.read(run)
            reason = why_kept(view, locked=True) or running_evidence(view)
            if reason:
                problems.append(f"{short(run.path)}: {reason}")
                return 0
            may = set(of_run(view, all_but_best=all_but_best, needed=needed))
            some = [one for one in planned if one in may]
            saved = [one for one in some if one.path.is_relative_to(run.checkpoints)]
            if saved and (harm := next(_harms(view, all_but_best=all_but_best), "")):
                problems.append(f"{short(run.path)}: its checkpoints stay, because {harm}")
                some = [one for one in some if one not in saved]
            total = _remove(some, freed, problems)
            _renew(run.path)
            return total
    except (RunError, OSError) as error:
        problems.append(f"{short(run.path)}: {error.faults[0].what if isinstance(error, RunError) else error}")
        return 0


def _harms(view: View, *, all_but_best: bool) -> Iterator[str]:
    """What is wrong with the checkpoints that stay. Their digests are computed: nothing else could replace them."""
    for step in sorted(essential(view, all_but_best=all_but_best)):
        if reason := damage(checkpoint_path(view.run, step)):
            yield f"that of step {step:,} is damaged: {reason}"


def _remove(some: Iterable[Leftover], freed: Freed, problems: list[str]) -> int:
    """Removes files and folders. Returns the bytes that this frees."""
    total = 0
    for one in some:
        size = freed.by(one.path)
        try:
            if one.path.is_dir() and not one.path.is_symlink():
                (one.path / "manifest.json").unlink(missing_ok=True)  # first: a partly removed checkpoint is incomplete
                shutil.rmtree(one.path)
            else:
                one.path.unlink(missing_ok=True)
            total += size
        except OSError as error:
            problems.append(f"{short(one.path)}: {error.strerror}")
    return total


def _renew(folder: Path) -> None:
    """Changes the time of the last status change (ctime) of a run's folder, so that `ls` reads the run again."""
    with suppress(OSError):
        found = folder.stat()
        os.utime(folder, ns=(found.st_atime_ns, found.st_mtime_ns))
