"""What an evaluation keeps of its chunks: values of any structure, summaries, predictions to draw, and metrics, the
same to the bit on any number of ranks; and how much memory that takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.wrappers import BootStrapper

from drumbeat.data.loader import Batch
from drumbeat.trainers.collect import Collector, Part, part_of
from drumbeat.trainers.evaluate import evaluate
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.tasks import Classification, Results
from drumbeat.trainers.tasks.measure import measure
from drumbeat.trainers.world import World, join
from tests.ranks import on_ranks
from tests.same_bits import assert_same_bits
from tests.tiny import Net, Pictures


class Found(NamedTuple):
    """What a detector returns for a batch."""

    boxes: list[Tensor]
    """[k, 4] for each sample, with k from 0 to 2."""
    logits: dict[str, Tensor]


class Detector(Net):
    """As many boxes in an image as its class number and its mean say."""

    def forward(self, pictures: Tensor) -> Found:  # type: ignore[override]
        logits = super().forward(pictures)
        count = (pictures.mean((1, 2, 3)) * 1000).long() % 3
        boxes = [row[:1].expand(int(k), 4) + torch.arange(4) for row, k in zip(logits, count, strict=True)]
        heads = {"classes": logits, "means": pictures.mean((1, 2, 3))[:, None].expand_as(logits)}
        return Found(boxes, heads if count[0] else dict(reversed(heads.items())))  # the order of keys has no meaning


class Detection:
    """A task of values that vary in shape; kept as they are."""

    kind = "other"

    def losses(self, outputs: Found, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs.logits["classes"], targets, reduction="none")

    def weights(self, targets: Tensor) -> Tensor:
        return targets + 1.0

    def metric_inputs(self, outputs: Found, targets: Tensor) -> tuple[Tensor, Tensor]:
        return outputs.logits["classes"], targets

    def predictions(self, outputs: Found) -> list[Tensor]:
        return outputs.boxes

    def draw(self, image: Tensor, value: Tensor) -> Tensor:
        raise NotImplementedError


class Counting(Detection):
    """The same task, which keeps the number of boxes alone."""

    def summary(self, outputs: Found, targets: Tensor) -> tuple[Tensor]:
        return (torch.tensor([len(one) for one in outputs.boxes]),)


class Flawed(Pictures):
    """Images, two of which cannot be read."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index in (4, 9):
            raise OSError("it is damaged")
        return super().__getitem__(index)


def results_of(world: World, task: Any, *, n: int = 23, metrics: dict[str, Any] | None = None) -> Results | None:
    torch.manual_seed(0)
    forward = Forward(device=world.device, transforms=nn.Sequential(_Scale()), channels_last=False, bf16=False)
    return evaluate(Detector(), task, Flawed(n=n), [], forward=forward, world=world, batch_size=4, workers=0,
                    skip_unreadable=True, draws=3, metrics=metrics)


