"""A submission works the same from each shell, with the modules of a site."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from tests.slurm.cluster import Cluster
from tests.slurm.kinds import on
from tests.slurm.runs import START, submitted_job
from tests.tiny import latest, write_config

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.matrix, on("pgid", among=("pgid",))]

SHELLS = {"bash": ["bash", "-l", "-c"], "zsh": ["zsh", "-l", "-c"], "tcsh": ["tcsh", "-c"], "fish": ["fish", "-c"]}
MODULES = Path("/usr/share/modules/init/bash")
PROFILE = f"""\
setup:
  - source {MODULES}
  - module use MODULES
  - module load site
  - echo "the module says $SITE"
environment: {{MINE: "two words; $HOME"}}
"""


def submit(folder: Path, shell: str) -> tuple[str, RunDir]:
    """Submits the tiny experiment, as typed into a shell. Returns the job, and its run."""
    folder.mkdir()
    write_config(folder)
    (folder / "site.yaml").write_text(PROFILE.replace("MODULES", str(folder.parent / "modules")))
    typed = shlex.join([sys.executable, "-m", "drumbeat", "run", "tiny.yaml", "--slurm", "--procs", "1", "--profile",
                        "site.yaml", "--no-preflight"])
    done = subprocess.run([*SHELLS[shell], f"cd {folder} && {typed}"], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return submitted_job(done.stdout), latest(folder)


def test_the_same_job_from_each_shell(cluster: Cluster, tmp_path: Path) -> None:
    if missing := [shell for shell in SHELLS if not shutil.which(shell)] + [str(MODULES)] * (not MODULES.exists()):
        pytest.skip(f"no {', '.join(missing)}")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "site").write_text("#%Module1.0\nsetenv SITE seventeen\n")
    started = [submit(tmp_path / shell, shell) for shell in SHELLS]
    for job, run in started:
        cluster.wait(job, "COMPLETED", timeout=2 * START)
        assert "the module says seventeen" in (run.submitit / f"{job}_0_log.out").read_text()
    assert len({Result.require(run.result).weights_sha256 for _, run in started}) == 1
    scripts = {re.sub(rf"{run.id}|{tmp_path}/\w+", "X", (run.submitit / f"{job}_submission.sh").read_text())
               for job, run in started}
    assert len(scripts) == 1
    assert "export MINE='two words; $HOME'\n" in scripts.pop()
