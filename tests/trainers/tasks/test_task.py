"""The results of an evaluation."""

from __future__ import annotations

import torch

from drumbeat.trainers.tasks import Results


def test_results_know_the_index_of_each_sample_in_the_set() -> None:
    losses, outputs, targets = torch.zeros(3), torch.zeros(3, 2), torch.zeros(3)
    assert Results(losses, outputs, targets).indices == [0, 1, 2]
    assert Results(losses, outputs, targets, torch.tensor([0, 4, 7])).indices == [0, 4, 7]
