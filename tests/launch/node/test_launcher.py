"""The node launcher: whichever process is killed, none is orphaned, and the run restarts or ends as the verdict says.

Most of these tests use a fake torchrun (tests/launch/fake_torchrun.py), so that they test the launcher
alone and take a second each. The slow ones kill the processes of a real run, and compare its weights.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import AttemptStart, Job, NodeDown, Result, Status, Verdict
from drumbeat.configs.schema import Site
from drumbeat.launch.attempts.processes import descendants
from drumbeat.launch.backends.contract import Request
from drumbeat.launch.backends.local import Local
from drumbeat.launch.node.launcher import Launcher
from tests.launch import fake_torchrun
from tests.processes import alive, until
from tests.runs import write_plan
from tests.tiny import drumbeat, latest, write_config

ROOT = Path(__file__).parents[3]

LAUNCHER = """
import sys
from pathlib import Path
import drumbeat.launch.node.launcher
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
drumbeat.launch.node.launcher.FIRST_NODE_TIMEOUT = float(sys.argv[4])
drumbeat.launch.node.launcher.EXIT_TIMEOUT = 0.5
run = RunDir(Path(sys.argv[1]))
end = run.path / "fake" / "end"
drumbeat.launch.node.launcher.Launcher.end = property(
    lambda self: float(end.read_text()) if end.exists() else float(sys.argv[3]), lambda self, value: None)
