"""The node launcher: what submitit runs, once on each node, for a run on this machine as for one on a cluster.

It is the only process that reacts to signals. It owns torchrun: starts it, asks the ranks to stop by a marker in the run
folder, waits for their save, ends what is left, and then goes on as the first node's launcher decides: leave, start the
next attempt in place, or queue the job again. The launchers of a job speak to each other through the attempt's folder
only. No torch here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from configs.rundir import Attempt, RunDir, read_json, write_json
from launch.plan import JobPlan, torchrun_command
from launch.processes import become_subreaper, end_descendants, ignoring_signals, tied_to_parent
from launch.rendezvous import free_port, interface_towards, own_address

PATIENCE = 60.0
"""Seconds to wait for the other nodes' launchers before going on without them."""
POLL = 0.2
"""Seconds between two looks. A loop, because `Popen.poll` inside a signal handler sees nothing while `wait` runs."""

OUTSIDE_REASONS = ("time limit", "preempted")
"""Reasons to stop that are the cluster's and not a person's: the job is queued again."""

Next = Literal["leave", "restart", "requeue", "give up"]


class Node:
    """What submitit pickles: the run folder, and nothing that could be out of date after a requeue."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def __call__(self) -> None:
        """Runs attempts on this node until the run ends or leaves the allocation. Raises where the run failed, so
        that SLURM, too, calls the job failed."""
        run = RunDir(Path(self.run_dir))
        launcher = Launcher(run=run, plan=JobPlan.read(run.plan), node=int(os.environ.get("SLURM_NODEID", "0")))
        if launcher.run_attempts() == "give up":
            raise RuntimeError(f"the run failed: see {run.status}")


@dataclass
class Launcher:
    """One node's part of a job."""

    run: RunDir
    plan: JobPlan
    node: int
    stop_reason: str = ""
    """Set by a signal handler, acted upon by the main loop."""
    joined: int = field(default=-1, init=False)
    """The last attempt this launcher took part in."""

    def run_attempts(self) -> Next:
        """Attempt after attempt, until the first node's launcher says to leave."""
        for number, reason in ((signal.SIGUSR2, "time limit"), (signal.SIGTERM, "preempted")):
            signal.signal(number, lambda *_, reason=reason: self.ask_to_stop(reason))
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        become_subreaper()
        while True:
            attempt = self.claim() if self.node == 0 else self.wait_for_claim()
            self.joined = attempt.number
            code = self.supervise(attempt)
            write_json(attempt.down(self.node), {"code": code})
            verdict = self.decide(attempt) if self.node == 0 else self.wait_for_verdict(attempt)
            if verdict == "requeue" and self.node == 0:
                self.requeue()
            if verdict != "restart":
                return verdict

    def ask_to_stop(self, reason: str) -> None:
        """The signal handler: sets a flag and nothing else."""
        self.stop_reason = self.stop_reason or reason

    def claim(self) -> Attempt:
        """The first node: takes the next attempt, and tells the others where its ranks will meet."""
        attempt = self.run.claim_attempt()
        write_json(attempt.launch, {"job": job_identity(), "address": own_address(), "port": free_port(),
                                    "after": self.joined, "time": time.time()})
        self.run.write_status(state="running", attempt=attempt.number)
        return attempt

    def wait_for_claim(self) -> Attempt:
        """The other nodes: the attempt that the first one claimed for this job, after the last one we were in."""
        while True:
            attempt = self.run.newest_attempt()
            if attempt is not None and attempt.number > self.joined:
                launch = read_json(attempt.launch)
                if launch.get("job") == job_identity():
                    return attempt
            time.sleep(POLL)

    def supervise(self, attempt: Attempt) -> int:
        """Runs torchrun to its end, or ends it when another node's has failed. Returns its exit code."""
        process = self.start(attempt)
        try:
            while (code := process.poll()) is None:
                if self.stop_reason or self.time_is_up():
                    attempt.ask_to_stop(self.stop_reason or "time limit")
                if any(read_json(attempt.down(node)).get("code") for node in self.others()):
                    code = -signal.SIGKILL
                    break
                time.sleep(POLL)
            return code
        finally:
            end_descendants()

    def start(self, attempt: Attempt) -> subprocess.Popen[bytes]:
        """torchrun in a session of its own, deaf to SLURM's signals, and ended by the kernel if this process dies."""
        launch = read_json(attempt.launch)
        command = torchrun_command(self.plan, attempt=str(attempt.number), node=str(self.node),
                                   address=str(launch["address"]), port=str(launch["port"]))
        environment = os.environ | self.plan.environment | {
            "PET_SIGNALS_TO_HANDLE": "SIGQUIT",  # so that torchrun leaves SIGTERM ignored, for its ranks too
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "2",
            "TORCH_FR_DUMP_TEMP_FILE": str(attempt.path / "nccl-flight-recorder-rank"),
        }
        if self.plan.topology.nodes > 1:
            interface = interface_towards(str(launch["address"]))
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                if interface:
                    environment.setdefault(name, interface)
        with open(attempt.node_log(self.node), "ab") as log, ignoring_signals(
                signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                    env=environment, cwd=self.plan.folder, start_new_session=True,
                                    preexec_fn=tied_to_parent(os.getpid()))

    def others(self) -> list[int]:
        return [node for node in range(self.plan.topology.nodes) if node != self.node]

    def time_is_up(self) -> bool:
        """Whether the job's end is near. SLURM may send its signal late or, on some sites, to nobody."""
        end = float(os.environ.get("SLURM_JOB_END_TIME", "inf"))
        return time.time() > end - self.plan.site.signal_seconds

    def decide(self, attempt: Attempt) -> Next:
        """The first node: what the attempt came to and what is next, written down for the others and for `status`."""
        until = time.time() + PATIENCE
        while time.time() < until and not all(attempt.down(node).exists() for node in self.others()):
            time.sleep(POLL)
        verdict = judge(self.run, attempt, self.plan.restarts)
        if verdict["next"] == "requeue" and "SLURM_JOB_ID" not in os.environ:
            verdict["next"] = "leave"
        write_json(attempt.verdict, verdict)
        state = {"leave": verdict["state"], "give up": "failed", "requeue": "preempted", "restart": "running"}
        self.run.write_status(state=state[verdict["next"]], verdict=verdict["words"])
        return verdict["next"]  # type: ignore[no-any-return]

    def wait_for_verdict(self, attempt: Attempt) -> Next:
        """The other nodes: what the first one decided; "give up" where it is gone."""
        until = time.time() + 2 * PATIENCE
        while time.time() < until:
            if verdict := read_json(attempt.verdict):
                return verdict["next"]  # type: ignore[no-any-return]
            time.sleep(POLL)
        return "give up"

    def requeue(self) -> None:
        """Puts the job back in SLURM's queue. That it is already pending again is as good."""
        job = os.environ["SLURM_JOB_ID"]
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        if done.returncode:
            print(f"scontrol requeue {job}: {done.stderr.strip()}", flush=True)


