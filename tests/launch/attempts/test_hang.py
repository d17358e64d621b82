"""The rank that hung is named from the steps and stacks that all ranks have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import RankError
from drumbeat.launch.attempts.hang import find_hang

LIBRARY = "/home/me/venv/lib/python3.11/site-packages"
CODE = "/home/me/drumbeat/trainers"
RUN = [f"{CODE}/worker.py 184 <module>", f"{CODE}/worker.py 70 main", f"{CODE}/loop.py 108 run"]
"""The outermost frames of every rank, as file, line and function."""
STEP = [*RUN, f"{CODE}/loop.py 134 _phase"]
"""And in a training step."""

IN_GLOO = [*RUN, f"{CODE}/loop.py 128 _phase", f"{CODE}/stopping.py 55 before", f"{CODE}/world.py 49 from_first",
           f"{LIBRARY}/torch/distributed/c10d_logger.py 81 wrapper",
           f"{LIBRARY}/torch/distributed/distributed_c10d.py 2824 broadcast"]
IN_LOSS = [*STEP, f"{CODE}/stage.py 121 step", f"{CODE}/stage.py 186 _backward", f"{CODE}/stage.py 198 _losses",
           f"{CODE}/stage.py 214 _of_each", "/home/me/my_loss.py 12 losses"]
IN_BACKWARD = [*STEP, f"{CODE}/stage.py 121 step", f"{CODE}/stage.py 187 _backward",
               f"{LIBRARY}/torch/_tensor.py 625 backward", f"{LIBRARY}/torch/autograd/__init__.py 354 backward",
               f"{LIBRARY}/torch/autograd/graph.py 841 _engine_run_backward"]
IN_HOOK = [*IN_BACKWARD, "/home/me/my_hook.py 5 hook"]
AT_DEVICE = {
    "item": [*STEP, f"{CODE}/stage.py 124 step"],
    "synchronize": [*STEP, f"{CODE}/stage.py 130 step", f"{LIBRARY}/torch/cuda/__init__.py 1083 synchronize"],
    "event": [*STEP, f"{CODE}/stage.py 130 step", f"{LIBRARY}/torch/cuda/streams.py 231 synchronize"],
    "optimizer": [*STEP, f"{CODE}/stage.py 129 step", f"{LIBRARY}/torch/optim/lr_scheduler.py 140 wrapper",
                  f"{LIBRARY}/torch/optim/optimizer.py 517 wrapper", f"{LIBRARY}/torch/optim/adam.py 247 step",
                  f"{LIBRARY}/torch/optim/adam.py 949 adam", f"{LIBRARY}/torch/optim/optimizer.py 100 _get_value"],
    "cpu": [*RUN, f"{CODE}/loop.py 152 _phase", f"{CODE}/guards.py 61 compare_ranks", f"{CODE}/world.py 54 gather"],
    "tolist": [*RUN, f"{CODE}/loop.py 154 _phase", f"{CODE}/loop.py 211 _log"],
}
"""Where ranks on NCCL wait, in faulthandler's stacks in public reports and in our code: the calls into C that wait
(`.item()`, `.cpu()`, `.tolist()`) leave no frame of their own."""


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return RunDir(tmp_path).claim_attempt()


def write(attempt: Attempt, *ranks: tuple[int, list[str]]) -> None:
    """Each rank's step, and the frames of its main thread, behind another thread as faulthandler writes it."""
    for rank, (step, frames) in enumerate(ranks):
        text = f"step {step:12}\n"
        if frames:
            text += ("Timeout (0:30:00)!\nThread 0x00007f5b1d7fe640 (most recent call first):\n"
                     '  File "/usr/lib/python3.11/threading.py", line 331 in wait\n\n'
                     "Thread 0x00007f5c0e4b2740 (most recent call first):\n")
            for file, line, function in map(str.split, reversed(frames)):
                text += f'  File "{file}", line {line} in {function}\n'
        attempt.stacks(rank).write_text(text)


def message_of(attempt: Attempt) -> str:
    found = find_hang(attempt)
    assert found is not None
    return found.message


def test_no_rank_hung(attempt: Attempt) -> None:
    write(attempt, (7, []), (7, []))
    assert find_hang(attempt) is None


def test_the_rank_that_is_in_no_collective_is_the_one_that_hung(attempt: Attempt) -> None:
    write(attempt, (7, IN_GLOO), (7, IN_LOSS), (7, IN_GLOO))
    assert message_of(attempt) == (
        "rank 1 hung at step 7 in losses (my_loss.py:12); the other ranks waited for it; its stacks are "
        "in 000/rank1.stacks")


