"""Optimizers and schedulers as people write them: their state is in other optimizers, in dicts, and in attributes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler


class Chained(torch.optim.Optimizer):
    """Muon for matrices, AdamW for the rest."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        parameters = list(parameters)
        self.inner = {
            "matrices": torch.optim.Muon([one for one in parameters if one.dim() == 2], lr=lr),
            "rest": torch.optim.AdamW([one for one in parameters if one.dim() != 2], lr=lr)}
        super().__init__(parameters, {"lr": lr})
        self.param_groups = [group for one in self.inner.values() for group in one.param_groups]

    def step(self) -> None:  # type: ignore[override]
        for one in self.inner.values():
            one.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: one.state_dict() for name, one in self.inner.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, one in self.inner.items():
            one.load_state_dict(state_dict[name])
        self.param_groups = [group for one in self.inner.values() for group in one.param_groups]


class Forgetful(Chained):
    """The same, with torch's own state dict, which has nothing of the inner optimizers."""

    state_dict = torch.optim.Optimizer.state_dict
    load_state_dict = torch.optim.Optimizer.load_state_dict  # type: ignore[assignment]


class Lookahead(torch.optim.Optimizer):
    """Slow weights follow the fast ones every third step, as in timm: the fast optimizer holds them."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        self.fast = torch.optim.SGD(parameters, lr=lr, momentum=0.9)
        super().__init__(self.fast.param_groups, {"lr": lr})
        self.param_groups = self.fast.param_groups
        self.state = self.fast.state
        for group in self.param_groups:
            group["lookahead_step"] = 0

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self.fast.step()
        for group in self.fast.param_groups:
            group["lookahead_step"] += 1
            for one in group["params"]:
                state = self.fast.state[one]
                if "slow" not in state:
                    state["slow"] = one.clone()
                if group["lookahead_step"] % 3 == 0:
                    state["slow"].lerp_(one, 0.5)
                    one.copy_(state["slow"])


class Averaged(torch.optim.SGD):
    """Slow weights in its own state, and the fast optimizer's state in an attribute: torch's state dict has the first
    alone. So do the common implementations of SAM with their `base_optimizer`."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.base_optimizer = torch.optim.Adam(self.param_groups, lr=lr)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for one in group["params"]:
                self.state[one].setdefault("history", []).append(one.clone())
                self.state[one]["history"] = self.state[one]["history"][-2:]
        self.base_optimizer.step()
        for group in self.param_groups:
            for one in group["params"]:
                one.lerp_(torch.stack(self.state[one]["history"]).mean(0), 0.3)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.base_optimizer.param_groups = self.param_groups


class Wide(torch.optim.Optimizer):
    """State of other types than its parameters: float64, int16, complex64, text, a set and a number by an int key."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": torch.tensor(lr), "betas": (0.5, 0.9)})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for one in group["params"]:
                assert one.grad is not None
                state = self.state[one]
                if not state:
                    state |= {"mean": torch.zeros_like(one, dtype=torch.float64),
                              "phase": torch.zeros(2, dtype=torch.complex64), "name": "wide",
                              "signs": torch.zeros_like(one, dtype=torch.int16), "seen": set(),
                              "last": deque(maxlen=3), 7: 0}
                state["mean"].lerp_(one.grad.double() / 3, group["betas"][0])
                state["phase"] += complex(one.grad.sum().item(), 1)
                state["signs"] += one.grad.sign().short()
                state[7] += 1
                state["seen"].add(state[7] % 3)
                state["last"].append(float(one.grad.sum()))
                assert state["name"] == "wide"
                factor = state["phase"].abs().mean().float() + len(state["seen"]) + sum(state["last"])
                one.sub_((state["mean"].float() + 1e-3 * state["signs"]) * group["lr"] / factor)


class ScheduleFree(torch.optim.Optimizer):
    """SGD with an average of its weights in place of a schedule, by the equations of Defazio et al. 2024: gradients are
    taken at y, steps at z, and x is evaluated. To switch between x and y rounds, as in the `schedulefree` package."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, beta: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "beta": beta, "k": 0, "is_training": False})

    @torch.no_grad()
    def _switch(self, train: bool) -> None:
        for group in self.param_groups:
            weight = 1 - group["beta"] if train else 1 - 1 / group["beta"]
            for one in group["params"] if group["is_training"] != train else ():
                if self.state[one]:
                    one.lerp_(self.state[one]["z"], weight)
            group["is_training"] = train

    def train(self) -> None:
        self._switch(True)

    def eval(self) -> None:
        self._switch(False)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            assert group["is_training"], "call train() first"
            group["k"] += 1
            for one in group["params"]:
                state, beta = self.state[one], group["beta"]
                state.setdefault("z", one.clone())
                x = one.lerp(state["z"], 1 - 1 / beta)
                state["z"] -= group["lr"] * one.grad
                x.lerp_(state["z"], 1 / group["k"])
                one.copy_(x.lerp(state["z"], 1 - beta))


class Closing(torch.optim.SGD):
    """Its step computes the loss again, as that of SAM does."""

    def step(self, closure: Any) -> None:  # type: ignore[override]
        super().step(closure)


def decayed(named_parameters: Iterable[tuple[str, Tensor]], lr: float) -> torch.optim.Optimizer:
    """AdamW that decays what is called a weight."""
    named = [*named_parameters]
    return torch.optim.AdamW([{"params": [one for name, one in named if name.endswith("weight")]},
                              {"params": [one for name, one in named if not name.endswith("weight")],
                               "weight_decay": 0.0}], lr=lr)


class ByName(LRScheduler):
    """A scheduler that holds others in a dict."""

    def __init__(self, optimizer: torch.optim.Optimizer, switch: int) -> None:
        self.inner = {"warm": LinearLR(optimizer, total_iters=switch), "main": CosineAnnealingLR(optimizer, T_max=9)}
        self.switch = switch
        self.calls: Counter[str] = Counter()
        self.scale = lambda rate: rate
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        self.last_epoch = getattr(self, "last_epoch", -1) + 1
        name = "warm" if self.last_epoch < self.switch else "main"
        self.calls[name] += 1
        if self.last_epoch:
            self.inner[name].step()
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class Plain:
    """A scheduler that is not torch's, and tells its state."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.calls = {0: 0}

    def step(self) -> None:
        self.calls[0] += 1
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1 / (1 + self.calls[0])

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


class Attributes(Plain):
    """One that tells nothing of its state."""

    state_dict = load_state_dict = None  # type: ignore[assignment]
