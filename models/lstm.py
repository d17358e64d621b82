"""An LSTM for texts."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class HasValues(Protocol):
    """Pretrained word vectors, as `drumbeat.data.glove` returns them."""

    values: Tensor
    """float32 [V, D]; zeros for a word without a vector."""
    found: Tensor
    """bool [V]: which words have a vector."""


class LSTM(nn.Module):
    """An embedding, an LSTM, and a linear layer on the last hidden state.

    Texts (ids int64 [N, T], lengths int64 [N]) -> logits [N, classes]. The sequences are packed, so padding is never
    read: the last hidden state belongs to a text's last word (to its first word in the backward direction). With
    `bidirectional`, both states are concatenated: 2 * `hidden_size` values. Dropout is applied between the LSTM layers
    and before the linear layer. Packing reads the lengths on the CPU. Keep them there, or the host waits for the GPU.

    `vocab_size`, `padding_idx`, `embedding_dim`, `hidden_size` and `num_layers` have the same meaning as in
    `torch.nn.Embedding` and `torch.nn.LSTM`. With `vectors`, words that have a pretrained vector start from it. Raises
    `ValueError` if the shape of the vectors does not fit the embedding.
    """

    def __init__(self, *, vocab_size: int, classes: int, padding_idx: int = 0, embedding_dim: int = 100,
                 hidden_size: int = 256, num_layers: int = 1, bidirectional: bool = False, dropout: float = 0.5,
                 vectors: HasValues | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=padding_idx)
        if vectors is not None:
            self._start_from(vectors)
        self.lstm = nn.LSTM(embedding_dim, hidden_size, num_layers=num_layers, bidirectional=bidirectional,
                            batch_first=True, dropout=dropout if num_layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size * (1 + bidirectional), classes)

    def forward(self, texts: tuple[Tensor, Tensor]) -> Tensor:
        if isinstance(texts, Tensor):
            raise TypeError(f"this model reads texts, (ids, lengths), and was given one tensor {list(texts.shape)}")
        ids, lengths = texts
        lengths, order = lengths.cpu().sort(descending=True)  # otherwise torch copies the order to the GPU and waits
        order = (order.pin_memory() if ids.device.type == "cuda" else order).to(ids.device, non_blocking=True)
        packed = pack_padded_sequence(self.embedding(ids[order]), lengths, batch_first=True)
        _, (last, _) = self.lstm(packed)  # [num_layers * directions, N, hidden_size]; the last layer comes last
        state = torch.cat([last[-2], last[-1]], dim=1) if self.lstm.bidirectional else last[-1]
        return self.head(self.dropout(state[order.argsort()]))  # type: ignore[no-any-return]

    def _start_from(self, vectors: HasValues) -> None:
        weight = self.embedding.weight
        if vectors.values.shape != weight.shape:
            raise ValueError(f"the vectors have shape {list(vectors.values.shape)} (words, dimensions), the embedding "
                             f"has {list(weight.shape)}; use vectors of the same vocabulary, and "
                             f"model.embedding_dim={vectors.values.shape[1]}")
        with torch.no_grad():
            has = vectors.found[:, None].to(weight.device)
            weight.copy_(torch.where(has, vectors.values.to(weight.device), weight))
