"""What a drill has shown: the lines, the conclusion and the exit code."""

from __future__ import annotations

from drumbeat.launch.drill.outcome import Injection, conclusion, exit_code, line


def test_the_exit_code_distinguishes_lost_from_not_proven() -> None:
    done, missing = Injection(name="rank", description="SIGKILL to a rank"), Injection(
        name="disk", description="disk full while saving", not_injected="the run finished before")
    assert exit_code([], [done]) == 0
    assert exit_code(["x"], [done, missing]) == 1
    assert exit_code([], [done, missing]) == 3
    assert conclusion([], [done, missing], []) == [
        "NOT ALL PROVEN: nothing was lost, but not all faults were injected", "proven         SIGKILL to a rank",
        "not proven     disk full while saving: the run finished before"]
    assert " ".join(line(2, missing).split()) == "2 disk full while saving not injected: the run finished before"
