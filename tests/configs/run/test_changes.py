"""What a resume may change: every key has a rule, and a run says up to where it is exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drumbeat.configs.layers import Layer, leaves
from drumbeat.configs.load import build_config, plain
from drumbeat.configs.run.changes import (
    RULES,
    changes_text,
    differences,
    exactness,
    kept,
    refusals,
    rule_of,
    taken,
    without_best,
)
from drumbeat.configs.run.checkpoint_records import ConfigChange, Progress
from drumbeat.configs.schema import Config

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1}
VALUES: dict[str, Any] = {
    "name": "small", "batch_size": 8, "model": {"_target_": "nets.Net", "token": "hf_abc"},
    "data": {"train": {"_target_": "sets.Folder", "root": "/pictures"}},
    "phases": {name: {"epochs": 2, "optimizer": SGD} for name in ("head", "body", "all")}}


def config(**changes: Any) -> Config:
    """A config with changes to dotted keys, in which __ stands for the dot."""
    layers = [Layer(values=VALUES, origin="test")]
    for key, value in changes.items():
        nested: Any = value
        for part in reversed(key.split("__")):
            nested = {part: nested}
        layers.append(Layer(values=nested, origin="test"))
    return build_config(layers)


IN_BODY = Progress(step=9, phase=1, phase_step=2)


def test_every_key_has_a_rule_and_every_rule_a_key() -> None:
    keys = [key for key, _ in leaves(plain(config()))]
    more = ["phases.head.optimizer.lr", "phases.head.scheduler.gamma", "data.mix.alpha", "data.root",
            "reference.curves", "notify.on", "initialize.weights", "phases.head.average._target_",
            "phases.head.groups.norms.match"]
    used = {rule_of(key) for key in [*keys, *more]}
    assert [rule.keys for rule in RULES if rule not in used] == ["phases.*"]
    assert rule_of("phases.new").effect == "later"
    with pytest.raises(StopIteration):
        rule_of("unknown")


@pytest.mark.parametrize(("changes", "refused"), [
    ({"phases__body__optimizer": {"lr": 0.01}, "batch_size": 4, "on_nonfinite": "skip", "launch__restarts": 1}, []),
    ({"phases__body__epochs": 5, "phases__all__freeze": ["x"], "data__on_error": "skip"}, []),
    ({"phases__all__optimizer": {"_target_": "torch.optim.Adam"}}, []),
    ({"phases__new": {"epochs": 1, "optimizer": SGD}}, []),
    ({"phases__all": None}, []),
    ({"phases__body__optimizer": {"_target_": "torch.optim.Adam"}}, ["phases.body.optimizer._target_"]),
    ({"phases__body__freeze": ["x"]}, ["phases.body.freeze"]),
    ({"phases__all__groups": {"norms": {"ndim": [1]}}, "phases__body__layer_decay": 0.5}, []),
    ({"phases__body__groups": {"norms": {"ndim": [1]}}, "phases__body__layers": ["*"]},
     ["phases.body.groups.norms.match", "phases.body.groups.norms.ndim", "phases.body.layers"]),
    ({"phases__body": None}, ["phases.body"]),
    ({"phases__head__epochs": 5}, ["phases.head.epochs"]),
    ({"phases__head": None}, ["phases.head"]),
    ({"seed": 1, "name": "x", "model__width": 3}, ["name", "seed", "model.width"]),
    ({"data__train__root": "/others", "data__shuffle": False}, ["data.train.root", "data.shuffle"]),
    ({"data__root": "/others", "data__train__root": "/others"}, []),
    ({"evaluation__monitor": "accuracy", "evaluation__batch_size": 3}, ["evaluation.monitor"]),
])
def test_what_changes_the_meaning_of_what_is_saved_is_refused(changes: dict[str, Any], refused: list[str]) -> None:
    """In the second of three phases."""
    after = config(**changes)
    after_phases = {name: phase for name, phase in after.phases.items() if phase}
    faults = refusals(config(), Config(**{**vars(after), "phases": after_phases}), IN_BODY)
    assert {fault.where for fault in faults} == set(refused)
    assert all("cannot change on resume: " in fault.what and "drumbeat rerun" in fault.remedy for fault in faults)


def test_before_the_first_checkpoint_no_phase_has_begun() -> None:
    assert refusals(config(), config(phases__head__freeze=["x"]), None) == []
    (fault,) = refusals(config(), config(seed=2), None)
    assert fault.where == "seed"


def test_a_secret_is_neither_kept_nor_shown() -> None:
    assert "hf_abc" not in str(kept(config(phases__head__optimizer={"token": "hf_abc"})))
    (fault,) = refusals(config(), config(model__token="hf_def"), IN_BODY)
    assert "hf_" not in str(fault)


def test_a_resume_notes_what_is_not_as_it_was_saved() -> None:
    """Not what the result does not depend on, and nothing twice."""
    before, after = config(), config(batch_size=4, launch__restarts=9, watchdog__timeout_minutes=3)
    progress = taken(IN_BODY, kept(before), after, attempt=2, user="me", time=3.0)
    change = ConfigChange(key="batch_size", old=8, new=4, step=9, attempt=2, user="me", time=3.0)
    assert progress.changes == (change,)
    assert taken(progress, kept(after), after, attempt=3, user="me", time=4.0) == progress
    assert taken(IN_BODY, {}, after, attempt=2, user="me", time=3.0) == IN_BODY


def test_sections_are_compared_by_their_values() -> None:
    assert differences({"a": {}, "b": {"c": 1}}, {"a": {"x": 1}, "b": {"c": 1}}) == [("a.x", None, 1)]
    assert differences({"a": {"x": 1}}, {"a": {}}) == [("a.x", 1, None)]
    assert differences({"a": {}}, {}) == []


def test_up_to_where_a_run_is_exact() -> None:
    def change(key: str, old: Any, new: Any, step: int) -> ConfigChange:
        return ConfigChange(key=key, old=old, new=new, step=step, attempt=1, user="me", time=1.0)

    first = change("phases.train.optimizer.lr", 0.1, 0.01, 1200)
    assert exactness([]) == ""
    assert exactness([first]) == (
        "exact up to step 1,200; then phases.train.optimizer.lr changed from 0.1 to 0.01 by resume")
    assert exactness([first, change("batch_size", 8, 4, 2400), change("precision", "bf16", "fp32", 2400)]) == (
        "exact up to step 1,200; then phases.train.optimizer.lr changed from 0.1 to 0.01 by resume; at step 2,400, "
        "batch_size changed from 8 to 4, precision changed from bf16 to fp32 by resume")


def test_best_weights_that_are_lost_are_no_longer_the_best() -> None:
    progress = without_best(replace(IN_BODY, best={"step": 3, "loss": 0.1}), attempt=1, user="me", time=1.0)
    assert progress.best == {}
    assert exactness(progress.changes) == "exact up to step 9; then the best weights, of step 3, were lost"


def test_many_changes_are_counted() -> None:
    text = changes_text([(f"key{number}", None, number) for number in range(9)])
    assert text.endswith("key3 changed from nothing to 3, 5 more")
