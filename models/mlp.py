"""Linear layers one after another."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with ReLU and dropout between them.

    Inputs float [N, ...] with `inputs` values each -> logits [N, classes]; with `log_softmax`, the logarithms of the
    classes' probabilities, for a loss such as torch.nn.NLLLoss.
    """

    def __init__(self, *, inputs: int, classes: int, hidden: Sequence[int] = (256, 128), dropout: float = 0.25,
                 log_softmax: bool = False) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip([inputs, *hidden], hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear([inputs, *hidden][-1], classes))
        if log_softmax:
            layers.append(nn.LogSoftmax(dim=1))
        super().__init__(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)  # type: ignore[no-any-return]
