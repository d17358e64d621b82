"""What a model is sized by and only the data knows: `classes: from_data` in a config's model.

    model: {_target_: drumbeat.models.LSTM, vocab_size: from_data, classes: from_data, padding_idx: from_data}

An argument that says `from_data` gets the training set's fact of the same name: `classes`, from its names of classes,
labels or values, and whatever else its attribute `facts` holds. A checkpoint keeps the facts, so that the model can be
built again without the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from drumbeat.configs.errors import Fault, PreflightError, nearest
from drumbeat.configs.preconditions import FROM_DATA, innermost
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Samples


def facts_of(samples: Samples) -> dict[str, Any]:
    """What a training set tells about itself, by name."""
    names = next((names for name in ("classes", "value_names") if (names := getattr(samples, name, []))), [])
    return {**({"classes": len(names)} if names else {}), **getattr(samples, "facts", {})}


def with_facts(config: Config, facts: Mapping[str, Any]) -> Config:
    """The config with the model's arguments that say `from_data` filled in. Raises `PreflightError` for a fact that is
    not among them."""
    faults: list[Fault] = []

    def filled(node: Any, key: str, name: str) -> Any:
        if isinstance(node, Mapping):
            return {inner: filled(value, f"{key}.{inner}", inner) for inner, value in node.items()}
        if isinstance(node, list | tuple):
            return [filled(value, f"{key}[{number}]", name) for number, value in enumerate(node)]
        if node != FROM_DATA:
            return node
        if name not in facts:
            kind = innermost(config.data.train).get("_target_", "none")
            faults.append(Fault(what=f"the training set does not tell its '{name}'", where=key,
                                given=f"{name}: {node}, and the set is a {kind}",
                                remedy=f"{nearest(name, facts)} Or write the number itself." if facts else
                                "Write the number itself."))
        return facts.get(name)

    model = filled(config.model, "model", "model")
    if faults:
        raise PreflightError(*faults)
    return dataclasses.replace(config, model=model)