class _Scale(nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.float() / 255


def everything(world: World) -> Iterator[dict[str, Any]]:
    for task in (Detection(), Counting()):
        for metrics in ({}, {"f1": MulticlassF1Score(2), "drawn": BootStrapper(MulticlassF1Score(2))}):
            results = results_of(world, task, metrics=metrics)
            yield {} if results is None else {**vars(results), "outputs": results.outputs and (*results.outputs,)}


def rank(world: World, out: str) -> None:
    found = [*everything(world)]
    if world.is_main:
        torch.save(found, out)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_values_of_any_structure_are_the_same_on_any_number_of_ranks(tmp_path: Path, ranks: int) -> None:
    """Lists of boxes in a named tuple, a dict, weights, a summary, the worst predictions, a metric, and one that draws
    random numbers."""
    on_ranks(ranks, rank, tmp_path / "results")
    with join("cpu") as world:
        assert_same_bits(torch.load(tmp_path / "results"), [*everything(world)])


def test_values_keep_their_structure() -> None:
    with join("cpu") as world:
        results = results_of(world, Detection())
    assert results is not None
    assert isinstance(results.outputs, Found)
    assert results.indices == [index for index in range(23) if index not in (4, 9)]
    assert {len(boxes) for boxes in results.outputs.boxes} == {0, 1, 2}
    assert [len(values) for values in (results.outputs.boxes, results.outputs.logits["classes"], results.losses)] == [
        21] * 3
    assert torch.equal(results.weights, results.targets + 1.0)  # type: ignore[arg-type]


class Sentences:
    """Words, two to eight of them, with a class for each."""

    classes = ("even", "odd")

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        words = torch.arange(2 + 5 * index % 7) + index
        return words, words % 2


class Tagger(nn.Module):
    """[n, words] -> [n, 2, words], which gets some of them wrong."""

    def forward(self, words: Tensor) -> Tensor:
        return torch.stack([words % 3, words % 2], dim=1).float()


def padded(samples: list[tuple[Tensor, Tensor]], longest: int = 0) -> tuple[Tensor, Tensor]:
    """A batch padded to its own length, or to the longest one."""
    length = max(longest, *(len(words) for words, _ in samples))
    return (torch.stack([nn.functional.pad(words, (0, length - len(words)), value=0) for words, _ in samples]),
            torch.stack([nn.functional.pad(tags, (0, length - len(tags)), value=-100) for _, tags in samples]))


def metrics_of_words(world: World, collate: Any) -> Any:
    task = Classification(classes=Sentences.classes)
    forward = Forward(device=world.device, transforms=nn.Identity(), channels_last=False, bf16=False)
    results = evaluate(Tagger(), task, Sentences(), [], forward=forward, world=world, batch_size=3, workers=0,
                       collate=collate, metrics={"f1": MulticlassF1Score(2)})
    return results and (measure(task, results), len(task.worst_samples(results, 9)))


def rank_of_words(world: World, out: str) -> None:
    if (found := metrics_of_words(world, padded)) is not None:
        torch.save(found, out)


def test_batches_that_are_padded_to_their_own_length() -> None:
    """The values are those of batches of one length."""
    with join("cpu") as world:
        assert metrics_of_words(world, padded) == metrics_of_words(world, partial(padded, longest=8))


@pytest.mark.slow
def test_padded_batches_on_two_ranks(tmp_path: Path) -> None:
    on_ranks(2, rank_of_words, tmp_path / "results")
    with join("cpu") as world:
        assert torch.load(tmp_path / "results", weights_only=False) == metrics_of_words(world, padded)


def test_batches_with_different_numbers_of_classes_do_not_fit() -> None:
    collector = Collector(Classification(), {}, 0, 2)
    for classes in (2, 3):
        collector.add(Part(torch.zeros(1), torch.zeros(1), None, {"outputs": torch.zeros(1, classes, 4)}))
    with pytest.raises(ValueError, match=r"two batches have the shapes \[1, 2, 4\] and \[1, 3, 4\]"):
        collector.results()


def test_the_results_are_the_only_copy_of_the_outputs() -> None:
    """Each part is put into the memory of the results, and not kept."""
    collector = Collector(Classification(), {}, 0, 5)
    first = torch.arange(6.0).view(3, 2)
    collector.add(Part(torch.arange(3), torch.zeros(3), None, {"outputs": first}))
    block = collector.kept["outputs"].block
    first.zero_()
    collector.add(Part(torch.tensor([4]), torch.zeros(1), None, {"outputs": torch.full((1, 2), 9.0)}))
    results = collector.results()
    assert results.outputs.data_ptr() == block.data_ptr()
    assert results.outputs.tolist() == [[0, 1], [2, 3], [4, 5], [9, 9]]
    assert results.indices == [0, 1, 2, 4]


def test_parts_of_different_types_are_joined_as_torch_joins_them() -> None:
    collector = Collector(Classification(), {}, 0, 3)
    for targets in (torch.tensor([1]), torch.tensor([0.5]), torch.tensor([2])):
        collector.add(Part(torch.zeros(1), torch.zeros(1), None, {"targets": targets}))
    assert collector.results().targets.tolist() == [1.0, 0.5, 2.0]


def test_a_summary_is_kept_in_place_of_the_outputs() -> None:
    with join("cpu") as world:
        whole, counted = results_of(world, Detection()), results_of(world, Counting())
    assert whole is not None and counted is not None
    assert (counted.outputs, counted.targets) == (None, None)
    assert counted.summary[0].tolist() == [len(boxes) for boxes in whole.outputs.boxes]
    assert torch.equal(counted.losses, whole.losses)


def test_the_worst_predictions_are_those_with_the_largest_mean_losses() -> None:
    with join("cpu") as world:
        results = results_of(world, Detection())
    assert results is not None
    means = results.losses / results.weights
    assert [*results.worst] == means.argsort(descending=True, stable=True)[:3].tolist()
    assert_same_bits([*results.worst.values()], [results.outputs.boxes[number] for number in results.worst])


def test_a_metric_is_the_same_as_of_the_whole_set() -> None:
    whole = MulticlassF1Score(2)
    with join("cpu") as world:
        results = results_of(world, Counting(), metrics={"f1": MulticlassF1Score(2)})
        again = results_of(world, Detection(), metrics={"f1": whole})
    assert results is not None and again is not None
    assert results.metrics == again.metrics
    whole.reset()
    assert results.metrics == {"f1": float(whole(again.outputs.logits["classes"], again.targets))}


class Unfit(Detection):
    def __init__(self, value: Any) -> None:
        self.value = value

    def summary(self, outputs: Found, targets: Tensor) -> Any:
        return self.value


@pytest.mark.parametrize(("value", "message"), [
    (torch.zeros(3), r"the summary of 4 samples contain a tensor \[3\]; an evaluation needs"),
    ({"a": [1, 2]}, "the summary of 4 samples contain a list of 2"),
    (3.5, "the summary of 4 samples contain a float"),
    ([object()] * 4, "the summary of a sample contain a object"),
    ([Found([], {})] * 4, "the summary of a sample contain a Found"),  # could not be sent to rank 0
])
def test_what_is_not_a_value_for_each_sample(value: Any, message: str) -> None:
    with join("cpu") as world, pytest.raises((ValueError, TypeError), match=message):
        results_of(world, Unfit(value))


def part(outputs: Any, n: int = 2) -> Part:
    batch = Batch(None, torch.zeros(n), torch.arange(n), torch.arange(n), torch.zeros(n, dtype=torch.bool))
    return part_of(Detection(), batch, outputs, torch.zeros(n), draws=False, metrics=False)  # type: ignore[arg-type]


def test_values_of_another_rank_are_joined_by_their_names() -> None:
    collector = Collector(Detection(), {}, 0, 4)  # type: ignore[arg-type]
    collector.add(part({"a": torch.zeros(2), "b": [torch.ones(1), torch.ones(3)]}))
    sent = part({"b": [torch.ones(2), torch.ones(0)], "a": torch.full((2,), 5.0)})
    collector.add(collector.unpacked(sent.packed()))
    outputs = collector.results().outputs
    assert outputs["a"].tolist() == [0, 0, 5, 5]
    assert [len(one) for one in outputs["b"]] == [1, 3, 2, 0]
    with pytest.raises(ValueError, match=r"the outputs of two batches have different structures: \['a'\], \['b'\], and "
                                         r"\['a'\], \['c'\]"):
        collector.unpacked(part({"a": torch.zeros(2), "c": torch.zeros(2)}).packed())


def test_floating_point_outputs_are_float32() -> None:
    """In tensors, and in the items of lists."""
    half = torch.ones(2, 3, dtype=torch.bfloat16)
    kept = part({"whole": half, "items": [{"score": one, "count": torch.tensor(1)} for one in half]}).values["outputs"]
    assert kept["whole"].dtype == kept["items"][0]["score"].dtype == torch.float32
    assert kept["items"][0]["count"].dtype == torch.int64


class Masks:
    """Images [3, 256, 256] and masks of 21 classes, which all take their values from their index."""

    def __init__(self, *, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((3, 256, 256), index / self.n), torch.full((256, 256), index % 21)


class Dense:
    """A loss for each sample of outputs [n, 21, 256, 256]."""

    kind = "other"

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="none").mean((1, 2))


class DenseCounts(Dense):
    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(1) == targets).sum((1, 2))


