"""Kernels: deterministic or tried out, and where a GPU may round to TF32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from drumbeat.trainers.kernels import prefer_determinism, set_precision
from tests.trainers.small_phase import POINTS, runner


@pytest.fixture
def as_before() -> Iterator[None]:
    """torch's settings, put back at the end."""
    mode, threads, benchmark = torch.get_deterministic_debug_mode(), torch.get_num_threads(), (
        torch.backends.cudnn.benchmark)
    yield
    torch.set_deterministic_debug_mode(mode)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark
    set_precision("auto")


@pytest.mark.parametrize(("precision", "products", "convolutions"), [
    ("auto", False, True), ("bf16", False, True), ("tf32", True, True), ("fp32", False, False)])
@pytest.mark.parametrize("before", ["tf32", "fp32"])
def test_where_a_gpu_may_round_to_tf32(as_before: None, precision: str, products: bool, convolutions: bool,
                                       before: str) -> None:
    """Whatever was set before; and torch can be asked in all its ways."""
    set_precision(before)
    set_precision(precision)
    assert torch.backends.cuda.matmul.allow_tf32 is products
    assert torch.backends.cudnn.allow_tf32 is convolutions
    assert torch.get_float32_matmul_precision() == ("high" if products else "highest")
    assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is products
    assert [one.fp32_precision == "tf32" for one in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn)] == [
        convolutions, convolutions]
    with torch.backends.cudnn.flags(enabled=False):
        pass


def test_tf32_is_fp32_on_the_cpu(as_before: None) -> None:
    products = []
    for precision in ("fp32", "tf32"):
        set_precision(precision)
        one = runner(precision=precision)
        assert not one.forward.bf16
        with one.forward.autocast():
            products.append(one.model(POINTS) @ POINTS.new_ones(4, 4))
    assert torch.equal(*products)


@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_are_tried_out_where_they_need_not_be_deterministic(as_before: None, deterministic: bool) -> None:
    prefer_determinism(deterministic=deterministic, threads=1)
    assert torch.backends.cudnn.benchmark is not deterministic