@pytest.mark.parametrize("where", AT_DEVICE)
@pytest.mark.parametrize("hung", [IN_LOSS, IN_BACKWARD])
def test_ranks_that_wait_at_the_device_have_come_further(attempt: Attempt, where: str, hung: list[str]) -> None:
    write(attempt, (7, AT_DEVICE[where]), (7, AT_DEVICE["tolist"]), (7, hung), (7, AT_DEVICE["item"]))
    found = find_hang(attempt)
    assert found is not None
    assert found.rank == 2


def test_the_step_counts_for_more_than_the_line(attempt: Attempt) -> None:
    """Rank 0 has not come out of step 7; the others are at an earlier line, of the next step."""
    write(attempt, (7, AT_DEVICE["tolist"]), (8, AT_DEVICE["item"]), (8, IN_GLOO))
    assert message_of(attempt).startswith("rank 0 hung at step 7 in _log (loop.py:211); the other ranks waited for it")


def test_waiting_for_data_of_the_next_step(attempt: Attempt) -> None:
    """A rank whose loader hangs is at the head of the loop, and its last heartbeat is from the step before."""
    loading = [*RUN, f"{CODE}/loop.py 125 _phase", f"{CODE}/loop.py 188 _batches",
               f"{LIBRARY}/torch/utils/data/dataloader.py 1448 _next_data",
               "/usr/lib/python3.11/selectors.py 415 select"]
    write(attempt, (8, AT_DEVICE["item"]), (7, loading))
    assert message_of(attempt).startswith("rank 1 hung at step 7 in _batches (loop.py:188)")


def test_in_the_backward_pass_a_computing_rank_is_behind_waiting_ranks(attempt: Attempt) -> None:
    write(attempt, (7, IN_BACKWARD), (7, IN_HOOK), (7, IN_BACKWARD))
    assert message_of(attempt).startswith("rank 1 hung at step 7 in hook (my_hook.py:5)")


def test_a_rank_that_could_not_write_its_stacks(attempt: Attempt) -> None:
    write(attempt, (7, AT_DEVICE["item"]), (7, AT_DEVICE["item"]), (7, []))
    assert message_of(attempt) == "rank 2 hung at step 7 and could not write its stacks; the other ranks waited for it"
    write(attempt, (7, IN_GLOO), (7, []), (7, IN_GLOO))
    assert message_of(attempt).startswith("rank 1 hung at step 7 and could not write its stacks")


def test_a_rank_that_had_no_time_to_write(attempt: Attempt) -> None:
    """It had its last heartbeat later than the one that hung, and was ended with that one before its own time was
    up."""
    write(attempt, (7, AT_DEVICE["tolist"]), (8, []), (8, []))
    assert message_of(attempt).startswith("rank 0 hung at step 7 in _log (loop.py:211)")


def test_a_rank_that_failed_did_not_hang(attempt: Attempt) -> None:
    write(attempt, (7, IN_GLOO), (7, []), (7, IN_GLOO))
    RankError(rank=1, node="n1", type="ValueError", message="no", step=7).write(attempt.error(1))
    assert "which one first" in message_of(attempt)


def test_ranks_that_hang_at_one_place_are_not_told_apart(attempt: Attempt) -> None:
    write(attempt, (7, AT_DEVICE["item"]), (7, AT_DEVICE["item"]))
    assert message_of(attempt) == (
        "the ranks hung, but it is not known which one first; their stacks are in "
        "000/rank*.stacks")
    (attempt.path / "nccl-flight-recorder-rank0").write_bytes(b"")
    assert message_of(attempt).endswith("; torch's flight recorder is in 000/nccl-flight-recorder-rank*")


def test_a_single_rank(attempt: Attempt) -> None:
    write(attempt, (7, IN_LOSS))
    assert message_of(attempt) == "rank 0 hung at step 7 in losses (my_loss.py:12); its stacks are in 000/rank0.stacks"


def test_a_line_that_has_called_different_functions_orders_nothing(attempt: Attempt) -> None:
    write(attempt, (7, [*STEP, "/home/me/a.py 1 first"]), (7, [*STEP, "/home/me/b.py 9 second"]))
    assert "is not known" in message_of(attempt)


def test_all_in_collectives_is_not_known(attempt: Attempt) -> None:
    write(attempt, (7, IN_GLOO), (7, IN_GLOO))
    assert "is not known" in message_of(attempt)
