"""A profile cannot set what Drumbeat sets itself; it is told what to use instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load_site
from drumbeat.configs.sbatch_options import OWNED, owned_options


def refusal(folder: Path, text: str) -> str:
    (folder / "site.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_site(str(folder / "site.yaml"))
    return str(error.value)


def test_an_option_of_drumbeats_is_refused_with_what_to_use_instead(tmp_path: Path) -> None:
    assert refusal(tmp_path, "partition: gpu\nsbatch:\n  signal: B:USR1@30") == f"""\
error: Drumbeat sets this option of sbatch itself: signal
  where  {tmp_path}/site.yaml:3
  given  signal: B:USR1@30
  fix    Set signal_seconds in the profile."""
    assert "Set the number of GPUs with --gpus" in refusal(tmp_path, "sbatch: {gres: 'lscratch:5,gpu:2'}")
    assert "memory is requested in more than one way" in refusal(tmp_path, "mem_gb_per_node: 3\nsbatch: {mem: 0}")


@pytest.mark.parametrize("option", [*OWNED, "job_name", "arr", "sig", "outp"])
def test_as_sbatch_reads_names(option: str) -> None:
    """With underscores, and abbreviated."""
    assert list(owned_options({option: "x"})) == [option]


@pytest.mark.parametrize("option", ["mem", "wckey", "export", "requeue", "no-requeue", "chdir", "exclusive", "nodelist",
                                    "mail-type", "licenses", "reservation", "gres", "clusters", "time-min", "hold"])
def test_other_options_are_the_sites(option: str) -> None:
    assert owned_options({option: "x"}) == {}


@pytest.mark.parametrize(("line", "fix"), [
    ("time: 12:00:00", "Set time_minutes in the profile."),
    ("mem: 32G", "Set mem_gb_per_node in the profile; or mem below `sbatch:`."),
    ("cpus_per_task: 4", "Set the number of cores of a rank with launch.cpus_per_rank in the config."),
    ("mail-user: me", "If it is an option of sbatch, put it below `sbatch:`; otherwise remove it."),
    ("partitoin: gpu", "Did you mean 'partition'?"),
])
def test_an_option_of_sbatch_among_the_keys_of_a_profile(tmp_path: Path, line: str, fix: str) -> None:
    text = refusal(tmp_path, line)
    assert f"unknown key '{line.partition(':')[0]}' at the top level" in text
    assert f" fix {fix}" in " ".join(text.split())
