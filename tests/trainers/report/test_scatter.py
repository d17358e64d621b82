"""Scatter charts."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from drumbeat.trainers.report.charts import LEFT, RIGHT, WIDTH
from drumbeat.trainers.report.scatter import Dot, scatter


def places(svg: str) -> list[float]:
    ElementTree.fromstring(svg)
    return [float(x) for x in re.findall(r'<circle class="c[01]" cx="([\d.]+)"', svg)]


def test_large_ratios_are_on_a_logarithmic_scale() -> None:
    first, middle, last = places(scatter("lr", [Dot("1e-4", 0.5, ""), Dot("1e-2", 0.4, ""), Dot("1", 0.6, "")]))
    assert abs((first + last) / 2 - middle) < 0.2
    assert LEFT < first < last < WIDTH - RIGHT
    first, middle, last = places(scatter("n", [Dot("-1", 0.5, ""), Dot("0", 0.4, ""), Dot("100", 0.6, "")]))
    assert middle - first < 10 < last - middle


def test_texts_are_beside_each_other_and_escaped() -> None:
    svg = scatter("a & b", [Dot("<x>", 0.5, "trial 0: <best>", best=True), Dot("y", 0.5, ""), Dot("<x>", 0.7, "")])
    assert len(set(places(svg))) == 2
    assert "&lt;x&gt;" in svg and "trial 0: &lt;best&gt;" in svg
    assert 'aria-label="a &amp; b: 3 runs from 0.5 to 0.7"' in svg


def test_a_single_run_and_a_single_value() -> None:
    assert len(places(scatter("lr", [Dot("0", 0.0, "")]))) == 1
    assert len(set(places(scatter("lr", [Dot("3", 1.0, ""), Dot("3.0", 2.0, "")])))) == 1
