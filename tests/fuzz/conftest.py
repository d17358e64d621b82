"""How much is fuzzed: a few examples, the same each time; with DRUMBEAT_FUZZ=long, as `make test-fuzz` sets it, random
ones for minutes, with bounded time for each and bounded memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings

COMMON = {"database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("small", max_examples=4, derandomize=True, deadline=None, **COMMON)
settings.register_profile("long", max_examples=1500, deadline=timedelta(seconds=20), print_blob=True, **COMMON)
PROFILE = os.environ.get("DRUMBEAT_FUZZ", "small")
settings.load_profile(PROFILE)

MEMORY = 8 << 30
"""Bytes of address space that a process may use beyond what it has at the start, if fuzzed for long."""


@pytest.fixture(autouse=True, scope="session")
def bounded_memory() -> Iterator[None]:
    """Whoever allocates what a hostile header claims gets a MemoryError, which no test expects."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if PROFILE == "long":
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
