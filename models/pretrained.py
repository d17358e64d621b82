"""Loads weights from a file into a network that they fit in part: of another program, with another head, wrapped.

    text = load_into(network, read_weights(Path("resnet18.pth")), new=("head",))

Names are matched with and without the prefixes that wrappers add, and with those of the network's own parts. Whatever
is not in the file, or has another shape there, must be in a part that may be `new`: it keeps its random weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt")
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of DataParallel and DistributedDataParallel, and of torch.compile."""
INSIDE = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""The keys under which training programs save weights beside other things."""
SHOWN = 6
"""The largest number of parts in a line."""
COUNTER = "num_batches_tracked"
"""BatchNorm's counter, which torch did not save before 0.4.1, and which nothing here uses."""


@dataclass(frozen=True)
class Match:
    """Which weights of a file fit which of a network."""

    taken: Mapping[str, str]
    """The name in the file, by the name in the network."""
    left: Mapping[str, str]
    """Names in the file that are not used, each with the part of the network that it would belong to."""
    new: Sequence[str]
    """Names in the network that get no weights."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file by name: safetensors, or what torch.save has written, without the prefixes of wrappers and
    what is saved beside them. Raises `FileNotFoundError`, and ValueError for a file without weights."""
    if not path.is_file():
        raise FileNotFoundError(f"the weights file {path} does not exist")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        found: Any = load_file(path)
    else:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise ValueError(f"{path} holds Python objects and not only weights; it is not read because that could "
                             "run code: save the weights alone: torch.save(model.state_dict(), FILE)") from error
    inner = next((found[key] for key in INSIDE if isinstance(found, Mapping) and _is_weights(found.get(key))), found)
    if not _is_weights(inner):
        raise ValueError(f"{path} holds no weights: {_contents(found)}")
    return {_unwrapped(name): value for name, value in inner.items() if isinstance(value, Tensor)}


def load_into(network: nn.Module, found: Mapping[str, Tensor], *, source: str, new: Sequence[str]) -> str:
    """Loads what fits, in place. Returns which parts were taken, left out and are new, as text of a few lines.

    Raises ValueError, with the same text, if a part of the network that is not one of `new` is not whole in the file,
    or if the file has more in a part than the network."""
    expected = network.state_dict()
    tops = tuple(f"{part}." for part in new)
    match = best_match(expected, found, tops)
    text = describe(match, expected, found, source)
    missing = [name for name in match.new if not name.endswith(COUNTER) and not name.startswith(tops)]
    surplus = [part for part in set(match.left.values()) if not f"{part}.".startswith(tops)
               and any(name.startswith(f"{part}.") for name in match.taken)]
    if not match.taken or missing or surplus:
        raise ValueError(f"the weights in {source} do not fit this network\n{text}")
    on_meta = any(value.is_meta for value in expected.values())
    network.load_state_dict({name: found[other].to(expected[name].dtype) for name, other in match.taken.items()},
                            strict=False, assign=on_meta)
    return text


def best_match(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], tops: tuple[str, ...]) -> Match:
    """The match with the most weights: names as they are, or without the first part of a name in the file, or below one
    of the network's own parts. A module below `tops` that does not fit as a whole is not taken."""
    strips = ["", *dict.fromkeys(f"{name.partition('.')[0]}." for name in found if "." in name)]
    adds = ["", *dict.fromkeys(f"{name.partition('.')[0]}." for name in expected if "." in name)]
    fits = {(strip, add): {
        add + name.removeprefix(strip): name for name in found if name.startswith(strip)
        and (mine := expected.get(add + name.removeprefix(strip))) is not None and mine.shape == found[name].shape
    } for strip in strips for add in adds}
    strip, add = max(fits, key=lambda pair: len(fits[pair]))
    taken = fits[strip, add]
    broken = {name.rpartition(".")[0] for name in expected if name not in taken and name.startswith(tops)
              and not name.endswith(COUNTER)}
    taken = {name: other for name, other in taken.items() if name.rpartition(".")[0] not in broken}
    used = set(taken.values())
    left = {name: add + name.removeprefix(strip).partition(".")[0] for name in found if name not in used}
    return Match(taken, left, [name for name in expected if name not in taken])


def describe(match: Match, expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> str:
    """A match as text: the parts that are taken, left out and new."""
    by_end = {name.rpartition(".")[2]: value for name, value in found.items() if name in match.left}
    new = [name for name in match.new if not name.endswith(COUNTER)]
    shapes = [f"{name} is {list(expected[name].shape)}, {list(other.shape)} in the file"
              for name in new[:1] if (other := by_end.get(name.rpartition(".")[2])) is not None
              and other.shape != expected[name].shape]
    rows = [("taken", _parts(match.taken, expected)), ("left out", _parts(match.left, found)),
            ("new", _parts(new, expected) + "".join(f" ({shape})" for shape in shapes))]
    return "\n".join([f"weights from {source}", *(f"  {label:<9} {text}" for label, text in rows if text)])


def _parts(names: Iterable[str], among: Mapping[str, Tensor]) -> str:
    """Names as the largest parts of a network that hold no others: "backbone, head.0 (1,234 numbers)"."""
    names = list(names)
    chosen = set(names)
    others = {above for name in among if name not in chosen and not name.endswith(COUNTER) for above in _above(name)}
    parts = sorted({next((part for part in _above(name) if part not in others), name) for name in names})
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    tensors = "tensor" if len(names) == 1 else "tensors"
    return f"{', '.join(parts[:SHOWN])}{more}: {len(names):,} {tensors}" if names else ""


def _above(name: str) -> Iterator[str]:
    """The parts that hold a weight, from the largest: "a", "a.b" of "a.b.weight"."""
    parts = name.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts)))


def _unwrapped(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _is_weights(value: Any) -> bool:
    """Whether a value is a state dict."""
    return isinstance(value, Mapping) and any(isinstance(one, Tensor) for one in value.values()) and all(
        isinstance(name, str) for name in value)


def _contents(value: Any) -> str:
    return f"keys {', '.join(map(str, [*value][:SHOWN]))}" if isinstance(value, Mapping) else type(value).__name__
