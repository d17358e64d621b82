"""What the errors of CUDA, NCCL and torch mean, by their texts in public reports; and which of them only follow from
another rank's."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.launch.attempts.meanings import CONSEQUENCES, explain, last_error

NCCL = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:93, "
SYSTEM = (NCCL + "unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclSystemError: "
          "System call (e.g. socket, malloc) or external library call failed or device error.\nLast error:\n")
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.02 GiB is "
    "free. Including non-PyTorch memory, this process has 78.12 GiB memory in use. Of the allocated memory 70.00 GiB "
    "is allocated by PyTorch, and {unallocated} is reserved by PyTorch but unallocated. If reserved but unallocated "
    "memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.")


@pytest.mark.parametrize(("kind", "message", "meaning", "fix"), [
    ("OutOfMemoryError", OUT_OF_MEMORY.format(unallocated="512.00 MiB"), "ran out of GPU memory",
     "lower micro_batch_size"),
    ("OutOfMemoryError", OUT_OF_MEMORY.format(unallocated="5.00 GiB"), "ran out of GPU memory",
     "lower micro_batch_size, or set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"),
    ("AcceleratorError", "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'", "ran out of GPU memory",
     "lower micro_batch_size"),
    ("DistBackendError", NCCL + "unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.5\n"
     "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'",
     "ran out of GPU memory", "lower micro_batch_size"),
    ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
     "ran out of GPU memory", "lower micro_batch_size"),
    ("RuntimeError", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "failed in cuDNN",
     "too little memory can cause this"),
    ("AcceleratorError", "CUDA error: an illegal memory access was encountered",
     "made an invalid memory access on its GPU", "CUDA_LAUNCH_BLOCKING=1"),
    ("AcceleratorError", "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously repo",
     "used an index out of range on its GPU", "labels outside the model's classes"),
    ("RuntimeError", "CUDA error: uncorrectable ECC error encountered", "had an uncorrectable memory error on its GPU",
     "report that node"),
    ("RuntimeError", "CUDA error: uncorrectable NVLink error detected during the execution",
     "had an NVLink error", "report that node"),
    ("RuntimeError", "CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error",
     "had an NVLink error", "report that node"),
    ("RuntimeError", "Xid (PCI:0000:03:00): 79, GPU has fallen off the bus.", "lost its GPU", "report that node"),
    ("AcceleratorError", "CUDA error: no kernel image is available for execution on the device",
     "has a GPU that this torch build does not support", "torch.cuda.get_arch_list()"),
    ("RuntimeError", "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
     "has a GPU driver that is too old for this torch", "update the driver"),
    ("RuntimeError", "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
     "could not use CUDA because the NVLink switches are not initialized", "nvidia-fabricmanager"),
    ("AcceleratorError", "CUDA error: CUDA-capable device(s) is/are busy or unavailable", "found its GPU busy",
     "exclusive compute mode"),
    ("RuntimeError", "No CUDA GPUs are available", "found no GPU", "CUDA_VISIBLE_DEVICES"),
    ("DistBackendError", NCCL + "invalid usage (run with NCCL_DEBUG=WARN for details), NCCL version 2.27.5\n"
     "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 3000", "was assigned another rank's GPU",
     "give each rank its own"),
    ("DistBackendError", SYSTEM + "Error while creating shared memory segment /dev/shm/nccl-pZafXL (size 7340384)",
     "ran out of shared memory (/dev/shm is full)", "--shm-size"),
    ("RuntimeError", "DataLoader worker (pid 955) is killed by signal: Bus error. It is possible that dataloader's "
     "workers are out of shared memory.", "ran out of shared memory (/dev/shm is full)", "--shm-size"),
    ("RuntimeError", "[enforce fail at ../gloo/transport/tcp/device.cc:84] ifa != nullptr. Unable to find address for: "
     "ib0", "found no address for its network interface", "GLOO_SOCKET_IFNAME"),
    ("DistBackendError", SYSTEM, "could not use the network or shared memory for NCCL", "NCCL_DEBUG=INFO"),
    ("DistBackendError", NCCL + "internal error - please report this issue to the NCCL developers, NCCL version 2.27.5"
     "\nncclInternalError: Internal check failed.", "failed in NCCL", "NCCL_DEBUG=INFO"),
    ("RuntimeError", "CUDA error: unknown error", "failed on its GPU", ""),
    ("ValueError", "CUDA is a word like any other", "failed", ""),
])
def test_what_it_means_and_what_to_do(kind: str, message: str, meaning: str, fix: str) -> None:
    what, text, remedy = explain(kind, message)
    assert what == meaning
    assert text.startswith(f"{kind}: {message.splitlines()[0][:60]}".rstrip("."))
    assert fix in remedy
    assert bool(fix) == bool(remedy)
    assert not CONSEQUENCES.match(f"{kind}: {message}")


def test_the_expandable_segments_of_the_allocator_are_named_where_they_help() -> None:
    assert "expandable" not in explain("OutOfMemoryError", OUT_OF_MEMORY.format(unallocated="512.00 MiB"))[2]
    assert "expandable" not in explain("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB.")[2]


def test_nccls_last_error_is_added_to_torchs_first_line() -> None:
    message = NCCL + ("unhandled cuda error, NCCL version 2.27.5\nncclUnhandledCudaError: Call to CUDA function failed."
                      "\nLast error:\nCuda failure 999 'unknown error'")
    text = explain("DistBackendError", message)[1]
    assert text.endswith("unhandled cuda error, NCCL version 2.27.5 (Cuda failure 999 'unknown error')")


@pytest.mark.parametrize("message", [
    "[../third_party/gloo/gloo/transport/tcp/pair.cc:545] Connection closed by peer [10.0.0.1]:32456",
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.1]:32456: Connection reset by peer",
    "[../third_party/gloo/gloo/transport/tcp/buffer.cc:132] Application timeout caused pair closure",
    "[/pytorch/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation to complete",
    "failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?",
    "recvValue failed on SocketImpl(fd=4, addr=[n1]:43210, remote=[n1]:29500): Connection reset by peer",
    "wait timeout after 600000ms, keys: /default_pg/0//cpu//0/0",
    "The client socket has timed out after 600000ms while trying to connect to (n1, 29500).",
    NCCL + "remote process exited or there was a network error, NCCL version 2.27.5\nncclRemoteError: A call failed "
    "possibly due to a network error or a remote process exiting prematurely.\nLast error:\nsocketProgress: Connection "
    "closed by remote peer n2<52120>",
    NCCL + "internal error, NCCL version 2.14.3\nncclInternalError: Internal check failed.\nLast error:\nNet : "
    "Connection closed by remote peer n2<50260>",
    "NCCL communicator was aborted on rank 0. Original reason for failure was: ...",
    "NET/IB : Got completion from peer 11.214.147.122<39138> with error 12, opcode 0, len 0, vendor err 129",
    "NET/IB: Got completion from peer 10.0.0.2<41000> with status=12 opcode=129 len=0 vendor err 129",
    "Some NCCL operations have failed or timed out. Due to the asynchronous nature of CUDA kernels, subsequent GPU "
    "operations might run on corrupted/incomplete data.",
    "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1522789, OpType=_ALLGATHER_BASE, "
    "NumelIn=298960, NumelOut=4783360, Timeout(ms)=600000) ran for 600093 milliseconds before timing out.",
    "[PG ID 0 PG GUID 0(default_pg) Rank 3] Terminating the process after attempting to dump debug info, due to "
    "collective timeout or exception.",
])
def test_errors_about_another_rank(message: str) -> None:
    assert CONSEQUENCES.match(f"RuntimeError: {message}")
    assert CONSEQUENCES.match(f"DistBackendError: {message}")


def test_a_file_server_that_closes_a_connection_is_not_another_rank() -> None:
    assert not CONSEQUENCES.match("ConnectionResetError: [Errno 104] Connection reset by peer")
    assert not CONSEQUENCES.match("BrokenPipeError: [Errno 32] Broken pipe")


SEMAPHORE = """\
Traceback (most recent call last):
  File "/python3.11/multiprocessing/context.py", line 68, in Lock
    return Lock(ctx=self.get_context())
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/python3.11/multiprocessing/synchronize.py", line 57, in __init__
    sl = self._semlock = _multiprocessing.SemLock(
                         ^^^^^^^^^^^^^^^^^^^^^^^^^
OSError: [Errno 28] No space left on device
"""
FULL_DISK = """\
Traceback (most recent call last):
  File "/lab/own.py", line 7, in write
    file.write(content)
OSError: [Errno 28] No space left on device
"""


def test_a_full_shared_memory_is_not_called_a_full_disk() -> None:
    """The message is the same; the line of code that failed is not."""
    kind, message = "OSError", "[Errno 28] No space left on device"
    assert explain(kind, message, SEMAPHORE)[0] == "ran out of shared memory (/dev/shm is full)"
    assert explain(kind, message, FULL_DISK)[0] == explain(kind, message)[0] == "ran out of disk space"


def test_the_last_exception_in_a_log(tmp_path: Path) -> None:
    log = tmp_path / "node0.log"
    assert last_error(log) == ""
    log.write_text(f"{FULL_DISK}\nDuring handling of the above exception, another exception occurred:\n\n{SEMAPHORE}")
    assert last_error(log) == ("it ran out of shared memory (/dev/shm is full): OSError: [Errno 28] No space left on "
                               "device; enlarge /dev/shm: --shm-size=1g or --ipc=host in Docker")
    log.write_text("Traceback (most recent call last):\n  File\na.b.ChildFailedError: \n====\n")
    assert last_error(log) == "", "about a rank, which torchrun reports"
