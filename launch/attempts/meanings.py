"""What the errors of ranks mean and how to fix them, for the verdict; and which errors are consequences of another
rank's failure.

The patterns match texts of the CUDA runtime 13.0 (cudaGetErrorString), of NCCL 2.30 (ncclGetErrorString and the
warnings that torch quotes as "Last error"), of torch 2.9 to 2.14 with its gloo, and of public bug reports.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from drumbeat.launch.attempts.logs import end_of

CONSEQUENCES = re.compile(r"^(RuntimeError|Dist\w+|N\w+FiniteError): [\s\S]*(" + "|".join([
    # gloo
    r"[Cc]onnection closed by peer", r"[Cc]onnection reset by peer", r"Broken pipe", r"Socket closed",
    r"Application timeout caused pair closure", r"Timed out waiting \d+ms for",
    # torch's store
    r"Connection was likely closed", r"recvValue\w* failed", r"sendBytes failed", r"wait timeout after \d+ms",
    r"Socket Timeout", r"socket has timed out after",
    # NCCL; status 12 means that the peer does not respond
    r"remote process exited or there was a network error", r"ncclRemoteError", r"NCCL communicator was aborted",
    r"Connection closed by (remote peer|localRank)", r"Got completion from peer .*(status=|error )12\b",
    # torch's watchdog for NCCL
    r"Some NCCL operations have failed or timed out", r"Watchdog caught collective operation timeout",
    r"timed out in blocking wait", r"due to (a )?collective timeout", r"due to ProcessGroupNCCL watchdog hang",
    # Drumbeat
    r"the loss of rank \d+ is finite", r"rank \d+ is out of memory with one sample at a time",
]) + ")")
"""Type and message of errors that are a consequence of another rank that failed, hangs, or cannot be reached. An
OSError with the same message has another cause, such as a file server."""


@dataclass(frozen=True)
class Meaning:
    """The meaning of a class of errors."""

    pattern: str
    """Matches the error's type and message."""
    description: str
    """What happened; follows the name of the rank."""
    fix: str = ""
    """How to fix it."""
    hardware: bool = False
    """Whether the machine is the reason, whatever the code does. Only for errors of the kinds in `OF_TORCH`."""
    in_code: bool = False
    """Whether the lines of code that failed are searched, too."""


OF_TORCH = re.compile(r"(.*\.)?(RuntimeError|AcceleratorError|Dist\w+)")
"""The kinds of errors by which torch reports one of CUDA or NCCL."""


BROKEN_GPU = "report that node to its administrator"
UNKNOWN = "failed"
"""The description of an error whose meaning is not known."""
MEANINGS = (
    Meaning(r"^OutOfMemoryError: with one sample at a time", "has too little memory for one sample",
            "train with less for each sample: recompute, a lower precision, smaller inputs or a smaller model"),
    Meaning(r"^OutOfMemoryError|CUDA( driver)?( error:)? out of memory|Cuda failure .*out of memory|"
            r"STATUS_ALLOC_FAILED",
            "ran out of GPU memory", "lower micro_batch_size"),
    Meaning(r"can't allocate memory|MemoryError|Cannot allocate memory", "ran out of memory",
            "request more memory, or lower data.workers"),
    Meaning(r"/dev/shm|SemLock\(|shared memory segment|out of shared memory|unable to write to file </torch",
            "ran out of shared memory (/dev/shm is full)", "enlarge /dev/shm: --shm-size=1g or --ipc=host in Docker",
            in_code=True),
    Meaning(r"^RuntimeError: DataLoader worker \(pid", "lost a loader worker"),
    Meaning(r"^SaveError", "could not save a checkpoint"),
    Meaning(r"No space left", "ran out of disk space"),
    Meaning(r"device-side assert", "used an index out of range on its GPU",
            "check for labels outside the model's classes; on the CPU (--gpus 0) the error names the line"),
    Meaning(r"uncorrectable ECC", "had an uncorrectable memory error on its GPU", BROKEN_GPU, hardware=True),
    Meaning(r"(?i)NVLink", "had an NVLink error", BROKEN_GPU, hardware=True),
    Meaning(r"fallen off the bus|GPU is lost|GPU requires reset|\bXid\b", "lost its GPU", BROKEN_GPU, hardware=True),
    Meaning(r"illegal memory access|misaligned address|unspecified launch failure|hardware stack error",
            "made an invalid memory access on its GPU",
            "CUDA_LAUNCH_BLOCKING=1 shows the call; if it differs each time, the GPU may be faulty"),
    Meaning(r"no kernel image is available", "has a GPU that this torch build does not support",
            "install a torch build for it: torch.cuda.get_arch_list() lists what this build supports"),
    Meaning(r"driver on your system is too old|driver version is insufficient|unsupported display driver",
            "has a GPU driver that is too old for this torch", "update the driver, or install torch for an older CUDA"),
    Meaning(r"system not yet initialized", "could not use CUDA because the NVLink switches are not initialized",
            "start nvidia-fabricmanager on that node", hardware=True),
    Meaning(r"busy or unavailable", "found its GPU busy",
            "nvidia-smi shows its processes; in exclusive compute mode only one may use it"),
    Meaning(r"Duplicate GPU detected", "was assigned another rank's GPU",
            "give each rank its own GPU in CUDA_VISIBLE_DEVICES"),
    Meaning(r"No CUDA GPUs are available|no CUDA-capable device|Found no NVIDIA driver|invalid device ordinal",
            "found no GPU", "compare nvidia-smi on that node with CUDA_VISIBLE_DEVICES and --gpus"),
    Meaning(r"CUDNN_STATUS|cuDNN error", "failed in cuDNN",
            "lower micro_batch_size, because too little memory can cause this; otherwise check that the driver fits "
            "this torch"),
    Meaning(r"ncclSystemError|unhandled system error", "could not use the network or shared memory for NCCL",
            "NCCL_DEBUG=INFO shows which; a container may need a larger /dev/shm"),
    Meaning(r"no socket interface found", "found no network interface for NCCL", "set NCCL_SOCKET_IFNAME"),
    Meaning(r"Unable to find address for", "found no address for its network interface",
            "set GLOO_SOCKET_IFNAME to an interface that has an address, or unset it"),
    Meaning(r"NCCL error|ncclInternalError|ncclInvalid|ncclUnhandledCudaError", "failed in NCCL",
            "NCCL_DEBUG=INFO shows more"),
    Meaning(r"CUDA error|CUBLAS_STATUS", "failed on its GPU"),
)
"""The first match applies."""

