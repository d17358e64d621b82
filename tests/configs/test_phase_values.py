"""Numbers of a phase that its optimizer, scheduler and average refer to: ${phase.steps}."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load, plain, read, reload
from drumbeat.configs.phase_values import ExpressionError, computed
from tests.configs.small import Write, faults

VALUES = {"steps": 1000, "epochs": 2.5, "steps_per_epoch": 15.625}


@pytest.mark.parametrize(("text", "number"), [
    ("${phase.steps}", 1000), ("${ phase.steps // 3 }", 333), ("${0.05 * phase.steps}", 50),
    ("${phase.steps - 2 * (phase.steps // 20)}", 900), ("${30 * phase.steps_per_epoch}", 469), ("${phase.epochs}", 2),
    ("${-phase.steps}", -1000)])
def test_a_result_is_a_whole_number(text: str, number: int) -> None:
    assert computed(text, VALUES) == number
    assert type(computed(text, VALUES)) is int


def test_a_power_is_not_rounded() -> None:
    assert computed("${1e5 ** (1 / phase.steps)}", VALUES) == 1e5 ** 0.001


@pytest.mark.parametrize(("text", "reason"), [
    ("${phase.step}", "a phase has no 'step'. Did you mean 'steps'?"),
    ("${1 / phase.steps}", "0.001 is rounded to 0"),
    ("${phase.steps} // 2", "put all of it between ${ and }"),
    ("${phase.steps +}", "'phase.steps +' is not a formula"),
    ("${phase.steps / 0}", "division by zero"), ("${9 ** 9 ** phase.steps}", "(34, 'Numerical result out of range')"),
    ("${open(phase.steps)}", "'open(phase.steps)' is not a number"),
    ("${phase.steps.real}", "'phase.steps.real' is not a number"), ("${'a' * phase.steps}", "''a'' is not a number"),
    ("${1e308 * 10 * phase.steps}", "it is not a real number"), ("${(-1) ** 0.5 * phase.steps}", "a real number")])
def test_what_cannot_be_computed(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        computed(text, VALUES)
    assert reason in str(caught.value)


SCHEDULER = "phases.head.scheduler={_target_: x.Y, total: '${phase.steps // 20}', parts: [{at: '${phase.steps}'}]}"


def test_the_config_of_a_run_keeps_the_reference(write: Write, tmp_path: Path) -> None:
    """So it is right for another batch size, and after a resume with more epochs."""
    loaded = load(write(), [SCHEDULER])
    expected = {"_target_": "x.Y", "total": "${phase.steps // 20}", "parts": [{"at": "${phase.steps}"}]}
    assert plain(loaded.config)["phases"]["head"]["scheduler"] == expected
    (tmp_path / "config.yaml").write_text(loaded.as_yaml())
    for again in (read(tmp_path / "config.yaml"), reload(tmp_path / "config.yaml", ["batch_size=3"]).config):
        assert plain(again)["phases"]["head"]["scheduler"] == expected


@pytest.mark.parametrize(("changes", "where", "what"), [
    (["model.width=${phase.steps}"], "model.width", "only its optimizer, groups, scheduler and average can"),
    (["data.transforms.batch=[{_target_: x, n: '${phase.steps}'}]"], "data.transforms.batch", "refers to a phase"),
    (["phases.head.scheduler={_target_: x.Y, n: '${phase.stepz}'}"], "phases.head.scheduler.n",
     "a phase has no 'stepz'. Did you mean 'steps'?"),
    (["phases.head.clip_norm=${phase.steps}"], "phases.head.clip_norm", "refers to a phase")])
def test_a_reference_that_cannot_be_is_found_with_the_config(write: Write, changes: list[str], where: str, what: str
                                                             ) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(), changes)
    (fault,) = faults(caught)
    assert what in fault.what
    assert where in fault.where
