"""Layers: which value wins, and where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.layers import (
    ROOT,
    Layer,
    assignment_layer,
    file_layers,
    flag_layer,
    leaves,
    left_out,
    overlay,
    parent,
    short,
)


def layer(origin: str, **values: object) -> Layer:
    return Layer(values=values, origin=origin)


def test_later_layers_win_leaf_by_leaf() -> None:
    values, places = overlay([layer("a", x={"p": 1, "q": 2}, y=3), layer("b", x={"q": 4})])
    assert values == {"x": {"p": 1, "q": 4}, "y": 3}
    assert {key: place.origin for key, place in places.items()} == {"x.p": "a", "x.q": "b", "y": "a"}


def test_lists_are_replaced_whole_and_an_empty_section_empties() -> None:
    values, places = overlay([layer("a", x=[1, 2], y={"p": 1}, z={"p": 1}), layer("b", x=[3], y={}),
                              layer("c", z={}), layer("d", z={"q": 2})])
    assert values == {"x": [3], "y": {}, "z": {"q": 2}}
    assert {key: place.origin for key, place in places.items()} == {"x": "b", "y": "b", "z.q": "d"}


def test_a_new_target_drops_the_arguments_of_the_old_one() -> None:
    base = layer("a", model={"_target_": "nets.A", "width": 3})
    assert overlay([base, layer("b", model={"_target_": "nets.B", "depth": 2})])[0] == {
        "model": {"_target_": "nets.B", "depth": 2}}
    assert overlay([base, layer("b", model={"_target_": "nets.A", "depth": 2})])[0] == {
        "model": {"_target_": "nets.A", "width": 3, "depth": 2}}


@pytest.mark.parametrize(("layers", "notes"), [
    ([{"model": {"_target_": "nets.A", "width": 3, "depth": 1}}, {"model": {"_target_": "nets.B", "depth": 2}}],
     ["model is now nets.B: width=3 from layer 0 was left out; set it again if it is meant"]),
    ([{"model": {"_target_": "nets.A", "width": 3}}, {"model": {"_target_": "nets.B"}}, {"model": {"width": 4}}], []),
    ([{"model": {"_target_": "nets.A", "width": 3}}, {"model": {"_target_": "nets.A"}}], []),
    ([{"model": {"_target_": "nets.A", "width": 3}}, {"model": {}}], []),
    ([{"model": {"_target_": "nets.A"}}, {"model": {"depth": 2, "width": 3}}, {"model": {"_target_": "nets.B"}},
      {"model": {"_target_": "nets.C", "width": 5}}],
     ["model is now nets.C: depth=2 from layer 1 was left out; set it again if it is meant"]),
    ([{"task": {"loss": {"_target_": "losses.L"}, "k": 5}}, {"task": {"_target_": "tasks.T"}}],
     ["task is now tasks.T: loss, k=5 from layer 0 were left out; set them again if they are meant"]),
])
def test_arguments_that_a_new_target_drops_are_reported(layers: list[dict[str, object]], notes: list[str]) -> None:
    assert left_out([layer(f"layer {number}", **values) for number, values in enumerate(layers)]) == notes


def test_the_layers_themselves_are_not_changed() -> None:
    first, second = layer("a", x={"p": 1}), layer("b", x={"q": {}})
    overlay([first, second, layer("c", x={"p": 2, "q": {"r": 3}})])
    assert (first.values, second.values) == ({"x": {"p": 1}}, {"x": {"q": {}}})


def test_single_items_of_a_list_cannot_be_set() -> None:
    with pytest.raises(ConfigError, match="x is a list, and single items of it cannot be set"):
        overlay([layer("a", x=[{"size": 1}]), assignment_layer("x.0.size=2")])


@pytest.mark.parametrize(("text", "values"), [
    ("a=1", {"a": 1}), ("a.b.c=1e-6", {"a": {"b": {"c": 1e-6}}}), ("a=", {"a": None}), ("a=x=y", {"a": "x=y"}),
    ("a=[1, 2]", {"a": [1, 2]}), ("a={b: 1}", {"a": {"b": 1}}), ("a='1'", {"a": "1"}), ("a=null", {"a": None}),
])
def test_assignments_are_read_as_yaml(text: str, values: object) -> None:
    assert assignment_layer(text).values == values


@pytest.mark.parametrize("text", ["a", "=1", ".=1", "a..b=1", ".a=1", "a.=1", "a=[", "a={b", "a='", "a=: :"])
def test_malformed_assignments(text: str) -> None:
    with pytest.raises(ConfigError):
        assignment_layer(text)


def test_a_flag_names_itself() -> None:
    flag = flag_layer("launch.cpus_per_rank", 2)
    assert flag == Layer(values={"launch": {"cpus_per_rank": 2}}, origin="--cpus-per-rank")


def test_bases_come_first_and_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text("x: 1\n")
    (tmp_path / "sub" / "b.yaml").write_text("base: ../a.yaml\nx: 2\n")
    (tmp_path / "c.yaml").write_text("base: sub/b.yaml\n\ny: 3\n")
    monkeypatch.chdir(tmp_path)
    layers = file_layers(Path("c.yaml"))
    assert [each.origin for each in layers] == ["a.yaml", "sub/b.yaml", "c.yaml"]
    assert [each.values for each in layers] == [{"x": 1}, {"x": 2}, {"y": 3}]
    assert layers[2].where("y.deeper[3].still") == "c.yaml:3"
    assert layers[2].where("z") == "c.yaml"


def test_leaves_and_parents() -> None:
    assert dict(leaves({"a": {"b": 1, "c": {}}, "d": [{"e": 1}]})) == {"a.b": 1, "a.c": {}, "d": [{"e": 1}]}
    assert [parent(key) for key in ("a.b[0].c", "a.b[0]", "a.b", "a", "")] == ["a.b[0]", "a.b", "a", "", ""]


def test_short_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "x" / "y.yaml") == "x/y.yaml"
    assert short(ROOT / "configs" / "resnet50_xray.yaml") == "configs/resnet50_xray.yaml"
    assert short(Path("/elsewhere/y.yaml")) == "/elsewhere/y.yaml"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "resnet50_xray.yaml").touch()  # now the short name would mean another file
    assert short(ROOT / "configs" / "resnet50_xray.yaml") == str(ROOT / "configs" / "resnet50_xray.yaml")
