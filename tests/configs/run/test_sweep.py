"""A sweep's folder and its records."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.sweep import Sweep, SweepDir, Trial, differing, names_of

SWEEP = Sweep(id="20260102-030405-abcde", typed="drumbeat sweep", config="/a.yaml", space={"seed": "0..1"},
              trials=(Trial(number=0, values={"seed": "0"}), Trial(number=1, values={"seed": "1"})),
              rungs={"1": (0.5, 0.25)}, pruned=(1,))


def test_written_and_read(tmp_path: Path) -> None:
    folder = SweepDir(tmp_path)
    SWEEP.write(folder.record)
    assert folder.read() == SWEEP
    assert SWEEP.trials[1].assignments == ["seed=1"]
    folder.record.write_text('{"id": "x"}')
    with pytest.raises(DamagedError, match="'typed' is missing"):
        folder.read()


def test_changes_do_not_get_lost(tmp_path: Path) -> None:
    """Each is made to the record as the one before has left it."""
    folder = SweepDir(tmp_path)
    SWEEP.write(folder.record)

    def add(number: int) -> None:
        with folder.changing() as sweep:
            replace(sweep, jobs=(*sweep.jobs, str(number))).write(folder.record, durable=False)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, folder.read().jobs)) == list(range(20))


def test_only_those_who_may_change_a_sweep_can_hold_its_locks(tmp_path: Path) -> None:
    """Any reader could otherwise hold them for ever."""
    folder = SweepDir(tmp_path)
    SWEEP.write(folder.record)
    with folder.changing(), folder.queue_lock():
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in (".sweep.lock", ".queue.lock")] == [0o600] * 2


def test_keys_that_differ_and_their_short_names() -> None:
    keys = ["phases.head.optimizer.lr", "phases.finetune.optimizer.lr", "seed", "same"]
    trials = [Trial(number=number, values={key: "1" if key == "same" else str(number) for key in keys})
              for number in range(2)]
    assert names_of(differing(trials)) == {
        keys[0]: "head.optimizer.lr", keys[1]: "finetune.optimizer.lr", "seed": "seed"}
    assert names_of(["a.lr", "lr", "b.c"]) == {"a.lr": "a.lr", "lr": "lr", "b.c": "c"}
