"""What a profile says is what SLURM gets: YAML 1.1 does not make other values of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load, load_site
from drumbeat.configs.source_text import slurm_minutes
from tests.configs.small import BASE


def profile(folder: Path, text: str) -> dict[str, Any]:
    (folder / "site.yaml").write_text(text)
    return vars(load_site(str(folder / "site.yaml")))


@pytest.mark.parametrize(("line", "value"), [
    ("partition: on", "on"), ("partition: yes", "yes"), ("account: 0123", "0123"), ("account: 1e5", "1e5"),
    ("qos: 1_000", "1_000"), ("qos: 12:30", "12:30"), ("constraint: 0x1F", "0x1F"), ("account: null", None),
    ("account: true", "true"), ("account: '012'", "012"), ("signal_seconds: 0120", 120),
    ("mem_gb_per_node: 1.5e1", 15.0),
    ("setup: [off, 010]", ["off", "010"]),
    ("environment: {HF_HUB_OFFLINE: on, C: 1.10, D: no, ON: 1}",
     {"HF_HUB_OFFLINE": "on", "C": "1.10", "D": "no", "ON": "1"}),
    ("sbatch: {mem: 0, nice: 010, begin: 16:00, no-kill: off, exclusive: true, requeue: False}",
     {"mem": "0", "nice": "010", "begin": "16:00", "no-kill": "off", "exclusive": True, "requeue": False}),
])
def test_values_keep_their_text(tmp_path: Path, line: str, value: Any) -> None:
    assert profile(tmp_path, line)[line.partition(":")[0]] == value


def test_numbers_of_old_yaml_are_refused_where_a_number_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="signal_seconds must be a whole number"):
        profile(tmp_path, "signal_seconds: 2:00")


@pytest.mark.parametrize(("text", "minutes"), [
    ("90", 90), ("90:00", 90), ("90:01", 91), ("12:00:00", 720), ("1-0", 1440), ("1-12:30", 2190), ("1-0:0:1", 1441),
    ("0-0:0:61", 2), ("2-00:00:00", 2880), ("-1", None), ("1-", None), ("1:2:3:4", None),
    ("UNLIMITED", None), ("", None),
])
def test_times_as_slurm_writes_them(tmp_path: Path, text: str, minutes: int | None) -> None:
    assert slurm_minutes(text) == minutes
    for line in (f"time_minutes: {text}", f"time_minutes: '{text}'"):
        if minutes and minutes > 2:
            assert profile(tmp_path, line)["time_minutes"] == minutes
        else:
            with pytest.raises(ConfigError):
                profile(tmp_path, line)


@pytest.mark.parametrize("text", ["12h", "1 day", "[720]"])
def test_a_time_in_another_form_is_refused_with_the_forms(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        profile(tmp_path, f"time_minutes: {text}")
    assert "time_minutes must be a number of minutes, or a time as SLURM writes it" in str(error.value)
    assert "Half a day, for example, is 720, 12:00:00 or 0-12." in str(error.value)


@pytest.mark.parametrize("command", ["source ${HOME}/bin/activate", "export HOME=${HOME/home/work}", "echo ${A:-b}",
                                     r"echo \${A} \\${B}", "echo ${#A} ${A[@]} $((1 + 2)) $(date)", "${partition}"])
def test_variables_of_the_shell_in_commands(tmp_path: Path, command: str) -> None:
    """They are no references to other keys."""
    found = profile(tmp_path, f"partition: gpu\nsetup: ['{command}', b]\nprefix: '{command}'\nnode_check: '{command}'")
    assert (found["setup"], found["prefix"], found["node_check"]) == ([command, "b"], command, command)


def test_texts_of_a_config_keep_their_text(tmp_path: Path) -> None:
    """In the file and on the command line; the arguments of targets are read as YAML."""
    (tmp_path / "small.yaml").write_text(BASE.replace("name: small", "name: 0123"))
    words = ["evaluation.monitor=on", "phases.head.freeze=[no, 1e5]", "model.size=1e1"]
    config = load(tmp_path / "small.yaml", words).config
    assert (config.name, config.evaluation.monitor, config.phases["head"].freeze) == ("0123", "on", ["no", "1e5"])
    assert config.model["size"] == 10.0
