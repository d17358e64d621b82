"""What the errors of ranks mean, and what to do: in words for whoever reads the verdict. And which errors only follow
from another rank's.

The texts are those of the CUDA runtime 13.0 (cudaGetErrorString), of NCCL 2.30 (ncclGetErrorString, its warnings, which
torch quotes as "Last error"), of torch 2.9 to 2.14 and of its gloo, and of public reports of users.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

CONSEQUENCES = re.compile(r"^(RuntimeError|Dist\w+|NotFiniteError): [\s\S]*(" + "|".join([
    # gloo
    r"[Cc]onnection closed by peer", r"[Cc]onnection reset by peer", r"Broken pipe", r"Socket closed",
    r"Application timeout caused pair closure", r"Timed out waiting \d+ms for",
    # torch's store
    r"Connection was likely closed", r"recvValue\w* failed", r"sendBytes failed", r"wait timeout after \d+ms",
    r"Socket Timeout", r"socket has timed out after",
    # NCCL; the status is that of a peer that does not answer
    r"remote process exited or there was a network error", r"ncclRemoteError", r"NCCL communicator was aborted",
    r"Connection closed by (remote peer|localRank)", r"Got completion from peer .*(status=|error )12\b",
    # torch's watchdog for NCCL
    r"Some NCCL operations have failed or timed out", r"Watchdog caught collective operation timeout",
    r"timed out in blocking wait", r"due to (a )?collective timeout", r"due to ProcessGroupNCCL watchdog hang",
    # our own
    r"the loss of rank \d+ is finite",
]) + ")")
"""Errors of ranks that fail because another one has gone, hangs, or cannot be reached: their type and message. An
OSError that says the same is about something else, such as a file server."""


@dataclass(frozen=True)
class Meaning:
    """What errors of a kind mean."""

    pattern: str
    """Of the error's type and message."""
    words: str
    """What happened, after the name of the rank."""
    fix: str = ""
    """What to do about it."""


BROKEN_GPU = "leave that node out, and tell its administrator"
MEANINGS = (
    Meaning(r"^OutOfMemoryError|CUDA( driver)?( error:)? out of memory|Cuda failure .*out of memory|"
            r"STATUS_ALLOC_FAILED",
            "ran out of GPU memory", "lower micro_batch_size"),
    Meaning(r"can't allocate memory|MemoryError|Cannot allocate memory", "ran out of memory",
            "ask for more, or lower data.workers"),
    Meaning(r"/dev/shm|shared memory segment|out of shared memory|unable to write to file </torch",
            "found too little shared memory", "make /dev/shm larger: --shm-size=1g or --ipc=host in Docker"),
    Meaning(r"^RuntimeError: DataLoader worker \(pid", "lost a loader worker"),
    Meaning(r"^SaveError", "could not save"),
    Meaning(r"No space left", "found the disk full"),
    Meaning(r"device-side assert", "used an index out of range on its GPU",
            "look for labels that the model has no class for; on the CPU (--gpus 0) the error names the line"),
    Meaning(r"uncorrectable ECC", "found its GPU's memory damaged", BROKEN_GPU),
    Meaning(r"(?i)NVLink", "lost the NVLink between GPUs", BROKEN_GPU),
    Meaning(r"fallen off the bus|GPU is lost|GPU requires reset|\bXid\b", "lost its GPU", BROKEN_GPU),
    Meaning(r"illegal memory access|misaligned address|unspecified launch failure|hardware stack error",
            "accessed memory on its GPU that is not its own",
            "CUDA_LAUNCH_BLOCKING=1 shows the call; if it differs each time, suspect the GPU"),
    Meaning(r"no kernel image is available", "has a GPU that this torch is not built for",
            "install a torch built for it: torch.cuda.get_arch_list() lists what this one is built for"),
    Meaning(r"driver on your system is too old|driver version is insufficient|unsupported display driver",
            "has a driver too old for this torch", "update the driver, or install torch for an older CUDA"),
    Meaning(r"system not yet initialized", "found the NVLink switches not ready",
            "have nvidia-fabricmanager started on that node"),
    Meaning(r"busy or unavailable", "found its GPU in use",
            "nvidia-smi shows by whom; in the exclusive compute mode one process may use it"),
    Meaning(r"Duplicate GPU detected", "was given another rank's GPU",
            "give each rank its own in CUDA_VISIBLE_DEVICES"),
    Meaning(r"No CUDA GPUs are available|no CUDA-capable device|Found no NVIDIA driver|invalid device ordinal",
            "did not find its GPU", "compare nvidia-smi on that node with CUDA_VISIBLE_DEVICES and --gpus"),
    Meaning(r"CUDNN_STATUS|cuDNN error", "failed in cuDNN",
            "lower micro_batch_size, as too little memory looks like this too; else compare the versions of driver "
            "and torch"),
    Meaning(r"ncclSystemError|unhandled system error", "could not use the network or shared memory for NCCL",
            "NCCL_DEBUG=INFO tells which; a container may need a larger /dev/shm"),
    Meaning(r"no socket interface found", "found no network interface for NCCL", "set NCCL_SOCKET_IFNAME"),
    Meaning(r"Unable to find address for", "found no such network interface",
            "set GLOO_SOCKET_IFNAME to the name of one with an address, or not at all"),
    Meaning(r"NCCL error|ncclInternalError|ncclInvalid|ncclUnhandledCudaError", "failed in NCCL",
            "NCCL_DEBUG=INFO tells more"),
    Meaning(r"CUDA error|CUBLAS_STATUS", "failed on its GPU"),
)
"""The first that fits holds."""

ABORT = re.compile(r"(?:watchdog thread terminated with exception: |^  what\(\):\s+|attempting to dump debug info, )"
                   r"(.+?)(?=\nException raised|\nterminate called|\nFatal Python|\Z)", re.DOTALL | re.MULTILINE)
"""Why a thread of torch's ended its process by SIGABRT, in the rank's log: there is no exception in Python then."""
TAIL = 1 << 18
"""Bytes at the end of a log that are searched."""


def explain(kind: str, message: str) -> tuple[str, str, str]:
    """What happened, the error in one line, and what to do about it, which may be ''."""
    lines = message.strip().splitlines() or [""]
    last = next((after for line, after in pairwise(lines) if line == "Last error:"), "")
    said = f"{kind}: {lines[0]}"[:300].rstrip(".") + (f" ({last[:200]})" if last else "")
    meaning = next((one for one in MEANINGS if re.search(one.pattern, f"{kind}: {message}")), Meaning("", "failed"))
    more = ", or set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True" if fragmented(message) else ""
    return meaning.words, said, meaning.fix + more


def fragmented(message: str) -> bool:
    """Whether torch says that the memory would have sufficed in one piece: as much as was tried for is reserved but not
    allocated."""
    sizes = [re.search(pattern, message) for pattern in (
        r"Tried to allocate ([\d.]+) ([KMG]iB)", r"([\d.]+) ([KMG]iB) is reserved by PyTorch but unallocated")]
    tried, reserved = (float(size[1]) * 1024 ** "KMG".index(size[2][0]) if size else None for size in sizes)
    return tried is not None and reserved is not None and reserved >= tried and "expandable_segments:True" in message


def abort_message(log: Path) -> str:
    """Why torch ended a rank, from the end of its log; '' where it did not."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            found = ABORT.search(file.read().decode(errors="replace"))
    except FileNotFoundError:
        return ""
    return found[1].partition("terminated with exception: ")[2] or found[1] if found else ""

