"""What squeue's reasons mean, and what to do."""

from __future__ import annotations

import pytest

from drumbeat.launch.slurm.reasons import REASONS, explain_reason


@pytest.mark.parametrize(("reason", "words"), [
    ("QOSGrpCpuLimit", "its QOS limits the cores of all its jobs together"),
    ("AssocMaxSubmitJobLimit", "its account limits the jobs in the queue of each user"),
    ("QOSMaxNodePerJobLimit", "it asks for more nodes than its QOS allows for a job"),
    ("ReqNodeNotAvail, UnavailableNodes:n1", "a node that it needs is down, drained or reserved (UnavailableNodes:n1)"),
    ("(Nodes required for job are DOWN)", "SLURM's reason is Nodes required for job are DOWN"),
    ("launch_failed_requeued_held", "it could not be started on its node, and SLURM holds it"),
])
def test_the_meaning_of_reasons(reason: str, words: str) -> None:
    assert explain_reason(reason)[0] == words


def test_an_unknown_reason() -> None:
    assert "JOB" not in explain_reason("Weather")[1], "which would be taken for the job's id"


def test_every_reason_has_a_meaning_and_a_remedy() -> None:
    assert all(words and remedy for words, remedy in REASONS.values())
