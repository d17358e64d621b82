"""The LSTM: its size, that padding has no effect, and pretrained vectors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence
from torch.profiler import profile

from drumbeat.models.lstm import LSTM

SIZES = [{}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True}]


@pytest.mark.parametrize("sizes", SIZES)
def test_its_size(sizes: dict[str, int]) -> None:
    """Four gates a layer and direction, each with weights for the input and for the state, and two biases."""
    with torch.device("meta"):
        model = LSTM(vocab_size=1000, classes=5, **sizes)  # type: ignore[arg-type]
    directions = 1 + sizes.get("bidirectional", 0)
    widths = [100, *[256 * directions] * (sizes.get("num_layers", 1) - 1)]
    gates = sum(directions * 4 * 256 * (width + 256 + 2) for width in widths)
    assert sum(one.numel() for one in model.parameters()) == 1000 * 100 + gates + (256 * directions + 1) * 5


@pytest.mark.parametrize("sizes", SIZES)
def test_padding_is_never_read(sizes: dict[str, int]) -> None:
    torch.manual_seed(0)
    model = LSTM(vocab_size=50, classes=3, embedding_dim=8, hidden_size=16, **sizes).eval()  # type: ignore[arg-type]
    texts = [torch.randint(2, 50, (length,)) for length in (3, 9, 1)]
    lengths = torch.tensor([3, 9, 1])
    padded = torch.full((3, 12), 7)  # a word like any other, in the place of the padding
    for row, text in zip(padded, texts, strict=True):
        row[:len(text)] = text
    together = model((padded, lengths))
    alone = torch.cat([model((text[None], torch.tensor([len(text)]))) for text in texts])
    torch.testing.assert_close(together, alone)
    assert not torch.equal(model((padded, lengths + 1)), together)


@pytest.mark.parametrize("sizes", SIZES)
def test_padded_texts_have_the_outputs_and_gradients_of_packed_ones(sizes: dict[str, int]) -> None:
    """On the CPU texts are not packed, because of torch's backward pass."""
    torch.manual_seed(0)
    model = LSTM(vocab_size=50, classes=3, embedding_dim=8, hidden_size=16, dropout=0, **sizes)  # type: ignore[arg-type]
    ids, lengths = torch.randint(2, 50, (5, 12)), torch.tensor([3, 12, 1, 9, 5])

    def packed() -> Tensor:
        texts = pack_padded_sequence(model.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        last = model.lstm(texts)[1][0]
        return model.head(torch.cat([last[-2], last[-1]], dim=1) if model.lstm.bidirectional else last[-1])

    with profile() as trace:
        outputs = [model((ids, lengths)), packed()]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*[torch.autograd.grad(one.square().sum(), list(model.parameters())) for one in outputs])
    assert [event.count for event in trace.key_averages() if event.key == "aten::_pack_padded_sequence"] == [1]


@pytest.mark.parametrize("lengths", [[3, 0], [4, 3]])
def test_lengths_that_would_read_another_text_are_refused(lengths: list[int]) -> None:
    model = LSTM(vocab_size=5, classes=2, embedding_dim=4, hidden_size=4)
    with pytest.raises(RuntimeError, match=r"length"):
        model((torch.ones(2, 3, dtype=torch.int64), torch.tensor(lengths)))


def test_it_starts_from_vectors_where_words_have_one() -> None:
    torch.manual_seed(0)
    found = torch.tensor([False, False, True, False, True])
    vectors = SimpleNamespace(values=torch.arange(20.0).reshape(5, 4) * found[:, None], found=found)
    model = LSTM(vocab_size=5, classes=2, embedding_dim=4, hidden_size=4, vectors=vectors)
    weight = model.embedding.weight
    assert torch.equal(weight[found], vectors.values[found])
    assert bool((weight[3] != 0).all())
    assert bool((weight[0] == 0).all())
    with torch.device("meta"):
        LSTM(vocab_size=5, classes=2, embedding_dim=4, hidden_size=4, vectors=vectors)


def test_vectors_of_another_width_are_refused() -> None:
    vectors = SimpleNamespace(values=torch.zeros(5, 50), found=torch.zeros(5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"model.embedding_dim=50"):
        LSTM(vocab_size=5, classes=2, vectors=vectors)


def test_it_runs_in_bfloat16() -> None:
    model = LSTM(vocab_size=50, classes=3, num_layers=2, bidirectional=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model((torch.randint(50, (4, 6)), torch.tensor([6, 2, 1, 5])))
    outputs.float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
