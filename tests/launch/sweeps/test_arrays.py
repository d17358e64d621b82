"""Trials as job arrays, cut where SLURM limits their size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.launch.sweeps.arrays import arrays_text, cut, max_array_size, submit_arrays
from tests.launch.fake_slurm import programs
from tests.launch.sweeps.made import made_sweep


def test_cut_at_max_array_size(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..24"})
    arrays = cut(folder, folder.read(), [0, 1, 2, 5, 9, 10, 11, 23], 10)
    assert [(array.offset, array.tasks) for array in arrays] == [(0, "0-2,5,9%2"), (10, "0-1%2"), (20, "3%2")]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A controller with small arrays that takes two of them, and a log of what is asked of it."""
    log = tmp_path / "asked"
    monkeypatch.setenv("PATH", programs(
        tmp_path, srun="", squeue="", sinfo="", scontrol="echo 'MaxArraySize            = 4'",
        scancel=f'echo "cancel $*" >> {log}',
        sbatch=f"""for script; do :; done
if [ ! -f "$script" ]; then exit 0; fi
grep -E '^#SBATCH --(array|dependency|comment)' "$script" >> {log}
if [ "$(grep -c -- --array {log})" -gt "${{MOST:-2}}" ]; then
  echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)' >&2; exit 1
fi
echo "$(grep -c -- --array {log})00" """))
    return log


def test_several_arrays_run_one_after_another_if_a_limit_holds_for_all(tmp_path: Path, slurm: Path) -> None:
    folder = made_sweep(tmp_path / "runs", {"seed": "0..4"}, backend="slurm")
    assert max_array_size() == 4
    assert arrays_text(folder.read(), range(5)) == "2 SLURM job arrays, 0-3%2 and 0%2"
    assert submit_arrays(folder, folder.read(), range(5)) == ["100", "200"]
    sweep = folder.read().id
    assert slurm.read_text().splitlines() == [
        "#SBATCH --array=0-3%2", f"#SBATCH --comment={sweep}@0",
        "#SBATCH --array=0%2", f"#SBATCH --comment={sweep}@4", "#SBATCH --dependency=afterany:100"]


def test_none_is_left_if_slurm_refuses_one(tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOST", "1")
    folder = made_sweep(tmp_path / "runs", {"seed": "0..4"}, backend="slurm", slots=None)
    with pytest.raises(LaunchError) as caught:
        submit_arrays(folder, folder.read(), range(5))
    (fault,) = caught.value.faults
    assert fault.what == "sbatch refused the job: a job array of the sweep's 5 trials, each of which is a job"
    assert "submit limit" in fault.given
    assert slurm.read_text().splitlines()[-1] == "cancel 100"
    assert "dependency" not in slurm.read_text()


def test_the_default_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert max_array_size() == 1001
