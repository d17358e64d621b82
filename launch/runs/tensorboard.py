"""drumbeat tensorboard: starts TensorBoard in a process of its own, reachable from this machine only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError, RunError
from drumbeat.configs.run.files import DamagedError, open_file
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.attempts.logs import end_of
from drumbeat.launch.attempts.processes import child_setup
from drumbeat.launch.runs.find import all_runs, find_run

HOST = "127.0.0.1"
PORTS = 100
"""The number of ports to try, beginning with the requested one."""
POLL_SECONDS = 5.0
"""Between two checks for new runs; TensorBoard checks for new points as often."""


def serve(names: Sequence[str], runs: Path, port: int) -> int:
    """Shows the named runs, or all runs in `runs` and those that start later, until Ctrl-C. Returns the exit code.

    TensorBoard gets a folder with links to the event files of each run: a list of folders on its command line cannot
    contain a path with a comma or a colon, and the folder `runs` itself would show each experiment's newest run twice.
    Raises `RunError` if there are no runs, and `LaunchError` if no port is free or TensorBoard does not start.
    """
    shown = [find_run(name, runs) for name in names] or all_runs(runs)
    if not shown:
        raise RunError(Fault(what="there are no runs here yet", where=str(runs.absolute()),
                             remedy="--runs DIR selects another folder."))
    free = free_port(port)
    with tempfile.TemporaryDirectory(prefix="drumbeat-") as scratch:
        links, log = Path(scratch, "runs"), Path(scratch, "log")
        link(links, shown)
        with open(log, "wb") as output:
            tensorboard = subprocess.Popen(
                [sys.executable, "-m", "tensorboard.main", "--logdir", str(links), "--host", HOST, "--port", str(free),
                 "--reload_interval", str(int(POLL_SECONDS))], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                process_group=0, preexec_fn=child_setup())  # so that Ctrl-C reaches only this process
        try:
            _wait_until_it_answers(tensorboard, free, log)
            if free != port:
                print(f"port {port} is in use")
            print(f"TensorBoard of {len(shown)} run{'s' * (len(shown) != 1)}: http://localhost:{free}/\n"
                  f"{_ssh_hint(free)}Press Ctrl-C to stop it.", flush=True)
            while True:
                try:
                    tensorboard.wait(POLL_SECONDS)
                    raise _ended(tensorboard, log)
                except subprocess.TimeoutExpired:
                    link(links, shown if names else all_runs(runs))
        except KeyboardInterrupt:
            print()
            return 0
        finally:
            tensorboard.terminate()
            tensorboard.wait()


def link(folder: Path, runs: Sequence[RunDir]) -> None:
    """Adds a folder name/id for each run, and in it a missing link for each of its event files. They may be written
    later. Those that `open_file` refuses are left out."""
    for run in runs:
        for file in (*run.tensorboard.glob("*tfevents*"), *run.tensorboard.glob("*/*tfevents*")):
            link_path = folder / run.path.parent.name / run.id / file.relative_to(run.tensorboard)
            if not link_path.is_symlink():
                with suppress(FileNotFoundError, DamagedError), open_file(file, None):
                    link_path.parent.mkdir(parents=True, exist_ok=True)
                    link_path.symlink_to(file)


def free_port(first: int) -> int:
    """The first free port, beginning with `first`."""
    for port in range(first, min(first + PORTS, 65536)) if first > 0 else ():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError):
                continue
            return port
    raise LaunchError(Fault(what="there is no free port", where="--port",
                            given=f"--port {first}",
                            remedy="Choose another port between 1024 and 65535."))


def _wait_until_it_answers(tensorboard: subprocess.Popen[bytes], port: int, log: Path) -> None:
    while tensorboard.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    raise _ended(tensorboard, log)


def _ended(tensorboard: subprocess.Popen[bytes], log: Path) -> LaunchError:
    """The error of a TensorBoard that ended by itself."""
    lines = end_of(log).strip().splitlines()
    return LaunchError(Fault(what=f"TensorBoard ended with code {tensorboard.returncode}",
                             where="python -m tensorboard.main", given="\n".join(lines[-5:])))


def _ssh_hint(port: int) -> str:
    """How to open it from another machine, in an SSH session."""
    return f"From your own machine: ssh -N -L {port}:localhost:{port} {socket.gethostname()}\n" * (
        "SSH_CONNECTION" in os.environ)