launcher = drumbeat.launch.node.launcher.Launcher(run, JobPlan.require(run.plan), node=int(sys.argv[2]))
print(launcher.run_attempts())
"""

NODE = """
import sys
from drumbeat.launch.node.node import Node
Node(sys.argv[1])()
"""


class Stage:
    """A run with a fake torchrun, and its launchers."""

    def __init__(self, folder: Path, *, nodes: int = 1, ranks_per_node: int = 2, restarts: int = 3) -> None:
        self.run = RunDir(folder / "run")
        self.nodes, self.ranks = nodes, nodes * ranks_per_node
        (self.run.path / "fake").mkdir(parents=True)
        topology = Topology(nodes=nodes, ranks_per_node=ranks_per_node, device="cpu", cpus_per_rank=1)
        write_plan(self.run, topology=topology, restarts=restarts, python=fake_torchrun.install(folder))
        self.launchers: list[subprocess.Popen[str]] = []
        self.seen: set[int] = set()

    def launch(self, *nodes: int, job: str = "7", end: float = float("inf"), patience: float = 60.0) -> None:
        """Starts the launchers of these nodes; of all where none is given. They wait for the first one for so many
        seconds."""
        for node in nodes or range(self.nodes):
            self.launchers.append(subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(self.run.path), str(node), str(end), str(patience)], cwd=ROOT,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"SLURM_JOB_ID": job}))

    def up(self, attempt: int = 0) -> dict[str, int]:
        """Waits until an attempt is up; who is who."""
        names = {f"{name}{rank}" for rank in range(self.ranks) for name in ("rank", "helper")}
        until(lambda: names <= fake_torchrun.pids(self.run.path, attempt).keys())
        pids = fake_torchrun.pids(self.run.path, attempt)
        self.seen |= set(pids.values())
        return pids

    def end(self) -> list[str]:
        """Waits for the launchers. Returns what each one printed: what to do next."""
        return [launcher.communicate(timeout=60)[0].strip() for launcher in self.launchers]

    def finish(self) -> None:
        (self.run.path / "fake" / "finish").touch()

    def verdict(self, attempt: int) -> Verdict:
        return Verdict.require(self.run.attempt(attempt).verdict)

    def state(self) -> str:
        return Status.require(self.run.status).state

    def left(self) -> list[int]:
        """The processes of all attempts that still run."""
        for path in (self.run.path / "fake").glob("*.pid"):
            self.seen.add(int(path.read_text()))
        return [pid for pid in self.seen if alive(pid)]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**options: int) -> Stage:
        made.append(Stage(tmp_path, **options))
        return made[-1]

    yield make
    for stage in made:
        for launcher in stage.launchers:
            launcher.kill()
            launcher.communicate()
        until(lambda stage=stage: not stage.left())  # type: ignore[misc]


def test_a_run_that_finishes(stage: Callable[..., Stage]) -> None:
    here = stage()
    here.launch()
    here.up()
    here.finish()
    assert here.end() == ["leave"]
    assert here.verdict(0).outcome == here.state() == "finished"
    assert here.left() == []


@pytest.mark.parametrize(("victim", "message"), [
    ("rank1", "rank 1 on {host} was killed (SIGKILL; out of memory?); there is no checkpoint"),
    ("agent0", "torchrun on {host} was killed (SIGKILL; out of memory?); there is no checkpoint"),
], ids=["rank", "torchrun"])
def test_a_rank_or_torchrun_killed_means_a_restart_in_place(stage: Callable[..., Stage], victim: str,
                                                            message: str) -> None:
    here = stage()
    here.launch()
    before = here.up()
    os.kill(before[victim], signal.SIGKILL)
    here.up(1)
    assert not [pid for pid in before.values() if alive(pid)]
    here.finish()
    assert here.end() == ["leave"]
    host = NodeDown.require(here.run.attempt(0).node_down(0)).host
    assert (here.verdict(0).message, here.verdict(0).next) == (message.format(host=host), "restart")
    ports = [AttemptStart.require(here.run.attempt(number).launch).port for number in (0, 1)]
    assert ports[0] != ports[1]
    assert here.state() == "finished"


def test_nothing_outlives_a_killed_launcher(stage: Callable[..., Stage]) -> None:
    here = stage()
    here.launch()
    here.up()
    here.launchers[0].kill()
    until(lambda: not here.left(), seconds=5)
    assert not here.run.attempt(0).verdict.exists()


def test_a_launcher_that_fails_reports_the_error(stage: Callable[..., Stage]) -> None:
    """Also if the run has had attempts before."""
    here = stage()
    here.run.claim_attempt()
    write_plan(here.run, python="/nowhere/python")
    here.run.write_status("pending", attempt=0)
    done = subprocess.run([sys.executable, "-c", NODE, str(here.run.path)], capture_output=True, text=True, check=False)
    assert "FileNotFoundError" in done.stderr
    status = Status.require(here.run.status)
    assert (status.state, status.attempt) == ("failed", 1)
    assert status.verdict.startswith("the node launcher failed: FileNotFoundError: ")


def test_the_reason_for_a_restart_stays_while_the_next_attempt_runs(stage: Callable[..., Stage]) -> None:
    here = stage()
    here.launch()
    os.kill(here.up()["rank1"], signal.SIGKILL)
    here.up(1)
    status = Status.require(here.run.status)
    assert (status.state, status.attempt, status.verdict) == ("running", 1, here.verdict(0).message)
    here.finish()
    assert here.end() == ["leave"]


def test_sigterm_asks_for_a_save(stage: Callable[..., Stage]) -> None:
    here = stage()
    here.launch()
    here.up()
    here.launchers[0].send_signal(signal.SIGTERM)
    assert here.end() == ["leave"]
    assert (here.state(), here.verdict(0).message) == ("stopped", "stopped at step 1: SIGTERM")


def test_only_the_launcher_receives_signals(stage: Callable[..., Stage]) -> None:
    """SLURM may signal all processes. Even those with a handler of their own, like loader workers, receive none."""
    here = stage()
    here.launch()
    for pid in here.up().values():
        for number in fake_torchrun.SIGNALS:
            os.kill(pid, number)
    here.launchers[0].send_signal(signal.SIGUSR2)
    assert here.end() == ["leave"]
    assert here.verdict(0).message == "stopped at step 1: the job's time limit is near"
    assert fake_torchrun.received_signals(here.run.path) == {}


def test_a_near_time_limit_asks_for_a_save(stage: Callable[..., Stage]) -> None:
    here = stage()
    here.launch()
    here.up()
    (here.run.path / "fake" / "end").write_text(str(time.time() + Site().signal_seconds + 0.5))
    assert here.end() == ["leave"]
    assert here.verdict(0).message == "stopped at step 1: the job's time limit is near"


def test_a_save_that_hangs_does_not_outlast_the_time_limit(stage: Callable[..., Stage]) -> None:
    """The job could no longer be requeued."""
    here = stage()
    (here.run.path / "fake" / "saving").touch()
    here.launch(end=time.time() + 3)
    assert here.end() == ["leave"]
    assert here.left() == []
    assert here.verdict(0).message == (
        "stopped without saving: the job's time limit is near; there is no checkpoint")


def test_ranks_that_hang_after_the_last_save_are_ended(stage: Callable[..., Stage]) -> None:
    here = stage()
    (here.run.path / "fake" / "leaving").touch()
    here.finish()
    here.launch()
    assert here.end() == ["leave"]
    assert here.state() == "finished"
    assert here.left() == []


def test_a_stop_requested_before_the_start_starts_nothing(stage: Callable[..., Stage]) -> None:
    """Requested when the previous attempt of the same job was already over."""
    here = stage()
    before = here.run.claim_attempt()
    AttemptStart(job="7.0", address="n1", port=1).write(before.launch)
    before.request_stop("stopped")
    here.launch()
    assert here.end() == ["leave"]
    assert here.verdict(1).message == "stopped without saving: as asked; there is no checkpoint"
    assert fake_torchrun.pids(here.run.path, 1) == {}
    assert here.state() == "stopped"


def test_a_stop_of_an_earlier_job_does_not_stop_this_one(stage: Callable[..., Stage]) -> None:
    here = stage()
    before = here.run.claim_attempt()
    AttemptStart(job="6.0", address="n1", port=1).write(before.launch)
    before.request_stop("stopped")
    here.finish()
    here.launch()
    assert here.end() == ["leave"]
    assert here.state() == "finished"


def test_two_nodes_take_the_next_attempt_together(stage: Callable[..., Stage]) -> None:
    here = stage(nodes=2, ranks_per_node=1)
    here.launch()
    before = here.up()
    os.kill(before["rank1"], signal.SIGKILL)
    here.up(1)
    assert not [pid for pid in before.values() if alive(pid)]
    here.finish()
    assert here.end() == ["leave", "leave"]
    assert [NodeDown.require(here.run.attempt(0).node_down(node)).exit_code for node in (0, 1)] == [None, 1]
    assert here.verdict(0).message.startswith("rank 1 on ")
    assert here.state() == "finished"


def test_the_run_is_given_up_on_all_nodes(stage: Callable[..., Stage]) -> None:
    here = stage(nodes=2, ranks_per_node=1)
    (here.run.path / "fake" / "fail1").write_text("a bad picture")
    here.launch()
    assert here.end() == ["give up", "give up"]
    assert here.state() == "failed"
    assert here.verdict(1).message == (
        "rank 1 on here failed at step 3: ValueError: a bad picture; there is no checkpoint; given up: the same error "
        "again")
    assert here.run.newest_attempt() == here.run.attempt(1)


def test_the_other_nodes_join_only_attempts_of_their_own_job(stage: Callable[..., Stage]) -> None:
    here = stage(nodes=2, ranks_per_node=1)
    AttemptStart(job="6.0", address="n1", port=1).write(here.run.claim_attempt().launch)
    here.launch(1, patience=2.0)
    here.launchers[0].communicate(timeout=60)
    assert here.launchers[0].returncode != 0, "joined another job's attempt"
    assert fake_torchrun.pids(here.run.path, 0) == {}


def test_the_other_nodes_do_not_wait_for_ever(stage: Callable[..., Stage]) -> None:
    here = stage(nodes=2, ranks_per_node=1)
    here.launch(patience=2.0)
    here.up()
    here.launchers[0].kill()
    here.finish()
    _, errors = here.launchers[1].communicate(timeout=60)
    assert "the first node's launcher is gone; timed out waiting for the verdict" in errors
    assert here.left() == []


def test_a_superseded_launcher_leaves(stage: Callable[..., Stage]) -> None:
    here = stage()
    here.launch()
    here.up()
    here.run.claim_attempt()
    here.run.write_status("pending", attempt=1)
    assert here.end() == ["leave"]
    assert here.verdict(0).message == "attempt 1, of another job, has taken over this run"
    assert here.state() == "pending"
    assert here.left() == []


def test_a_disk_that_does_not_answer_does_not_end_an_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server that is restarted, a folder that is hidden for a moment: only a later attempt or a node that failed
    ends one."""
    write_plan(run := RunDir(tmp_path / "run"))
    attempt = run.claim_attempt()
    launcher = Launcher(run, JobPlan.require(run.plan))
    NodeDown(exit_code=0, host="n1", message="").write(attempt.node_down(1))
    assert not launcher.is_over(attempt)
    with monkeypatch.context() as patch:
        def stale(*given: object, **named: object) -> int:
            raise OSError(errno.ESTALE, "Stale file handle")

        patch.setattr(os, "open", stale)
        assert not launcher.is_over(attempt)
    run.path.rename(tmp_path / "hidden")
    assert not launcher.is_over(attempt)
    (tmp_path / "hidden").rename(run.path)
    NodeDown(exit_code=1, host="n1", message="").write(attempt.node_down(1))
    assert launcher.is_over(attempt)
    attempt.node_down(1).unlink()
    run.claim_attempt()
    assert launcher.is_over(attempt)


