"""The trackers that a config names: `tracking.to`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drumbeat.configs.errors import Fault, nearest
from drumbeat.configs.layers import leaves
from drumbeat.configs.secrets import holds_secret, literal_secrets
from drumbeat.configs.yaml_text import inline

KNOWN = {"mlflow": "drumbeat.trainers.trackers.MLflow", "trackio": "drumbeat.trainers.trackers.Trackio",
         "wandb": "drumbeat.trainers.trackers.WandB"}
"""The targets that have a short name."""


def trackers(to: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """The target of each tracker by its name: that of the list, or of its class in lower case. Two of one name get
    numbers: mlflow, mlflow-2."""
    found: dict[str, Mapping[str, Any]] = {}
    for item in to:
        target = item if isinstance(item, Mapping) else {"_target_": KNOWN.get(str(item), str(item))}
        name = str(target.get("_target_", "")).rpartition(".")[2].lower()
        count = sum(known.partition("-")[0] == name for known in found)
        found[f"{name}-{count + 1}" if count else name] = target
    return found


def tracker_faults(to: Sequence[Any]) -> Iterator[Fault]:
    """What is neither a known name nor a target, and keys, which would be in files of the run. They are not
    repeated."""
    for number, item in enumerate(to):
        values = item if isinstance(item, Mapping) else {}
        for key in dict.fromkeys([*literal_secrets(values), *(key for key, value in leaves(values)
                                                              if holds_secret(str(value)))]):
            yield Fault(what=f"{key} of a tracker probably holds a password or a key, and would be in files of the run",
                        where=f"tracking.to[{number}]",
                        remedy="Let the tracker read it from an environment variable, or refer to one: "
                               f"{key}: ${{oc.env:NAME}}")
        if not isinstance(item, Mapping) and str(item) not in KNOWN:
            yield Fault(what=f"there is no tracker {inline(item)}", where=f"tracking.to[{number}]",
                        given=inline(list(to)), remedy=f"{nearest(str(item), KNOWN)}\nA tracker of your own is a "
                                                       "target: {_target_: my_lab.Tracker}")
