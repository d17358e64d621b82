"""Any answer of SLURM's programs: a value, a `UserError` or `SlurmUnreachableError`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drumbeat.configs.errors import UserError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.site import Site
from drumbeat.launch.backends.allocation import find_allocation
from drumbeat.launch.slurm.client import SlurmUnreachableError, job_state, queued, steps
from drumbeat.launch.slurm.grace import grace_warning
from drumbeat.launch.slurm.job import SlurmJob
from drumbeat.launch.slurm.limits import parse_limit
from drumbeat.launch.slurm.node_list import MOST_NODES, node_names
from drumbeat.launch.slurm.reasons import explain_reason
from drumbeat.launch.slurm.sbatch_errors import sbatch_fault
from tests.fuzz.inputs import damaged, texts_of
from tests.launch.fake_slurm import programs

pytestmark = pytest.mark.fuzz

ANSWERS = [
    b"4711|PENDING|Priority|2026-01-31T10:00:00|gpu|20260101-100000-aaaaa\n",
    b"JobId=4711 JobName=x JobState=RUNNING Reason=None Restarts=0 Requeue=1 BatchFlag=1 EndTime=2026-01-31T10:00:00 "
    b"NumNodes=2 Nodes=n[1-2] CPU_IDs=0-3,8 Mem=1 GRES=gpu:a100:4(IDX:0-3) PreemptTime=None\n",
    b"PartitionName=gpu GraceTime=30 PreemptMode=REQUEUE\n", b"KillWait = 30 sec\n",
    b"sbatch: error: Batch job submission failed: QOSMaxGRESPerUser\n",
    b"slurm_load_jobs error: Invalid job id specified",
]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with what each of SLURM's programs prints."""
    folder = tmp_path_factory.mktemp("slurm")
    before = os.environ["PATH"]
    script = f"cat {folder}/answer"
    os.environ["PATH"] = programs(folder, squeue=script, scontrol=script, sinfo=script)
    yield folder / "answer"  # type: ignore[misc]
    os.environ["PATH"] = before


@given(damaged(ANSWERS) | texts_of("|", "=", "\n", "JobState", "RUNNING", "Restarts", "NumNodes", " ", "²", "n[1-", "-1"
                                   ).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_answer(answer: Path, content: bytes) -> None:
    answer.write_bytes(content)
    job = SlurmJob("4711", 0)
    for ask in (lambda: queued("20260101-100000-aaaaa", "4711"), lambda: job_state("4711"), lambda: steps("4711", "x"),
                job.fields, job.end_time, job.why_terminated, job.needs_next_job,
                lambda: find_allocation({"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "²"}),
                lambda: grace_warning(RunDir(answer.parent), "gpu")):
        with suppress(UserError, SlurmUnreachableError):
            ask()
    text = content.decode(errors="replace")
    assert str(sbatch_fault(text, Site(partition="x"), "sbatch --test-only"))
    explain_reason(text)
    parse_limit(text)


@given(texts_of("n", "[", "]", "-", ",", "1", "07", "0", "9999999999", "[1-2,07]", "²"))
def test_any_list_of_nodes(text: str) -> None:
    try:
        assert len(node_names(text)) <= MOST_NODES
    except ValueError as error:
        assert text[:40] in str(error)


@given(st.lists(st.tuples(st.sampled_from(["n", "gpu-", "r1c"]), st.integers(0, 40), st.integers(0, 5),
                          st.integers(1, 4)), min_size=1, max_size=3))
def test_lists_of_nodes_are_complete(parts: list[tuple[str, int, int, int]]) -> None:
    text = ",".join(f"{name}[{first:0{width}d}-{first + more:0{width}d}]" for name, first, more, width in parts)
    assert node_names(text) == [f"{name}{number:0{width}d}" for name, first, more, width in parts
                                for number in range(first, first + more + 1)]
