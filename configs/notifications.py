"""The events of a run that can be reported, and what `notify` may say."""

from __future__ import annotations

import re
from collections.abc import Iterator

from drumbeat.configs.errors import Fault, nearest
from drumbeat.configs.operation import Notify
from drumbeat.configs.secrets import holds_secret

EVENTS = ("finished", "failed", "paused", "waiting")
VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def notify_faults(notify: Notify) -> Iterator[Fault]:
    """What is wrong with the section. An address is not repeated: it may hold a password."""
    for number, name in enumerate(notify.to):
        if not VARIABLE.fullmatch(name):
            yield Fault(what="notify.to has names of environment variables, and this is none: an address holds a "
                             "password or a key, and would be in files of the run", where=f"notify.to[{number}]",
                        remedy="export MY_ADDRESS=mailto://...; and name the variable: notify.to=[MY_ADDRESS]")
    if holds_secret(notify.command):
        yield Fault(what="notify.command probably holds a password or a key", where="notify.command",
                    remedy="Let it read an environment variable, which processes of the run inherit.")
    for number, event in enumerate(notify.on):
        if event not in EVENTS:
            yield Fault(what=f"there is no event '{event}'", where=f"notify.on[{number}]", given=event,
                        remedy=nearest(event, EVENTS))
