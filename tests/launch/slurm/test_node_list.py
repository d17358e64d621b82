"""SLURM's lists of nodes; tests/fuzz/test_slurm.py tries random ones."""

from __future__ import annotations

import pytest

from drumbeat.launch.slurm.node_list import node_names


@pytest.mark.parametrize(("text", "names"), [
    ("", []),
    ("n1", ["n1"]),
    ("n[1-2]", ["n1", "n2"]),
    ("n[1-2,07],gpu-3", ["n1", "n2", "n07", "gpu-3"]),
    ("rack[1-2]-n[08-10].site", [f"rack{rack}-n{node}.site" for rack in (1, 2) for node in ("08", "09", "10")]),
])
def test_the_nodes_of_a_job(text: str, names: list[str]) -> None:
    assert node_names(text) == names


@pytest.mark.parametrize("text", ["n[1-", "n[a-b]", "n[-]", "n[1-9999999999]", "n[\u00b2]", "n" + "[1-9]" * 400,
                                  "n[1-2][]"], ids=lambda text: text[:20])
def test_what_is_no_list_of_nodes(text: str) -> None:
    """Also one that would take all memory."""
    with pytest.raises(ValueError, match="list of"):
        node_names(text)