def test_the_environment_of_torchrun(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    here = stage(nodes=2, ranks_per_node=1)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    here.launch()
    agent = here.up()["agent1"]
    arguments = Path(f"/proc/{agent}/cmdline").read_text().split("\0")
    environment = dict(pair.split("=", 1) for pair in Path(f"/proc/{agent}/environ").read_text().split("\0") if pair)
    launch = AttemptStart.require(here.run.attempt(0).launch)
    assert {"--node-rank=1", f"--master-addr={launch.address}", f"--master-port={launch.port}"} <= set(arguments)
    assert environment["NCCL_SOCKET_IFNAME"] == "ib0"
    assert environment["GLOO_SOCKET_IFNAME"]
    here.finish()
    here.end()


def test_the_end_of_submitits_controller_is_a_stop(stage: Callable[..., Stage]) -> None:
    """In a local run it is the launcher's parent. The checkpoint is still saved."""
    here = stage()
    plan = JobPlan.require(here.run.plan)
    job = Local().submit(Request(plan=replace(plan, python=sys.executable), text=""))
    here.up()
    os.kill(int(job.id or 0), signal.SIGKILL)
    until(lambda: not job.running() and here.run.attempt(0).verdict.exists())
    assert here.verdict(0).message == "stopped at step 1: SIGTERM"
    until(lambda: not here.left())


def test_a_run_that_is_given_up_is_a_failure_to_submitit(stage: Callable[..., Stage]) -> None:
    here = stage(restarts=0)
    here.run.submitit.mkdir()
    (here.run.submitit / "9_0_result.pkl.save_tmp").touch()
    (here.run.path / "fake" / "fail0").write_text("boom")
    plan = JobPlan.require(here.run.plan)
    job = Local().submit(Request(plan=replace(plan, python=sys.executable), text=""))
    until(lambda: not job.running())
    assert "RunFailedError: rank 0 on here failed at step 3: ValueError: boom; " in job.handle.stderr()
    assert list(here.run.submitit.glob("*.save_tmp")) == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["pt_elastic", "forkserver"])
