"""`drumbeat replay` on real runs: an undisturbed step, a flipped bit on one rank, pdb, and errors."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import NodeUp
from drumbeat.configs.run.step_log import Step, StepLog, header
from drumbeat.data.order import Stream
from drumbeat.launch.commands.main import main
from drumbeat.launch.replay.replay import Comparison, verdict
from drumbeat.launch.replay.scratch import Interval
from tests.runs import write_job, write_plan, write_state
from tests.tiny import drumbeat, latest, write_config
from tests.warm import run_python

FLIPPED = 7
"""The step in which rank 1 flips a bit."""


def content(run: RunDir) -> dict[str, tuple[int, int, bytes]]:
    """The mode, time and content of each file and folder of a run."""
    return {str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in [run.path, *run.path.rglob("*")]}


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of eleven steps on two ranks, one of which has flipped a bit of its gradient in step `FLIPPED`."""
    folder = tmp_path_factory.mktemp("flipped")
    write_config(folder)
    (folder / "flip").touch()
    # the first gradient of a process is that of the discarded pass
    model = f"{{_target_: tests.tiny.Flips, file: {folder / 'flip'}, at: {FLIPPED + 1}, rank: 1}}"
    drumbeat(folder, "tiny.yaml", f"model={model}", "phases.finetune=null", "micro_batch_size=null",
             "phases.head.epochs=1.2", "checkpoints.keep=9", "--procs", "2")
    assert not (folder / "flip").exists()
    return latest(folder)


@pytest.mark.slow
def test_an_undisturbed_step_is_equal_and_the_run_does_not_change(flipped: RunDir,
                                                                  capfd: pytest.CaptureFixture[str]) -> None:
    before = content(flipped)
    assert main(["replay", str(flipped.path), "--step", "5"]) == 0
    assert content(flipped) == before
    found = StepLog.read(flipped).step(5)
    assert found is not None
    assert capfd.readouterr().out == f"""\
replay     steps 4 to 5 from the checkpoint at step 3, on 2 ranks
log        all 2 steps are equal to it, to the bit
step 5     loss {found.loss:.9g}, gradient {found.digest:016x}
verdict    the software did it: the same code, config and samples give the same
           numbers again
"""
    assert not (flipped.all_runs / ".replays").exists()


