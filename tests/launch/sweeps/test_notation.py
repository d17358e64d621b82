"""What KEY=VALUE means in a sweep."""

from __future__ import annotations

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.launch.sweeps.notation import Draw, fraction, parse_words, section, values_of


@pytest.mark.parametrize(("text", "values"), [
    ("1e-3,3e-4", ("1e-3", "3e-4")),
    ("0..4", ("0", "1", "2", "3", "4")),
    ("0..10..5", ("0", "5", "10")),
    ("5..1..-2", ("5", "3", "1")),
    ("0.1..0.3..0.1", ("0.1", "0.2", "0.3")),
    ("1, 2, 8..10", ("1", "2", "8", "9", "10")),
    ("geomspace(1e-4,1e-1,4)", ("0.0001", "0.001", "0.01", "0.1")),
    ("linspace(0,1,3)", ("0", "0.5", "1")),
    ("linspace(7,9,1)", ("7",)),
    ("0,geomspace(1,100,3)", ("0", "1", "10", "100")),
    ("[1,2]", ("[1,2]",)),
    ("[1,2],[3,4]", ("[1,2]", "[3,4]")),
    ("{a: 1, b: 2}", ("{a: 1, b: 2}",)),
    ("'a,b',c", ("'a,b'", "c")),
    ("it's, so", ("it's", "so")),
    ("../data", ("../data",)),
    ("1.5", ("1.5",)),
    ("", ("",)),
    ("f(x)", ("f(x)",)),
])
def test_lists_and_ranges(text: str, values: tuple[str, ...]) -> None:
    assert values_of("key", text) == values


@pytest.mark.parametrize(("text", "draw"), [
    ("loguniform(1e-5,1e-1)", Draw("loguniform", ("1e-5", "1e-1"))),
    ("choice(a,[1,2],3..4)", Draw("choice", ("a", "[1,2]", "3", "4"))),
    ("randint(1,3)", Draw("randint", ("1", "3"))),
])
def test_distributions(text: str, draw: Draw) -> None:
    assert values_of("key", text) == draw


@pytest.mark.parametrize(("text", "what"), [
    ("4..0", "the range of key is empty"),
    ("0..4..-1", "the range of key is empty"),
    ("0..4..0", "the range of key is empty"),
    ("0.1..0.5", "the range of key has no step"),
    ("linspace(0,1,0)", "the range of key is empty"),
    ("linspace(0,1)", "linspace has 3 numbers"),
    ("geomspace(0,1,3)", "the ends of a geomspace are greater than 0"),
    ("loguniform(0,1)", "the range of key is empty"),
    ("uniform(2,1)", "the range of key is empty"),
    ("randint(0.5,1)", "the range of key is empty"),
    ("uniform(a,b)", "uniform has 2 numbers"),
    ("choice()", "the choice of key is empty"),
    ("1,uniform(0,1)", "uniform(...) cannot be one of several values"),
    ("loguniforn(1,2)", "there is no loguniforn(...)"),
    ("1,2,1", "key has the value 1 twice"),
    ("1,2,", "key has a value without text"),
    ("0..1e400..1", "the range of key is empty"),
    ("0..9999999", "key has 10,000,000 values"),
])
def test_mistakes(text: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        values_of("key", text)
    (fault,) = caught.value.faults
    assert (fault.what, fault.given.startswith("key=")) == (what, True)


def test_the_ends_of_distributions() -> None:
    almost = 1 - 2**-53
    assert (Draw("uniform", ("0", "2")).at(0.5), Draw("loguniform", ("1e-4", "1")).at(0.5)) == ("1", "0.01")
    assert [Draw("randint", ("1", "3")).at(at) for at in (0.0, 0.4, almost)] == ["1", "2", "3"]
    assert [Draw("choice", ("a", "b")).at(at) for at in (0.0, 0.5, almost)] == ["a", "b", "b"]


def test_a_draw_depends_on_seed_key_and_number_alone() -> None:
    """The values are those that sweeps have had since this was written: old sweeps can be extended."""
    assert (fraction(0, "lr", 0), fraction(1, "lr", 0), fraction(0, "lr", 1), fraction(0, "wd", 0)) == (
        0.22418300011728343, 0.3397264769640178, 0.0026587381413663014, 0.10437789909502726)
    assert abs(sum(fraction(3, "lr", number) for number in range(1000)) / 1000 - 0.5) < 0.03


def test_plain_words_and_varied_ones() -> None:
    assert parse_words(["batch_size=8", "seed=0..1", "a=[1,2]", "b=x,y"]) == (
        ["batch_size=8", "a=[1,2]"], {"seed": "0..1", "b": "x,y"})
    with pytest.raises(ConfigError) as caught:
        parse_words(["seed=1..0", "a=uniform(1)"])
    assert len(caught.value.faults) == 2


def test_the_section_of_a_config() -> None:
    assert section({"seed": "0..4", "optimizer": {"lr": [1e-3, 1e-4], "betas": [[0.9, 0.99], [0.8, 0.99]]}}) == {
        "seed": "0..4", "optimizer.lr": "0.001,0.0001", "optimizer.betas": "[0.9, 0.99],[0.8, 0.99]"}
