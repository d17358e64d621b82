"""Staging and writing: files that any tool reads, and what happens when the disk, the writer or the rank fails."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import checkpoint_path, damage
from drumbeat.trainers.checkpoints import writer
from drumbeat.trainers.checkpoints.manager import Checkpoints, SaveError
from drumbeat.trainers.checkpoints.staging import Staging
from drumbeat.trainers.checkpoints.writer import HURRY, Order, Work, carry_out, write
from tests.processes import until

STATE = {"optimizer": {}, "scheduler": {}}
TENSORS = {
    "weight": torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "half": torch.arange(3, dtype=torch.bfloat16), "scalar": torch.tensor(7), "none": torch.empty(0, 4),
    "flag": torch.tensor([True, False, True]), "double": torch.tensor([0.1], dtype=torch.float64),
}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.claim_attempt()
    return run


@pytest.fixture
def checkpoints(run: RunDir) -> Iterator[Checkpoints]:
    made = Checkpoints(run, run.attempt(0), keep=2)
    yield made
    made.pending = ""
    made.close()


def good(run: RunDir) -> list[str]:
    return sorted(path.parent.name for path in run.checkpoints.glob("step-*/manifest.json"))


def test_staged_files_are_safetensors(run: RunDir) -> None:
    staging = Staging()
    for factor in (1, 2):  # the second time into the same memory
        files = {"model.safetensors": {name: value * factor if value.dtype != torch.bool else value
                                       for name, value in TENSORS.items()}, "optimizer.safetensors": {}}
        staging.fill(files)
        memory = memoryview(os.pread(staging.fd, os.fstat(staging.fd).st_size, 0))
        order = Order(attempt=str(run.attempt(0).path), step=factor, is_best=False, keep=2,
                      state=CheckpointState(progress=Progress()), files=staging.parts,
                      reordered=(*staging.reordered,))
        loaded = load_file(carry_out(write(order, memory)) / "model.safetensors")
        assert loaded.keys() == TENSORS.keys()
        for name, value in files["model.safetensors"].items():
            assert loaded[name].dtype == value.dtype
            assert torch.equal(loaded[name], value)
    assert load_file(run.checkpoints / "last" / "optimizer.safetensors") == {}


@pytest.mark.parametrize("piece", [1, 70, 1 << 20])
def test_the_bytes_of_a_file_do_not_depend_on_the_order_in_memory(run: RunDir, monkeypatch: pytest.MonkeyPatch,
                                                                  piece: int) -> None:
    """Of tensors in several orders, some of them views with gaps, written in pieces of any size."""
    plain = {"a": torch.arange(240.0).reshape(4, 3, 4, 5), "b": torch.arange(60, dtype=torch.bfloat16).reshape(3, 4, 5),
             "c": torch.arange(12, dtype=torch.uint8).reshape(3, 4), "d": torch.ones(2, 2)}
    turned = {"a": plain["a"].to(memory_format=torch.channels_last),
              "b": plain["b"].permute(2, 0, 1).contiguous().permute(1, 2, 0),
              "c": plain["c"].T.contiguous().T, "d": torch.ones(2, 4)[:, ::2]}
    monkeypatch.setattr(writer, "PIECE", piece)
    written = []
    for step, tensors in enumerate((plain, turned), start=1):
        staging = Staging()
        staging.fill({"model.safetensors": tensors})
        assert [len(one.shape) for one in staging.reordered] == [[], [4, 3, 2]][step - 1]
        assert all(view.is_contiguous() for view in staging.views()["model.safetensors"].values())
        order = Order(attempt=str(run.attempt(0).path), step=step, is_best=False, keep=2, files=staging.parts,
                      state=CheckpointState(progress=Progress()), reordered=(*staging.reordered,))
        memory = memoryview(os.pread(staging.fd, os.fstat(staging.fd).st_size, 0))
        written.append((carry_out(write(order, memory)) / "model.safetensors").read_bytes())
        assert damage(checkpoint_path(run, step)) == ""
    assert written[0] == written[1]


def test_the_memory_is_reused_for_a_state_of_the_same_shapes() -> None:
    staging = Staging()
    staging.fill({"a": {"x": torch.zeros(5)}})
    size, views = os.fstat(staging.fd).st_size, staging._views
    staging.fill({"a": {"x": torch.ones(5)}})
    assert staging._views is views
    staging.fill({"a": {"x": torch.ones(5)}, "b": {"y": torch.ones(5000)}})
    assert os.fstat(staging.fd).st_size > size


def test_the_writer_starts_fast_because_it_imports_little() -> None:
    script = ("import sys, drumbeat.trainers.checkpoints.writer; "
              "print(sorted({'torch', 'numpy', 'omegaconf', 'yaml'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_saving_copies_and_returns_while_the_writer_works(checkpoints: Checkpoints) -> None:
    weights = {"x": torch.ones(4)}
    checkpoints.save(Progress(step=1), weights, {}, STATE)
    assert checkpoints.writer is not None
    checkpoints.wait()
    os.kill(checkpoints.writer.pid, signal.SIGSTOP)  # from here on it does nothing
    checkpoints.save(Progress(step=2), weights, {}, STATE)
    weights["x"] += 1  # what is staged does not change any more
    checkpoints.check()
    assert good(checkpoints.run) == ["step-00000001"]
    os.kill(checkpoints.writer.pid, signal.SIGCONT)
    assert checkpoints.weights(2)["x"].tolist() == [1.0] * 4


def test_work_is_done_with_the_lowest_priority_until_somebody_waits_for_it() -> None:
    HURRY.clear()
    seen: list[int] = []

    def work() -> Work:
        for number in range(4):
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            if number == 1:
                HURRY.set()
            yield
        return "done"

    assert carry_out(work()) == "done"
    assert seen == [19, 19, *[os.getpriority(os.PRIO_PROCESS, 0)] * 2]


def test_work_hurries_when_it_has_taken_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a write could take minutes on a machine whose cores all compute."""
    HURRY.clear()
    monkeypatch.setattr(writer, "PATIENCE", 0.0)
    seen: list[int] = []

    def work() -> Work:
        for _ in range(2):
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            yield
        return "done"

    assert carry_out(work()) == "done"
    assert seen[-1] == os.getpriority(os.PRIO_PROCESS, 0) != 19