MASKS, CHUNK = 48, 4
OUTPUT = 21 * 256 * 256 * 4
"""Bytes of the output for one image."""


def growth(world: World, task: Any) -> float:
    """The peak of this rank's memory in an evaluation, above what it had before, in outputs of one image."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 21, 1)
    forward = Forward(device=world.device, transforms=nn.Identity(), channels_last=False, bf16=False)

    def run(n: int) -> None:
        evaluate(model, task, Masks(n=n), [], forward=forward, world=world, batch_size=CHUNK, workers=0)

    run(2 * CHUNK * world.size)  # what is loaded and kept once
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is used now
    run(MASKS)
    return (memory("VmHWM") - before) / OUTPUT


def memory(name: str) -> int:
    """Bytes of this process, as the kernel counts them."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def measuring_rank(world: World, out: str) -> None:
    for task in (DenseCounts(), Dense()):  # the allocator keeps some of what the second one frees
        Path(f"{out}-{type(task).__name__}-{world.rank}").write_text(str(growth(world, task)))


@pytest.mark.slow
def test_no_rank_but_the_first_keeps_more_than_a_chunk_and_none_if_there_is_a_summary(tmp_path: Path) -> None:
    on_ranks(2, measuring_rank, tmp_path / "growth")
    found = {path.name.partition("-")[2]: float(path.read_text()) for path in tmp_path.glob("growth-*")}
    chunk = 8 * CHUNK  # two chunks' outputs, what the loss and the bytes to send take, and what the allocator keeps
    assert found["Dense-0"] > MASKS
    assert found["Dense-1"] < chunk < MASKS
    assert found["DenseCounts-0"] < chunk
    assert found["DenseCounts-1"] < chunk