def test_whichever_process_is_killed_nothing_remains_and_the_weights_are_equal(tmp_path: Path, undisturbed: RunDir,
                                                                                  victim: str) -> None:
    """The launcher while the ranks start up, the launcher in the first phase, torchrun's agent, which calls itself
    pt_elastic, or the fork server in the second."""
    config = str(write_config(tmp_path))
    with Detached(tmp_path, config, "--procs", "2", "data.workers=1", "task._target_=tests.tiny.Fuse",
                  f"task.folder={tmp_path}", "task.at=[8,20]", "task.how=hold") as job:
        until(lambda: {"rank0", "rank1"} <= job.called().keys(), seconds=60)
        job.kill("launcher")

    with Detached(tmp_path, "--resume", "tiny") as job:
        until((tmp_path / "blown-0").exists, seconds=60)
        assert len(job.all()) == 8, "launcher, fork server, agent, writer, two ranks with a loader worker each"
        job.kill("launcher")

    with Detached(tmp_path, "--resume", "tiny") as job:
        until((tmp_path / "blown-1").exists, seconds=60)
        job.kill(victim)

    killed = latest(tmp_path)
    verdicts = [Verdict.read(killed.attempt(number).verdict) for number in range(4)]
    assert [verdict.outcome if verdict else None for verdict in verdicts] == [None, None, "failed", "finished"]
    assert Result.require(killed.result) == Result.require(undisturbed.result)


@pytest.mark.slow
def test_a_rank_that_does_not_notice_is_ended_with_the_one_that_failed(tmp_path: Path) -> None:
    """It is busy and ignores SIGTERM. torchrun alone would wait half a minute for it."""
    config = str(write_config(tmp_path))
    with Detached(tmp_path, config, "--procs", "2", "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}",
                  "task.at=[8]", "task.rank=1", "task.how=hold") as job:
        until((tmp_path / "blown-0").exists, seconds=60)
        job.kill("rank0")
        until(latest(tmp_path).attempt(1).path.exists, seconds=10)
    assert Status.require(latest(tmp_path).status).state == "finished"


class Detached:
    """`launch/run.py ARGUMENTS --detach` typed in a folder; leaving the context waits for the job's end."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        drumbeat(folder, *arguments, "--detach", warm=False)
        self.controller = int(Job.require(latest(folder).job).id or 0)

    def __enter__(self) -> Detached:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        left = self.all()
        if kind:
            for pid in [self.controller, *left]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(self.controller), seconds=120)
        assert not [pid for pid in left if alive(pid)]

    def all(self) -> list[int]:
        """All descendants of submitit's controller."""
        return descendants(self.controller)

    def called(self) -> dict[str, int]:
        """The processes by name; the launcher by the module that it runs."""
        found = {}
        for pid in self.all():
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                found["launcher" if "submitit.core._submit" in command else name] = pid
        return found

    def kill(self, name: str) -> None:
        """SIGKILL to one process; all that it has started must end within seconds."""
        victim = self.called()[name]
        below = descendants(victim)
        os.kill(victim, signal.SIGKILL)
        until(lambda: not [pid for pid in below if alive(pid)], seconds=20)
