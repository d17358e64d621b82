"""The node launcher: whoever is killed, nothing is orphaned, and the run goes on or leaves as the verdict says.

Most of these tests use a fake torchrun (tests/launch/fake_torchrun.py), so that they are about the launcher alone and
take a second each. The slow ones kill the real thing, and compare what it computes.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.run.bad_nodes import remembered
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import AttemptStart, Job, NodeDown, Result, Status, Verdict
from drumbeat.configs.site import Site
from drumbeat.launch.attempts.processes import descendants
from drumbeat.launch.node.checks import CHECK_SECONDS, FILES_SECONDS
from drumbeat.launch.node.launcher import DOWN_TIMEOUT, Launcher, wait_until
from tests.launch import fake_torchrun
from tests.launch.node.stage import Stage
from tests.processes import alive, until
from tests.runs import write_plan
from tests.tiny import drumbeat, latest, write_config


def test_a_run_that_finishes(stage: Callable[..., Stage]) -> None:
    here = stage()
    here.launch()
    here.up()
    here.finish()
    assert here.end() == ["leave"]
    assert here.verdict(0).outcome == here.state() == "finished"
    assert here.left() == []


@pytest.mark.parametrize(("victim", "words"), [
    ("rank1", "rank 1 on {host} was killed (SIGKILL; out of memory?); there is no checkpoint"),
    ("agent0", "torchrun on {host} was killed (SIGKILL; out of memory?); there is no checkpoint"),
], ids=["rank", "torchrun"])
def test_a_rank_or_torchrun_killed_means_a_restart_in_place(stage: Callable[..., Stage], victim: str,
                                                            words: str) -> None:
    here = stage()
    here.launch()
    before = here.up()
    os.kill(before[victim], signal.SIGKILL)
    here.up(1)
    assert not [pid for pid in before.values() if alive(pid)]
    here.finish()
    assert here.end() == ["leave"]
    host = NodeDown.require(here.run.attempt(0).node_down(0)).host
    assert (here.verdict(0).message, here.verdict(0).next) == (words.format(host=host), "restart")
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


def test_the_clock_asks_for_a_save(stage: Callable[..., Stage]) -> None:
    here = stage()
    here.launch()
    here.up()
    (here.run.path / "fake" / "end").write_text(str(time.time() + 8))
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
        "stopped without saving: the job's time limit came before its first step; there is no checkpoint")


def test_two_nodes_that_cannot_save_before_the_time_limit_end_together(stage: Callable[..., Stage]) -> None:
    """Only the first one knows the time; without the other's report it would leave the decision to launchers that SLURM
    no longer starts."""
    here = stage(nodes=2, ranks_per_node=1)
    (here.run.path / "fake" / "saving").touch()
    here.launch(end=time.time() + 6)
    assert here.end() == ["leave", "leave"]
    assert here.left() == []
    assert here.verdict(0).message == (
        "stopped without saving: the job's time limit came before its first step; there is no checkpoint")
    assert here.run.attempt(0).node_down(1).stat().st_mtime <= here.run.attempt(0).verdict.stat().st_mtime


def test_a_failure_after_a_suspension_does_not_count(stage: Callable[..., Stage]) -> None:
    """The ranks' connections time out while all of them are stopped."""
    here = stage(restarts=0)
    here.launch()
    ranks = here.up()
    here.launchers[0].send_signal(signal.SIGSTOP)
    time.sleep(2)  # the suspension
    os.kill(ranks["rank1"], signal.SIGKILL)
    here.launchers[0].send_signal(signal.SIGCONT)
    here.up(1)
    assert re.match(r"the job was suspended for 0:0\d, after which a rank did not continue: rank 1 on \S+ was killed ",
                    here.verdict(0).message)
    here.finish()
    assert here.end() == ["leave"]


def test_ranks_that_hang_after_the_last_save_are_ended(stage: Callable[..., Stage]) -> None:
    here = stage()
    (here.run.path / "fake" / "leaving").touch()
    here.finish()
    here.launch()
    assert here.end() == ["leave"]
    assert here.state() == "finished"
    assert here.left() == []


def test_a_stop_ahead_of_the_start_starts_nothing(stage: Callable[..., Stage]) -> None:
    """Asked for while the attempt before, of the same job, was already over."""
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


