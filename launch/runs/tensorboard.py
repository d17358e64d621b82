"""drumbeat tensorboard: the curves of runs in TensorBoard, a process of its own that answers this machine alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.attempts.processes import deaf_and_tied
from drumbeat.launch.runs.find import all_runs, find_run

HOST = "127.0.0.1"
PORTS = 100
"""So many ports are tried, from the one that was asked for."""
LOOK_SECONDS = 5.0
"""Between two looks for runs that are new; TensorBoard looks for new points as often."""


def serve(names: Sequence[str], runs: Path, port: int) -> int:
    """Shows the runs named, or all below `runs` and those that begin meanwhile, until Ctrl-C. The exit code.

    TensorBoard sees a folder of links, one for each run: a list of folders on its command line could hold no path with
    a comma or a colon in it, and the whole of `runs` would show each experiment's newest run twice. Raises `RunError`
    where there is nothing to show, and `LaunchError` where no port is free or TensorBoard does not start.
    """
    shown = [find_run(name, runs) for name in names] or all_runs(runs)
    if not shown:
        raise RunError(Fault(what="there are no runs here yet", where=str(runs.absolute()),
                             remedy="--runs DIR looks elsewhere."))
    free = free_port(port)
    with tempfile.TemporaryDirectory(prefix="drumbeat-") as scratch:
        links, log = Path(scratch, "runs"), Path(scratch, "log")
        link(links, shown)
        with open(log, "wb") as output:
            board = subprocess.Popen(
                [sys.executable, "-m", "tensorboard.main", "--logdir", str(links), "--host", HOST, "--port", str(free),
                 "--reload_interval", str(int(LOOK_SECONDS))], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                process_group=0, preexec_fn=deaf_and_tied())  # Ctrl-C is for this process alone
        try:
            _wait_until_it_answers(board, free, log)
            if free != port:
                print(f"port {port} is in use")
            print(f"TensorBoard of {len(shown)} run{'s' * (len(shown) != 1)}: http://localhost:{free}/\n"
                  f"{_from_elsewhere(free)}Ctrl-C ends it.", flush=True)
            while True:
                try:
                    board.wait(LOOK_SECONDS)
                    raise _ended(board, log)
                except subprocess.TimeoutExpired:
                    link(links, [] if names else all_runs(runs))
        except KeyboardInterrupt:
            print()
            return 0
        finally:
            board.terminate()
            board.wait()


def link(folder: Path, runs: Sequence[RunDir]) -> None:
    """A link to the events of each run, name/id, where there is none yet. The events themselves may come later."""
    for run in runs:
        place = folder / run.path.parent.name / run.id
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            place.symlink_to(run.tensorboard)


def free_port(first: int) -> int:
    """The first port from there on that nobody listens on."""
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
                            remedy="Name another one, between 1024 and 65535."))


def _wait_until_it_answers(board: subprocess.Popen[bytes], port: int, log: Path) -> None:
    while board.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    raise _ended(board, log)


def _ended(board: subprocess.Popen[bytes], log: Path) -> LaunchError:
    """What to say of a TensorBoard that has ended by itself."""
    said = log.read_text(errors="replace").strip().splitlines()
    return LaunchError(Fault(what=f"TensorBoard ended with code {board.returncode}", where="python -m tensorboard.main",
                             given="\n".join(said[-5:])))


def _from_elsewhere(port: int) -> str:
    """How to see it on the machine that a person sits at, where that is another one."""
    return f"On your own machine: ssh -N -L {port}:localhost:{port} {socket.gethostname()}\n" * (
        "SSH_CONNECTION" in os.environ)
