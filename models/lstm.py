"""A recurrent network that reads texts."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class HasValues(Protocol):
    """Pretrained word vectors, as `drumbeat.data.glove` gives them."""

    values: Tensor
    """float32 [V, D]; zero for a word that has none."""
    found: Tensor
    """bool [V]: which words have one."""


class LSTM(nn.Module):
    """Word vectors, an LSTM over them, and a linear layer on its last hidden state.

    Texts as (ids int64 [N, T], lengths int64 [N]) -> logits [N, classes]. The sequences are packed, so that padding is
    never read: the last state is that of a text's own last word, and in the other direction of its first. With
    `bidirectional` both are put side by side, twice `hidden` wide. Dropout stands between the layers and before the
    linear one. Packing reads the lengths on the CPU: leave them there, so that the host need not wait for a GPU.

    `vocabulary` is the number of words, `padding` the number of the padding, `embedding` the width of a word's vector.
    With `vectors`, the words that have one start from it. Raises `ValueError` where they are of another vocabulary or
    width.
    """

    def __init__(self, *, vocabulary: int, classes: int, padding: int = 0, embedding: int = 100, hidden: int = 256,
                 layers: int = 1, bidirectional: bool = False, dropout: float = 0.5,
                 vectors: HasValues | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=padding)
        if vectors is not None:
            self._start_from(vectors)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=layers, bidirectional=bidirectional, batch_first=True,
                            dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden * (1 + bidirectional), classes)

    def forward(self, texts: tuple[Tensor, Tensor]) -> Tensor:
        if isinstance(texts, Tensor):
            raise TypeError(f"this model reads texts, (ids, lengths), and was given one tensor {list(texts.shape)}")
        ids, lengths = texts
        lengths, order = lengths.cpu().sort(descending=True)  # torch would copy the order to a GPU and wait for it
        order = (order.pin_memory() if ids.device.type == "cuda" else order).to(ids.device, non_blocking=True)
        packed = pack_padded_sequence(self.embedding(ids[order]), lengths, batch_first=True)
        _, (last, _) = self.lstm(packed)  # [layers * directions, N, hidden], the last layer at the end
        state = torch.cat([last[-2], last[-1]], dim=1) if self.lstm.bidirectional else last[-1]
        return self.head(self.dropout(state[order.argsort()]))  # type: ignore[no-any-return]

    def _start_from(self, vectors: HasValues) -> None:
        weight = self.embedding.weight
        if vectors.values.shape != weight.shape:
            raise ValueError(f"the vectors are {list(vectors.values.shape)} (words, width), the embedding is "
                             f"{list(weight.shape)}; take those of the same words, and model.embedding="
                             f"{vectors.values.shape[1]}")
        with torch.no_grad():
            has = vectors.found[:, None].to(weight.device)
            weight.copy_(torch.where(has, vectors.values.to(weight.device), weight))