def test_a_rank_that_waits_tells_the_writer(checkpoints: Checkpoints) -> None:
    weights = {"x": torch.ones(4)}
    checkpoints.save(Progress(step=1), weights, {}, STATE)
    checkpoints.wait()
    assert checkpoints.writer is not None
    status = Path(f"/proc/{checkpoints.writer.pid}/status")
    os.kill(checkpoints.writer.pid, signal.SIGSTOP)
    checkpoints.save(Progress(step=2), weights, {}, STATE)
    waiting = threading.Thread(target=checkpoints.wait)
    waiting.start()
    until(lambda: int(status.read_text().split("ShdPnd:")[1].split()[0], 16) >> (signal.SIGURG - 1) & 1)
    os.kill(checkpoints.writer.pid, signal.SIGCONT)
    waiting.join()
    assert good(checkpoints.run) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("others", [3, 0])
def test_a_killed_writer_is_replaced_and_costs_nothing(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch,
                                                       others: int) -> None:
    """Nor does it where no other one takes over: the checkpoint before is there."""
    monkeypatch.setattr("drumbeat.trainers.checkpoints.manager.MAX_WRITERS", others)
    checkpoints.save(Progress(step=1), {"x": torch.ones(4)}, {}, STATE)
    checkpoints.wait()
    assert checkpoints.writer is not None
    os.kill(checkpoints.writer.pid, signal.SIGSTOP)
    checkpoints.save(Progress(step=2), {"x": torch.ones(4)}, {}, STATE)
    os.kill(checkpoints.writer.pid, signal.SIGKILL)
    with nullcontext() if others else pytest.raises(SaveError, match="its writer is always killed"):
        checkpoints.wait()
    found = checkpoints.newest()
    assert found is not None
    assert found.progress.step == (2 if others else 1)


def test_a_folder_that_is_gone_pauses_the_run_until_it_is_back(run: RunDir, tmp_path: Path) -> None:
    messages: list[str] = []

    def on_pause(message: str) -> None:
        messages.append(message)
        if message:
            (tmp_path / "elsewhere").rename(run.path)

    checkpoints = Checkpoints(run, run.attempt(0), keep=2, patience=0.001, on_pause=on_pause)
    checkpoints.save(Progress(step=1), {"x": torch.ones(4)}, {}, STATE)
    checkpoints.wait()
    run.path.rename(tmp_path / "elsewhere")
    checkpoints.save(Progress(step=2), {"x": torch.ones(4)}, {}, STATE)
    checkpoints.close()
    assert "the checkpoint cannot be written: No such file or directory" in messages[0]
    assert messages[1:] == [""]
    assert good(run) == ["step-00000001", "step-00000002"]


