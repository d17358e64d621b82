"""Facts: arguments of the model that follow from the data, written `classes: from_data` in the config.

    model: {_target_: drumbeat.models.LSTM, vocab_size: from_data, classes: from_data, padding_idx: from_data}

An argument `from_data` gets the training set's fact of the same name: `classes`, the number of its classes, labels or
values, which other libraries call `num_classes` or `num_labels`, or an item of its attribute `facts`. A checkpoint
contains the facts, so the model can be built again without the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from drumbeat.configs.errors import Fault, PreflightError, nearest
from drumbeat.configs.preconditions import FROM_DATA, innermost
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Samples

SAME = {"num_classes": "classes", "num_labels": "classes"}
"""Other names of a fact: those of torchvision and timm, and of Hugging Face."""


def facts_of(samples: Samples) -> dict[str, Any]:
    """The facts of a training set by name."""
    names = next((names for name in ("classes", "value_names") if (names := getattr(samples, name, []))), [])
    return {**({"classes": len(names)} if names else {}), **getattr(samples, "facts", {})}


def with_facts(config: Config, facts: Mapping[str, Any]) -> Config:
    """The config with all arguments `from_data` of the model replaced by facts. Raises `PreflightError` for a fact that
    is missing."""
    faults: list[Fault] = []

    def filled(node: Any, key: str, name: str) -> Any:
        if isinstance(node, Mapping):
            return {inner: filled(value, f"{key}.{inner}", inner) for inner, value in node.items()}
        if isinstance(node, list | tuple):
            return [filled(value, f"{key}[{number}]", name) for number, value in enumerate(node)]
        if node != FROM_DATA:
            return node
        fact = name if name in facts else SAME.get(name, name)
        if fact not in facts:
            kind = innermost(config.data.train).get("_target_", "none")
            faults.append(Fault(what=f"the training set has no fact '{name}'", where=key,
                                given=f"{name}: {node}, and the dataset is {kind}",
                                remedy=f"{nearest(name, facts)} Or write the value itself." if facts else
                                "Write the value itself."))
        return facts.get(fact)

    model = filled(config.model, "model", "model")
    if faults:
        raise PreflightError(*faults)
    return dataclasses.replace(config, model=model)