def test_a_node_whose_check_fails_starts_no_ranks_on_any_node(stage: Callable[..., Stage], tmp_path: Path) -> None:
    """The node that makes the folder fails, once. Without SLURM the run restarts in place, and no node is remembered.
    """
    here = stage(nodes=2, ranks_per_node=1)
    site = Site(node_check=f"mkdir {tmp_path}/first 2>/dev/null && echo GPU 1 is lost && exit 3; true")
    replace(JobPlan.require(here.run.plan), site=site).write(here.run.plan)
    here.launch()
    here.up(1)
    here.finish()
    assert [output.splitlines()[-1] for output in here.end()] == ["leave", "leave"]
    assert fake_torchrun.pids(here.run.path, 0) == {}
    host = socket.gethostname()
    found = f"the node check on {host} ended with code 3: GPU 1 is lost"
    assert (here.verdict(0).next, here.verdict(0).bad_nodes) == ("restart", {host: found})
    assert here.verdict(0).message == f"{found}; there is no checkpoint"
    assert remembered(here.run.path.parent.parent) == []
    assert here.state() == "finished"


def test_a_stop_ends_a_check(stage: Callable[..., Stage], tmp_path: Path) -> None:
    here = stage()
    site = Site(node_check=f"touch {tmp_path}/checks; sleep 300")
    replace(JobPlan.require(here.run.plan), site=site).write(here.run.plan)
    here.launch()
    until((tmp_path / "checks").exists)
    here.launchers[0].send_signal(signal.SIGTERM)
    assert here.end() == ["leave"]
    assert NodeDown.require(here.run.attempt(0).node_down(0)) == NodeDown(exit_code=None, host=socket.gethostname())
    assert here.verdict(0).message == "stopped without saving: SIGTERM; there is no checkpoint"


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
    said = here.launchers[1].communicate(timeout=60)
    assert "the first node's launcher is gone; timed out waiting for the verdict" in said[1]
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
    attempt.report(1, NodeDown(exit_code=0, host="n1", message=""))
    assert not launcher.is_over(attempt)
    with monkeypatch.context() as patch:
        def stale(*given: object, **named: object) -> int:
            raise OSError(errno.ESTALE, "Stale file handle")

        patch.setattr(os, "open", stale)
        assert not launcher.is_over(attempt)
    run.path.rename(tmp_path / "hidden")
    assert not launcher.is_over(attempt)
    (tmp_path / "hidden").rename(run.path)
    attempt.report(2, NodeDown(exit_code=1, host="n2", message=""))
    assert launcher.is_over(attempt)
    attempt.node_failed.unlink()
    run.claim_attempt()
    assert launcher.is_over(attempt)


def test_the_environment_of_torchrun(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    here = stage(nodes=2, ranks_per_node=1)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    here.launch()
    agent = here.up()["agent1"]
    words = Path(f"/proc/{agent}/cmdline").read_text().split("\0")
    environment = dict(pair.split("=", 1) for pair in Path(f"/proc/{agent}/environ").read_text().split("\0") if pair)
    launch = AttemptStart.require(here.run.attempt(0).launch)
    assert {"--node-rank=1", f"--master-addr={launch.address}", f"--master-port={launch.port}"} <= set(words)
    assert environment["NCCL_SOCKET_IFNAME"] == "ib0"
    assert environment["GLOO_SOCKET_IFNAME"]
    here.finish()
    here.end()


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
    """It ignores SIGTERM; torchrun would wait half a minute for it."""
    config = str(write_config(tmp_path))
    with Detached(tmp_path, config, "--procs", "2", "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}",
                  "task.at=[8]", "task.rank=1", "task.how=hold") as job:
        until((tmp_path / "blown-0").exists, seconds=60)
        job.kill("rank0")
        until(latest(tmp_path).attempt(1).path.exists, seconds=10)
    assert Status.require(latest(tmp_path).status).state == "finished"


class Detached:
    """`launch/run.py WORDS --detach` typed in a folder; leaving the context waits for the job's end."""

    def __init__(self, folder: Path, *words: str) -> None:
        drumbeat(folder, *words, "--detach", warm=False)
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
        """All below submitit's controller."""
        return descendants(self.controller)

    def called(self) -> dict[str, int]:
        """The processes that have a name, and the launcher, which is known by the module it runs."""
        found = {}
        for pid in self.all():
            with suppress(OSError):
                arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                is_launcher = "submitit.core._submit" in arguments
                name = "launcher" if is_launcher else Path(f"/proc/{pid}/comm").read_text().strip()
                found[name] = pid
        return found

    def kill(self, name: str) -> None:
        """SIGKILL to one process; all it had started has to be gone in seconds."""
        victim = self.called()[name]
        below = descendants(victim)
        os.kill(victim, signal.SIGKILL)
        until(lambda: not [pid for pid in below if alive(pid)], seconds=20)


def test_waiting_ends_though_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    assert wait_until(lambda: None, 0.3) is None


def test_the_first_node_waits_for_the_checks_of_all_others() -> None:
    """A node is blamed for what is missing if another one has passed, which that one must have had the time to say."""
    assert DOWN_TIMEOUT >= 90 > FILES_SECONDS + CHECK_SECONDS