ABORT = re.compile(r"(?:watchdog thread terminated with exception: |^  what\(\):\s+|attempting to dump debug info, )"
                   r"(.+?)(?=\nException raised|\nterminate called|\nFatal Python|\Z)", re.DOTALL | re.MULTILINE)
"""In a rank's log: why a thread of torch ended the process with SIGABRT, in which case Python raises no exception."""
INNERMOST = 4
"""Lines at the end of a traceback: of the innermost call, and the message."""


TRACEBACK = re.compile(r"^Traceback \(most recent call last\):\n(?: .*\n)+(?P<kind>[\w.]+): (?P<message>.*)",
                       re.MULTILINE)
"""An exception of Python in a log."""


def last_error(log: Path) -> str:
    """The last exception in the log of a torchrun that has failed, as text; '' if there is none."""
    found = list(TRACEBACK.finditer(end_of(log)))
    if not found or found[-1]["kind"].endswith("ChildFailedError"):  # which is about a rank
        return ""
    what, line, fix = explain(found[-1]["kind"], found[-1]["message"], found[-1][0])
    return f"it {what}: {line}{f'; {fix}' if fix else ''}"


UNREADABLE = ("UnreadableError", "DamagedSampleError")
"""Errors of a sample whose file cannot be read: `data/user_code.py`."""
SELF_EXPLANATORY = ("SampleError", "CollateError", *UNREADABLE)
"""Errors whose message names the sample, the error of the user's code and its line."""

LONGEST = 400
"""Characters of an error's line."""


def explain(kind: str, message: str, traceback: str = "") -> tuple[str, str, str]:
    """What happened, the error in one line, and how to fix it, which may be ''. The line of code that failed may tell
    more than the message: a full disk and a full /dev/shm have the same one."""
    lines = message.strip().splitlines() or [""]
    last = next((after for line, after in pairwise(lines) if line == "Last error:"), "")
    named = "" if kind in SELF_EXPLANATORY else f"{kind}: "
    error = f"{named}{lines[0]}"[:LONGEST].rstrip(".") + (f" ({last[:200]})" if last else "")
    meaning = meaning_of(kind, message, traceback)
    more = ", or set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True" if fragmented(message) else ""
    return meaning.description, error, meaning.fix + more


def meaning_of(kind: str, message: str, traceback: str = "") -> Meaning:
    """The meaning of an error."""
    code = "\n".join(traceback.splitlines()[-INNERMOST:-1])
    return next((one for one in MEANINGS if (OF_TORCH.fullmatch(kind) or not one.hardware)
                 and re.search(one.pattern, f"{kind}: {message}\n{code if one.in_code else ''}")), Meaning("", UNKNOWN))


def fragmented(message: str) -> bool:
    """Whether fragmentation is the cause: torch has reserved, but not allocated, as much memory as it tried to
    allocate."""
    sizes = [re.search(pattern, message) for pattern in (
        r"Tried to allocate ([\d.]+) ([KMG]iB)", r"([\d.]+) ([KMG]iB) is reserved by PyTorch but unallocated")]
    tried, reserved = (float(size[1]) * 1024 ** "KMG".index(size[2][0]) if size else None for size in sizes)
    return tried is not None and reserved is not None and reserved >= tried and "expandable_segments:True" in message


def abort_message(log: Path) -> str:
    """Why torch aborted a rank, from the end of its log; '' if it did not."""
    found = ABORT.search(end_of(log))
    return found[1].partition("terminated with exception: ")[2] or found[1] if found else ""
