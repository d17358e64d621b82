"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with ReLU and dropout between them.

    Inputs float [N, ...] with `in_features` values per sample -> logits [N, classes]. With `log_softmax`, the outputs
    are log-probabilities, for a loss such as torch.nn.NLLLoss.
    """

    def __init__(self, *, in_features: int, classes: int, hidden_sizes: Sequence[int] = (256, 128),
                 dropout: float = 0.25, log_softmax: bool = False) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip([in_features, *hidden_sizes], hidden_sizes, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear([in_features, *hidden_sizes][-1], classes))
        if log_softmax:
            layers.append(nn.LogSoftmax(dim=1))
        super().__init__(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)  # type: ignore[no-any-return]
