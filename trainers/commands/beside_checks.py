"""Checks what works beside a run before it is submitted: its trackers, and whom to tell."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.operation import Notify
from drumbeat.configs.schema import Config
from drumbeat.configs.trackers import trackers
from drumbeat.configs.yaml_text import inline
from drumbeat.trainers.target import instantiate
from drumbeat.trainers.trackers.tracker import Tracker


def beside_faults(config: Config) -> Iterator[Fault]:
    """What the trackers and notifications lack: packages, keys, addresses. Neither a server is asked nor a slow package
    imported."""
    for name, target in trackers(config.tracking.to).items():
        try:
            tracker = instantiate(target, "tracking.to")
        except PreflightError as error:
            yield from error.faults
            continue
        if not isinstance(tracker, Tracker):
            yield Fault(what="a tracker is a subclass of drumbeat.trainers.trackers.Tracker", where="tracking.to",
                        given=inline(target))
        elif package := tracker.missing():
            yield Fault(what=f"the package {package} is not installed", where="tracking.to", given=name,
                        remedy=f"{tracker.install}\nOr without it: tracking.to=[]")
        elif (problem := tracker.problem())[0]:
            yield Fault(what=problem[0], where="tracking.to", given=name, remedy=problem[1])
    yield from _notify_faults(config.notify)


def _notify_faults(notify: Notify) -> Iterator[Fault]:
    if notify.to and importlib.util.find_spec("apprise") is None:
        yield Fault(what="the package apprise is not installed", where="notify.to", given=inline(notify.to),
                    remedy="pip install 'drumbeat[notify]'")
        return
    for name in notify.to:
        import apprise

        address = os.environ.get(name, "")
        if not address:
            yield Fault(what=f"the environment variable {name} is not set", where="notify.to", given=inline(notify.to),
                        remedy=f"export {name}=mailto://...   (addresses: appriseit.com/services)")
        elif not apprise.Apprise().add(address):
            yield Fault(what=f"what {name} holds is not an address for Apprise", where="notify.to",
                        given=inline(notify.to), remedy="See appriseit.com/services.")
