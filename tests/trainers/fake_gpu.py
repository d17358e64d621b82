"""A fake GPU: a training step runs on it, on any machine, and the test sees what the host would wait for.

Tensors on the CPU are real. Those on the GPU are torch's fake ones: they have a shape, a type and a device, but no
content. Tensors of two devices in one operation raise, as on a GPU. Each wait of the host is recorded with its line:
reading a value, a blocking copy, and a copy of memory that is not pinned.

Kernels and the backward pass are not tested: autograd's engine needs a driver, so gradients are made without it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.cuda.amp.common
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from drumbeat.configs.load import ROOT

GPU = torch.device("cuda", 0)

READS = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select", "aten::_unique2",
         "aten::unique_consecutive", "aten::equal", "aten::is_nonzero"}
"""Operations that return a value to the host, or a size that depends on values."""


class FakeGpu(TorchDispatchMode):
    """Records what the host waits for. It intercepts every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.fakes = FakeTensorMode()
        self.waits: list[str] = []
        """The operation and the place: "aten::_local_scalar_dense at trainers/phase_runner.py:120"."""
        self.acts: list[str] = []
        """Backward passes, updates and waits for events, in order."""
        self.pinned: set[int] = set()
        """Addresses of pinned memory."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Everything in this context runs on the host of this GPU."""
        with self.fakes, self:
            yield

    def place(self, model: nn.Module) -> nn.Module:
        """Moves a model from the CPU to the GPU."""
        with self.watched():
            for module in model.modules():
                for named, kind in ((module._parameters, nn.Parameter), (module._buffers, Tensor.detach)):
                    for name, value in named.items():
                        if value is not None:
                            named[name] = kind(torch.empty_like(value, device=GPU))
        return model

    def pin(self, values: Any) -> Any:
        """Marks all tensors among the values as pinned, as a loader returns them. Returns the values."""
        tree_map_only(Tensor, lambda one: self.pinned.add(one.untyped_storage().data_ptr()), values)
        return values

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().partition(".")[0]
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if name == "aten::_pin_memory" or name == "aten::pin_memory":
            return self.pin(args[0])
        if not any(isinstance(one, FakeTensor) for one in tensors) and torch.device(
                kwargs.get("device") or "cpu").type == "cpu":
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        on_gpu = any(one.device.type == "cuda" for one in tensors)
        if name in READS:
            if on_gpu:
                self.waits.append(f"{name} at {place()}")
            if "scalar" in name or "item" in name:
                return 0.0 if args[0].dtype.is_floating_point else args[0].dtype == torch.bool or 1
        if name == "aten::_pack_padded_sequence":
            return self._packed(*args)
        if name.startswith("aten::_fused_"):
            self.acts.append("update")
            return None
        if name in ("aten::index", "aten::index_put_") and any(
                one.device.type == "cpu" and one.dim() for one in tensors):
            self.waits.append(f"{name} by a tensor on the host at {place()}")
        faked = tree_map_only(Tensor, lambda one: one if isinstance(one, FakeTensor) else self.fakes.from_tensor(one),
                              (args, kwargs))
        result = func(*faked[0], **faked[1])
        if name in ("aten::_to_copy", "aten::copy_"):
            source, target = (args[0], result) if name == "aten::_to_copy" else (args[1], args[0])
            self._copied(source, target, non_blocking=kwargs.get("non_blocking", len(args) > 2 and args[2]))
        return result

    def _copied(self, source: Tensor, target: Tensor, *, non_blocking: bool) -> None:
        devices = [one.device.type for one in (source, target)]
        if len(set(devices)) == 1:
            return
        host = [one for one in (source, target) if not isinstance(one, FakeTensor)]
        pinned = all(one.untyped_storage().data_ptr() in self.pinned for one in host)
        if not (non_blocking and pinned):
            self.waits.append(f"{' to '.join(devices)}{'' if pinned else ', not pinned,'} at {place()}")

    def _packed(self, texts: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        """As torch packs texts from the longest to the shortest: all tokens, and how many texts have a first token, a
        second one, ..."""
        assert batch_first and not isinstance(lengths, FakeTensor)
        with unset_fake_temporarily():
            tokens, sizes = int(lengths.sum()), (lengths[:, None] > torch.arange(int(lengths[0]))).sum(0)
        return texts.new_empty(tokens, *texts.shape[2:]), sizes


def place() -> str:
    """The innermost line of Drumbeat's code on the stack."""
    ours = [frame for frame in traceback.extract_stack() if frame.filename.startswith(str(ROOT))
            and "site-packages" not in frame.filename and frame.filename != __file__]
    return f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}" if ours else "torch"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A fake GPU for one test."""
    torch._C._ensureCUDADeviceGuardSet()  # type: ignore[attr-defined]  # or what asks which device is current fails
    fake = FakeGpu()
    event = SimpleNamespace(synchronize=lambda: fake.acts.append("wait"))
    stream = SimpleNamespace(record_event=lambda: event, wait_event=lambda event: None,
                             wait_stream=lambda stream: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(),))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: stream)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)  # its RNNs ask the driver what it can do
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(Tensor, "backward", lambda loss, gradient=None: (fake.acts.append("pass"), _backward(loss))[1])
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    yield fake


def _backward(loss: Tensor) -> None:
    """A gradient for each parameter that the loss depends on."""
    nodes, known = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in known:
            continue
        known.add(node)
        nodes += [one for one, _ in node.next_functions]
        if isinstance(variable := getattr(node, "variable", None), Tensor) and variable.grad is None:
            variable.grad = torch.empty_like(variable)