def judge(run: RunDir, attempt: Attempt, restarts: int) -> dict[str, Any]:
    """The verdict of an attempt that is over: `state`, `words` for a reader, `step` of the last good checkpoint, and
    `next`. Read from the run folder alone, so that the budget of restarts also holds across requeues."""
    saved, step = read_json(attempt.saved), newest_checkpoint(run)
    if saved.get("state") == "finished":
        return {"state": "finished", "words": "finished", "step": step, "next": "leave"}
    if saved.get("state") == "stopped":
        reason = read_json(attempt.stop).get("reason", "stopped")
        again = reason in OUTSIDE_REASONS
        return {"state": "stopped", "words": f"stopped at step {saved['step']}: {reason}", "step": step,
                "next": "requeue" if again else "leave"}
    error = next(iter(attempt.errors()), {})
    words = f"rank {error['rank']} failed at step {error['step']}: {error['type']}: {error['message']}" if error else (
        "a rank or torchrun was killed")
    if attempt.stop.exists():
        reason = read_json(attempt.stop).get("reason", "stopped")
        return {"state": "stopped", "words": f"stopped without a save ({reason}): {words}", "step": step,
                "next": "requeue" if reason in OUTSIDE_REASONS else "leave"}
    same = in_a_row(run, attempt, step)
    repeated = bool(error) and any(past.get("error") == cause(error) for past in same)
    give_up = len(same) >= restarts or repeated
    return {"state": "failed", "words": words, "step": step, "error": cause(error),
            "next": "give up" if give_up else "restart"}


def in_a_row(run: RunDir, attempt: Attempt, step: int) -> list[dict[str, Any]]:
    """The verdicts of the failed attempts just before this one since which no newer checkpoint was made."""
    found: list[dict[str, Any]] = []
    for number in range(attempt.number - 1, -1, -1):
        verdict = read_json(run.attempt(number).verdict)
        if verdict.get("state") != "failed" or verdict.get("step") != step or verdict.get("next") != "restart":
            break
        found.append(verdict)
    return found


def cause(error: dict[str, Any]) -> str:
    """What makes two failures the same: an exception of that kind at that step of that rank."""
    return f"{error['type']} at step {error['step']} of rank {error['rank']}" if error else ""


def newest_checkpoint(run: RunDir) -> int:
    """The step of the newest complete checkpoint; -1 where there is none."""
    manifests = run.checkpoints.glob("step-*/manifest.json")
    return max((int(path.parent.name.partition("-")[2]) for path in manifests), default=-1)


def job_identity() -> str:
    """This start of this job: SLURM keeps the id when it queues a job again, but counts the restarts."""
    return f"{os.environ.get('SLURM_JOB_ID', os.getpid())}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
