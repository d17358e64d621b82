"""Versions as text, and what has changed since a checkpoint."""

from __future__ import annotations

from dataclasses import replace

from drumbeat.configs.run.versions import Versions, changes

GPU = Versions(drumbeat="0.1.0", python="3.11.2", torch="2.14.1", torchvision="0.29.1", cuda="13.0", nccl="2.28.9",
               device="NVIDIA H100", precision="bf16")
CPU = replace(GPU, cuda=None, nccl=None, torchvision=None, device="Xeon", precision="fp32")
END = ": the result may differ in its last digits"


def test_a_line_for_the_software_and_one_for_the_hardware() -> None:
    assert GPU.software() == "torch 2.14.1, torchvision 0.29.1, CUDA 13.0, NCCL 2.28.9, Python 3.11.2, Drumbeat 0.1.0"
    assert CPU.software() == "torch 2.14.1, Python 3.11.2, Drumbeat 0.1.0"
    assert (GPU.hardware(), Versions().hardware()) == ("NVIDIA H100, bf16", "")


def test_each_change_is_a_sentence() -> None:
    assert changes(GPU, replace(GPU, torch="2.15.0", precision="fp32")) == (
        f"torch 2.14.1 at the checkpoint, 2.15.0 now{END}", f"precision bf16 at the checkpoint, fp32 now{END}")
    assert changes(CPU, GPU)[:2] == (f"torchvision none at the checkpoint, 0.29.1 now{END}",
                                     f"CUDA none at the checkpoint, 13.0 now{END}")


def test_what_is_the_same_or_unknown_is_no_change() -> None:
    assert changes(GPU, GPU) == ()
    assert changes(None, GPU) == ()  # a checkpoint without versions
    assert changes(replace(GPU, nccl="", device=""), GPU) == ()