def test_a_disk_that_is_full_in_the_middle_of_a_file_pauses_the_run(run: RunDir) -> None:
    """The kernel's own refusal, by a limit on the size of files set from outside and taken away later."""
    messages: list[str] = []

    def on_pause(message: str) -> None:
        messages.append(message)
        if message:
            assert checkpoints.writer is not None
            resource.prlimit(checkpoints.writer.pid, resource.RLIMIT_FSIZE, (most, most))

    checkpoints = Checkpoints(run, run.attempt(0), keep=2, patience=0.01, on_pause=on_pause)
    checkpoints.save(Progress(step=1), {"x": torch.ones(4000)}, {}, STATE)
    checkpoints.wait()
    assert checkpoints.writer is not None
    _, most = resource.prlimit(checkpoints.writer.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(checkpoints.writer.pid, resource.RLIMIT_FSIZE, (1000, most))
    checkpoints.save(Progress(step=2), {"x": torch.ones(4000)}, {}, STATE)
    checkpoints.close()
    assert messages == ["the checkpoint cannot be written: File too large", ""]
    assert good(run) == ["step-00000001", "step-00000002"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_never_costs_the_last_good_checkpoint(small_disk: Path) -> None:
    run = RunDir(small_disk / "run")
    attempt = run.claim_attempt()
    ballast = small_disk / "ballast"
    messages: list[str] = []

    def on_pause(message: str) -> None:
        messages.append(message)
        if message:
            ballast.unlink()

    checkpoints = Checkpoints(run, attempt, keep=2, patience=0.001, on_pause=on_pause)
    weights = {"x": torch.ones(100_000)}
    for step in (1, 2):
        checkpoints.save(Progress(step=step), weights, {}, STATE)
    checkpoints.wait()
    ballast.write_bytes(bytes(1_100_000))
    checkpoints.save(Progress(step=3), weights, {}, STATE)  # there is room, once the oldest has gone
    checkpoints.wait()
    assert (good(run), messages) == (["step-00000002", "step-00000003"], [])
    checkpoints.save(Progress(step=4), {"x": torch.ones(250_000)}, {}, STATE)  # now there is none
    checkpoints.close()
    assert messages[0].startswith("the checkpoint cannot be written: 1 MB are needed and 1 MB are free")
    assert messages[1:] == [""]
    assert good(run) == ["step-00000003", "step-00000004"]
    assert not list(run.checkpoints.glob(".*.tmp"))


def test_where_patience_ends_the_last_good_one_is_still_there(run: RunDir, tmp_path: Path) -> None:
    checkpoints = Checkpoints(run, run.attempt(0), keep=2)
    checkpoints.save(Progress(step=1), {"x": torch.ones(4)}, {}, STATE)
    checkpoints.wait()
    run.path.rename(tmp_path / "elsewhere")
    checkpoints.save(Progress(step=2), {"x": torch.ones(4)}, {}, STATE)
    with pytest.raises(SaveError, match="No such file or directory"):
        checkpoints.close()
    (tmp_path / "elsewhere").rename(run.path)
    assert good(run) == ["step-00000001"]


ORPHAN = """
import os, signal, sys, torch
from pathlib import Path
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.trainers.checkpoints.manager import Checkpoints
run = RunDir(Path(sys.argv[1]))
checkpoints = Checkpoints(run, run.claim_attempt(), keep=2)
checkpoints.save(Progress(step=1), {"x": torch.ones(4)}, {}, {})
checkpoints.wait()
os.kill(checkpoints.writer.pid, signal.SIGSTOP)
print(checkpoints.writer.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_writer_ends_when_its_rank_is_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    writer, deadline = Path(f"/proc/{int(done.stdout)}/cmdline"), time.monotonic() + 10
    while writer.exists() and writer.read_bytes() and time.monotonic() < deadline:
        os.sched_yield()
    assert not (writer.exists() and writer.read_bytes())
