"""`python -m benchmarks`: every part is a module, and figures go through JSON into the page."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from benchmarks.__main__ import PARTS, README, Figures, Report, with_table
from benchmarks.report import Row

ROW = Row(name="a step", unit="us", ours=300, peer=200, peer_name="bare loop", ratio=2 / 3, wanted=0.8)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_a_module(part: str) -> None:
    assert find_spec(f"benchmarks.{part}")


def test_a_report_goes_through_json_into_the_page() -> None:
    report = Report(machine="2 cores", parts={
        "loop": Figures(seconds=90, rows=(ROW,), limit="Limit: the arithmetic."),
        "data": Figures(seconds=30, error="not done within 30 s")})
    assert Report.read(report.json()) == report
    others = ", ".join(name for name in PARTS if name not in report.parts)
    page = with_table("before\n<!-- figures -->\nold\n<!-- end -->\nafter\n", report)
    assert page == f"""before
<!-- figures -->

On 2 cores, in 2 minutes. Without {others}.

### `python -m benchmarks.loop`

| | unit | Drumbeat | peer | name of the peer | ratio | wanted |
|---|---|---|---|---|---|---|
| a step | us | 300 | 200 | bare loop | 0.667 | >= 0.80 (missed) |

Limit: the arithmetic.

### `python -m benchmarks.data`

Not measured: not done within 30 s

<!-- end -->
after
"""


def test_the_page_has_a_place_for_the_table() -> None:
    assert with_table(README.read_text(), Report(machine="2 cores")).count("On 2 cores") == 1