@pytest.mark.slow
def test_a_flipped_bit_names_step_rank_and_node(flipped: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    before = content(flipped)
    assert main(["replay", str(flipped.path), "--step", "8"]) == 1
    assert content(flipped) == before
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["replay     steps 7 to 8 from the checkpoint at step 6, on 2 ranks",
                         "log        step 7 differs from it"]
    (logged, own), (replayed, again) = (re.split(", gradient ", line) for line in lines[2:4])
    assert (logged, own[:16] == again[:16]) == (replayed, False)  # the loss comes before the gradient
    node = flipped.attempt(0).node_up(0).read_text()
    text = " ".join(line.strip() for line in lines[4:])
    host = re.search(r"rank 1 on node (\S+) computed something else in step 7\.", text)
    assert text.startswith("verdict    the machine did it: rank 1 on node")
    assert host and f'"{host[1]}"' in node


def unequal(tmp_path: Path, *, other: bool = False, elsewhere: str = "", ranks: tuple[int, ...] = (1, 2)) -> list[str]:
    """What is said about a run of two ranks on two nodes, of which a replay differs."""
    run = RunDir(tmp_path / "runs" / "one" / "20260101-000000-abcde")
    write_plan(run)
    attempt = run.claim_attempt()
    for node in range(2):
        NodeUp(host=f"n{node}").write(attempt.node_up(node))
    attempt.steps.write_bytes(header(1, 2) + bytes(range(24)) * 5)
    work = Interval(run=run, start=2, step=5, ranks=2)
    found = Comparison(step=3, logged=Step(1.0, 7, False, (1, 2)), replayed=Step(1.0, 8, False, ranks))
    return verdict(work, StepLog.read(run), found, found if other else None, elsewhere=elsewhere)


def test_what_an_unequal_replay_means(tmp_path: Path) -> None:
    agree = "Two replays agree with each other, and not with the log"
    assert unequal(tmp_path, ranks=(1, 3)) == [
        f"the machine did it: rank 1 on node n1 computed something else in step 3. {agree}"]
    assert unequal(tmp_path, ranks=(4, 3)) == [
        "the machine did it: rank 0 on node n0 and rank 1 on node n1 computed something else in step 3. " + agree]
    assert unequal(tmp_path) == [
        "the machine did it: each rank computed the same, and the average of their gradients came out differently in "
        f"step 3. {agree}"]
    assert unequal(tmp_path, other=True, ranks=(1, 3)) == [
        "two replays differ from each other, first in step 3: this machine does not compute the same twice; look for "
        "the cause here first"]
    assert unequal(tmp_path, elsewhere="device was H100 then and is H200 now") == [
        "unknown: two replays agree with each other, and not with the log, but device was H100 then and is H200 now. "
        "Repeat it where the run was trained"]


@pytest.fixture
def made(tmp_path: Path) -> RunDir:
    """A run folder with a log of five steps, and without checkpoints."""
    run = RunDir(tmp_path / "runs" / "one" / "20260101-000000-abcde")
    write_plan(run)
    run.config.write_text("")
    write_state(run, "finished")
    run.claim_attempt().steps.write_bytes(header(1, 2) + bytes(range(24)) * 5)
    return run


@pytest.mark.parametrize(("words", "what"), [
    (["--step", "0"], "there is no step 0 in the run's log"),
    (["--step", "6"], "there is no step 6 in the run's log"),
    (["--step", "0", "--debug"], "there is no step 0 in the run's log"),
    (["--step", "3", "--debug", "--rank", "2"], "there is no rank 2"),
    (["--step", "3", "--rank", "1"], "--rank needs --debug")])
def test_a_step_or_rank_that_is_not_there_is_refused(made: RunDir, capsys: pytest.CaptureFixture[str],
                                                     words: list[str], what: str) -> None:
    assert main(["replay", str(made.path), *words]) == 2
    out = capsys.readouterr()
    assert out.err.startswith(f"error: {what}")
    assert out.err.count("\n") <= 6
    assert not (made.all_runs / ".replays").exists()


def test_a_run_without_a_log_is_refused(made: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    made.attempt(0).steps.unlink()
    assert main(["replay", str(made.path), "--step", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: the run has no step log\n")


def test_a_running_run_is_refused(made: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    write_state(made, "running")
    write_job(made, "slurm", id="17")
    assert main(["replay", str(made.path), "--step", "1"]) == 2
    assert capsys.readouterr().err.startswith(f"error: run {made.id} is still running: its checkpoints come and go\n")


@pytest.mark.slow
def test_pdb_stops_before_a_ranks_part_of_a_step(flipped: RunDir) -> None:
    """From the checkpoint, in one process: the ranks' parts add up to the loss of the step."""
    total, before = 0.0, content(flipped)
    for rank in range(2):
        done = run_python([sys.executable, "-m", "drumbeat", "replay", str(flipped.path), "--step", "4",
                           "--debug", "--rank", str(rank)], input="p parts[0].indices.tolist()\nc\n", text=True,
                          capture_output=True, cwd=flipped.all_runs.parent)
        assert done.returncode == 0, done.stderr
        done = done.stdout
        assert f"step 4 of the run, rank {rank} of 2: the next line computes its loss and gradients." in done
        positions = np.arange(36 + 6 * rank, 42 + 6 * rank)
        assert f"(Pdb) {Stream(100, 0, 0).indices(positions).tolist()}" in done
        part = re.search(r"this rank's part of the loss: (\S+)", done)
        assert part
        total += struct.unpack("<f", struct.pack("<f", float(part[1])))[0]
    found = StepLog.read(flipped).step(4)
    assert found is not None
    assert total == found.loss
    assert content(flipped) == before
    done = run_python([sys.executable, "-m", "drumbeat", "replay", str(flipped.path), "--step", "4", "--debug"],
                      input="q\n", text=True, capture_output=True, cwd=flipped.all_runs.parent)
    assert done.returncode == 0 and "BdbQuit" not in done.stderr
    assert done.stdout.endswith("(Pdb) left before the end of the step\n")
