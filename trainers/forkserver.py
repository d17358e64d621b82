"""The fork server: imports torch once, and forks torchrun's agents from itself, one for each attempt on this node.

    python -m drumbeat.trainers.forkserver RUN < one JSON order a line, each answered by the agent's exit code

Importing torch, torchvision and their dependencies takes some seconds of CPU time, and far longer on a shared file
system. One process does it for the agent, all ranks of the node and all attempts, so a restarted run trains again
quickly, and the memory of the imported modules is shared. The agent is torchrun, but it forks its ranks instead of
starting a new Python for each.

    launcher ─── fork server ─── agent ─── ranks ─── loader workers, writer

Forking is safe because the server only imports modules: it starts no threads and does not initialize CUDA, and neither
does the agent. When the agent forks the ranks, it has threads of torchrun (for its store and for the rendezvous); a
rank uses none of their state, and reaches the store through a socket. The server does not import modules of the user,
so their side effects happen in each rank.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import UserError
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.processes import call_process, die_with_parent
from drumbeat.data.fork import WARNING
from drumbeat.trainers.import_times import since_start, variables
from drumbeat.trainers.target import locate

OURS = {"drumbeat", "torch", "torchvision"}
"""Packages whose modules the server may import."""
ALWAYS = ("torch.distributed.run", "torch._dynamo", "torch.utils.tensorboard", "drumbeat.trainers.worker")
"""torch.optim and torchvision import torch._dynamo."""


def main(run_dir: str) -> None:
    """Carries out orders until the input ends."""
    call_process("forkserver")
    import_ahead(RunDir(Path(run_dir)))
    imports = since_start()
    if imports.are_slow:
        print(f"note: {imports.message}", file=sys.stderr, flush=True)
    more = variables(imports)
    gc.collect()
    gc.freeze()  # or the first collection in each rank would copy all these pages
    for line in sys.stdin:
        print(carry_out(json.loads(line), more), flush=True)
        more = {}


def import_ahead(run: RunDir) -> None:
    """Imports the modules that the ranks need. Errors are ignored here: the ranks report them."""
    for name in ALWAYS:
        importlib.import_module(name)
    with suppress(UserError, OSError):
        config = read(run.config)
        for address in targets(dataclasses.asdict(config)):
            if address.partition(".")[0] in OURS:
                with suppress(Exception):
                    locate(address, "")
        if config.compile:
            with suppress(Exception):
                import_compiler(config.compile)


def import_compiler(arguments: Mapping[str, Any]) -> None:
    """Imports the compiler that `torch.compile` uses with these arguments, which compiles nothing yet, and computes the
    digests of its own code by which it finds kernels (internal to torch, read in 2.14.1)."""
    import torch

    torch.compile(torch.nn.Identity(), **arguments)
    if cache := sys.modules.get("torch._inductor.codecache"):
        cache.torch_key()
        cache.triton_key()


def targets(node: Any) -> Iterator[str]:
    """All `_target_` addresses in a config."""
    if isinstance(node, dict):
        if node.get("_target_"):
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list | tuple):
        for part in node:
            yield from targets(part)


def carry_out(order: dict[str, Any], more: Mapping[str, str]) -> int:
    """Forks an agent and waits for it. Returns its exit code, negative for a signal. An order contains torchrun's
    arguments, environment variables, to which `more` are added, and the log to write to."""
    server = os.getpid()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        die_with_parent(server)
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, number in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, number)
        os.environ |= order["environment"] | more | {"DRUMBEAT_PARENT": str(server)}
        agent(order["arguments"])
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError):  # the log's disk may be full
            sys.stdout.flush()
        os._exit(code)


def agent(arguments: list[str]) -> None:
    """Runs torchrun with these arguments, as `torch.distributed.run.run` does, but with ranks forked from this process.

    A process that has initialized CUDA cannot fork processes that use CUDA, and `LaunchConfig` asks for the number of
    devices unless it has `numa_options` (read in torch 2.9, 2.13 and 2.14). So it gets some, which are removed again
    before they have an effect. If anything else has initialized CUDA, the ranks start as new processes, as torchrun
    does by default, which only costs the time to import torch.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import record
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args, run_script_path

    from drumbeat.trainers.store import listen_narrowly

    call_process("pt_elastic")  # torchrun's own name for it, by which it is found
    listen_narrowly()
    args = parse_args(["--numa-binding=node", f"--log-dir={os.devnull}", *arguments])
    config, command, arguments = config_from_args(args)
    config.numa_options = None
    config.logs_specs = without_files(DefaultLogsSpecs)
    if forks_may_use_cuda():
        script = str(importlib.import_module(args.training_script).__file__) if args.module else args.training_script
        command, arguments, config.start_method = run_script_path, [script, *args.training_script_args], "fork"
    else:
        print("CUDA is in use in the process that starts the ranks, so they are not forked: each imports torch again",
              flush=True)
    # When a rank fails, torchrun sends the others SIGTERM, which they ignore, and SIGKILL half a minute later.
    BaseProcess.terminate = BaseProcess.kill  # type: ignore[method-assign]
    warnings.filterwarnings("ignore", WARNING, DeprecationWarning, module="multiprocessing.popen_fork")
    record(elastic_launch(config, command))(*arguments)


def without_files(base: Any) -> Any:
    """torchrun's description of its log files, without any: otherwise each attempt would leave a folder in /tmp, and a
    thread for each rank would read /dev/null (read in torch 2.9.0 and 2.14.1)."""
    class NoFiles(base):  # type: ignore[misc]
        def reify(self, envs: Any) -> Any:
            return dataclasses.replace(super().reify(envs), tee_stdouts={}, tee_stderrs={})

    return NoFiles(log_dir=os.devnull)


def forks_may_use_cuda() -> bool:
    """Whether a process forked from this one may use CUDA: a temporary child checks itself."""
    import torch

    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    os._exit(torch.cuda._is_in_bad_fork())


if __name__ == "__main__":
    main(sys.argv[1])
