"""An LSTM for texts."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence


class HasValues(Protocol):
    """Pretrained word vectors, as `drumbeat.data.glove` returns them."""

    values: Tensor
    """float32 [V, D]; zeros for a word without a vector."""
    found: Tensor
    """bool [V]: which words have a vector."""


class LSTM(nn.Module):
    """An embedding, an LSTM, and a linear layer on the last hidden state.

    Texts (ids int64 [N, T], lengths int64 [N]) -> logits [N, classes]. Padding has no effect: the last hidden state
    belongs to a text's last word (to its first word in the backward direction). With `bidirectional`, both states are
    concatenated: 2 * `hidden_size` values. Dropout is applied between the LSTM layers and before the linear layer. On a
    GPU, the texts are packed, for which torch reads the lengths on the CPU. Keep them there, or the host waits for the
    GPU.

    `vocab_size`, `padding_idx`, `embedding_dim`, `hidden_size` and `num_layers` have the same meaning as in
    `torch.nn.Embedding` and `torch.nn.LSTM`. With `vectors`, words that have a pretrained vector start from it. Raises
    `ValueError` if the shape of the vectors does not fit the embedding, and `RuntimeError` for a length that is not in
    1 to T.
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
        states = self._packed if ids.device.type == "cuda" else self._padded
        return self.head(self.dropout(states(ids, lengths)))  # type: ignore[no-any-return]

    def _packed(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The last states, [N, hidden_size] or [N, 2 * hidden_size]."""
        lengths, order = lengths.cpu().sort(descending=True)  # otherwise torch copies the order to the GPU and waits
        order = order.pin_memory().to(ids.device, non_blocking=True)
        packed = pack_padded_sequence(self.embedding(ids[order]), lengths, batch_first=True)
        _, (last, _) = self.lstm(packed)  # [num_layers * directions, N, hidden_size]; the last layer comes last
        state = torch.cat([last[-2], last[-1]], dim=1) if self.lstm.bidirectional else last[-1]
        return state[order.argsort()]

    def _padded(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The same, computed from padded texts, each direction by itself: the forward direction reaches the padding
        after the last word, and the backward direction reads each text turned around. On the CPU, the backward pass of
        packed texts takes time that grows with the square of their length: 15 times as long at 300 words."""
        fits = ((lengths >= 1) & (lengths <= ids.shape[1])).all()  # or it would read another text
        torch._assert_async(fits, "the length of a text must be at least 1, and at most the number of its ids")
        starts = ids.shape[1] * torch.arange(len(ids))[:, None]
        places = torch.arange(ids.shape[1])
        turned = (starts + torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)).flatten()
        last = starts[:, 0] + lengths - 1
        words: Tensor = self.embedding(ids).flatten(0, 1)  # [N * T, embedding_dim]
        states: list[Tensor] = []
        for layer in range(self.lstm.num_layers):
            if layer:
                words = functional.dropout(torch.cat(states, dim=1), self.lstm.dropout, self.training)
            states = [self._one_way(words, len(ids), f"l{layer}")]
            if self.lstm.bidirectional:
                back = self._one_way(words.index_select(0, turned), len(ids), f"l{layer}_reverse")
                states.append(back.index_select(0, turned))
        ends = [last, starts[:, 0]]  # the backward direction ends at the first word
        return torch.cat([one.index_select(0, end) for one, end in zip(states, ends, strict=False)], dim=1)

    def _one_way(self, words: Tensor, texts: int, name: str) -> Tensor:
        """The states of one layer in one direction: [N * T, D] to [N * T, hidden_size]."""
        weights = [getattr(self.lstm, f"{kind}_{name}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        start = words.new_zeros(1, texts, self.lstm.hidden_size)
        states: Tensor = torch.lstm(words.unflatten(0, (texts, -1)), (start, start), weights, True, 1, 0.0,
                                    self.training, False, True)[0]
        return states.flatten(0, 1)

    def _start_from(self, vectors: HasValues) -> None:
        weight = self.embedding.weight
        if vectors.values.shape != weight.shape:
            raise ValueError(f"the vectors have shape {list(vectors.values.shape)} (words, dimensions), the embedding "
                             f"has {list(weight.shape)}; use vectors of the same vocabulary, and "
                             f"model.embedding_dim={vectors.values.shape[1]}")
        with torch.no_grad():
            has = vectors.found[:, None].to(weight.device)
            weight.copy_(torch.where(has, vectors.values.to(weight.device), weight))
