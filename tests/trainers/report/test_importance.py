"""How much each key of a sweep matters."""

from __future__ import annotations

import math
import random

import pytest

from drumbeat.trainers.report.importance import importance


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_key_that_decides(mode: str) -> None:
    pytest.importorskip("optuna")
    draws = random.Random(0)
    rates = [10 ** draws.uniform(-4, -1) for _ in range(40)]
    values = {"lr": list(map(str, rates)), "act": [draws.choice(["relu", "gelu"]) for _ in rates]}
    sign = 1 if mode == "min" else -1
    found = importance(values, [sign * abs(math.log10(rate) + 2.5) for rate in rates], mode)
    assert found["lr"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


def test_few_trials_say_nothing() -> None:
    assert importance({"lr": ["1", "2"], "seed": ["0", "1"]}, [0.1, 0.2], "min") == {}
    assert importance({"lr": list("12345678")}, [0.1] * 8, "min") == {}
