"""The fork server: what it imports in advance, what it leaves to the ranks, and its exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run import rank_records
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.rank_records import Imports
from drumbeat.launch.node.rendezvous import free_port
from drumbeat.trainers import forkserver
from drumbeat.trainers.forkserver import targets
from drumbeat.trainers.import_times import VARIABLE
from tests.tiny import CONFIG

IMPORTS = """
import json, os, sys
from pathlib import Path
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.forkserver import import_ahead
import_ahead(RunDir(Path(sys.argv[1])))
import drumbeat.data.image_table, drumbeat.data.text, torch
print(json.dumps([len(os.listdir("/proc/self/task")), torch.cuda.is_initialized(), sorted(sys.modules)]))
"""


REPORT = """
import json, os, torch
from pathlib import Path
forked = b"drumbeat.trainers.forkserver" in Path("/proc/self/cmdline").read_bytes()
report = {"unfit for CUDA": torch.cuda._is_in_bad_fork(), "forked": forked}
Path(os.environ["REPORTS"], os.environ["RANK"]).write_text(json.dumps(report))
"""


def rendezvous() -> list[str]:
    """The options of `drumbeat.launch.plan.job.torchrun_command` for one node."""
    return ["--rdzv-backend=static", "--node-rank=0", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]


def test_the_targets_in_a_config() -> None:
    node = {"model": {"_target_": "a.B", "of": [{"_target_": "c.D"}, {"x": 1}]}, "phases": {"head": {"_target_": ""}}}
    assert list(targets(node)) == ["a.B", "c.D"]


@pytest.mark.slow
@pytest.mark.parametrize("compiles", [False, True])
def test_it_imports_only_and_no_user_code(tmp_path: Path, compiles: bool) -> None:
    """Forking is safe only from one thread and without CUDA. numpy's OpenBLAS, which has one thread here, ends its
    threads before a fork and restarts them after it (its memory.c registers that with pthread_atfork)."""
    run = RunDir(tmp_path)
    write_text(run.config, CONFIG + "compile: {mode: default}\n" * compiles)
    done = subprocess.run([sys.executable, "-c", IMPORTS, str(run.path)], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    threads, cuda, modules = json.loads(done.stdout)
    assert (threads, cuda) == (1, False), done.stderr
    assert {"drumbeat.trainers.worker", "drumbeat.data.images", "torchvision.transforms.v2", "torch._dynamo"} <= set(
        modules)
    assert "tests.tiny" not in modules
    assert ("torch._inductor.codecache" in modules) == compiles


@pytest.mark.parametrize("limit", [-1.0, 1e6], ids=["slow", "fast"])
def test_the_first_attempt_alone_has_waited_for_the_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str], limit: float) -> None:
    told = []
    monkeypatch.setattr(rank_records, "SLOW_IMPORTS", limit)
    monkeypatch.setattr(sys, "stdin", io.StringIO("{}\n{}\n"))
    for name in ("call_process", "import_ahead"):
        monkeypatch.setattr(forkserver, name, lambda what: None)
    monkeypatch.setattr(forkserver, "gc", SimpleNamespace(collect=lambda: None, freeze=lambda: None))
    monkeypatch.setattr(forkserver, "carry_out", lambda order, more: told.append(dict(more)))
    forkserver.main(str(tmp_path))
    assert [[*more] for more in told] == [[VARIABLE], []]
    imports = Imports.parse(json.loads(told[0][VARIABLE]))
    assert capsys.readouterr().err == (f"note: {imports.message}\n" if limit < 0 else "")


@pytest.mark.slow
def test_it_answers_with_the_agents_exit_code(tmp_path: Path) -> None:
    """Also with that of a killed agent."""
    run, log, here = RunDir(tmp_path), tmp_path / "agent.log", tmp_path / "agent.pid"
    (tmp_path / "sleeper.py").write_text("import os, time\nopen(os.environ['HERE'], 'w').write(str(os.getppid()))\n"
                                         "time.sleep(60)\n")
    os.mkfifo(here)
    with subprocess.Popen([sys.executable, "-m", "drumbeat.trainers.forkserver", str(run.path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        answers = []
        for arguments in (["--nonsense"], [*rendezvous(), "--nproc-per-node=1", "-m", "tests.trainers.nobody"],
                      [*rendezvous(), "--nproc-per-node=1", str(tmp_path / "sleeper.py")]):
            order = {"arguments": arguments, "environment": {"HERE": str(here)}, "log": str(log)}
            server.stdin.write(json.dumps(order) + "\n")
            server.stdin.flush()
            if arguments[-1].endswith("sleeper.py"):
                os.kill(int(here.read_text()), signal.SIGKILL)
            answers.append(int(server.stdout.readline()))
        server.stdin.close()
        assert server.wait() == 0
    assert answers == [2, 1, -signal.SIGKILL]
    assert "No module named 'tests.trainers.nobody'" in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("poisoned", [False, True], ids=["clean", "poisoned"])
def test_every_rank_may_use_cuda(tmp_path: Path, poisoned: bool) -> None:
    """A process whose parent has used CUDA cannot use it. torch's LaunchConfig or a site's start-up file may use it;
    then the ranks are not forked, and the log says so."""
    (tmp_path / "report.py").write_text(REPORT)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "sitecustomize.py").write_text("import torch; torch.cuda.is_available()\n" if poisoned else "")
    order = {"arguments": [*rendezvous(), "--nproc-per-node=2", str(tmp_path / "report.py")],
             "environment": {"REPORTS": str(tmp_path)}, "log": str(tmp_path / "log")}
    done = subprocess.run([sys.executable, "-m", "drumbeat.trainers.forkserver", str(tmp_path)], text=True,
                          input=json.dumps(order) + "\n", capture_output=True,
                          env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ['PYTHONPATH']}",
                                            "TMPDIR": str(tmp_path / "scratch")})
    log = (tmp_path / "log").read_text()
    assert done.stdout == "0\n", log
    reports = [json.loads((tmp_path / rank).read_text()) for rank in "01"]
    assert reports == [{"unfit for CUDA": False, "forked": not poisoned}] * 2
    assert ("each imports torch again" in log) == poisoned
    assert not list((tmp_path / "scratch").glob("torchelastic*")), "no folder stays in /tmp"
