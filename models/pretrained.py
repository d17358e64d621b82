"""Loads weights from a file into a network that they fit in part: of another program, with another head, wrapped.

    found = read_weights(Path("resnet18.pth"))
    match = best_match(network.state_dict(keep_vars=True), found)
    print(describe(match, network.state_dict(), found, "resnet18.pth"))
    take(network, match, found)

Names are matched with and without the prefixes that wrappers add, and with those of the network's own parts. Whatever
is not in the file, or has another shape there, keeps its random weights.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of DataParallel and DistributedDataParallel, and of torch.compile."""
INSIDE = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""The keys under which training programs save weights beside other things."""
SHOWN = 6
"""The largest number of parts in a line."""
ZIP = b"PK\x03\x04"
"""How a file begins that torch.save has written since 1.6."""
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
    what is saved beside them. Tensors of torch's files are read from disk when they are used. Raises
    `FileNotFoundError`, and ValueError for a file without weights."""
    if not path.is_file():
        raise FileNotFoundError(f"the weights file {path} does not exist")
    found = _read(path)
    inner = next((found[key] for key in INSIDE if isinstance(found, Mapping) and _is_weights(found.get(key))), found)
    if not _is_weights(inner):
        raise ValueError(f"{path} holds no weights: {_contents(found)}")
    return {_unwrapped(name): value for name, value in inner.items() if isinstance(value, Tensor)}


def _read(path: Path) -> Any:
    """What is in a file. Nothing in it is executed: argparse's options, which training programs save beside the
    weights, are plain values."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with path.open("rb") as file:
            zipped = zipfile.is_zipfile(file)
            if not zipped and file.seek(0) == 0 and file.read(4) == ZIP:
                raise ValueError("it is cut off")
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UnpicklingError as error:
        raise ValueError(f"{path} holds Python objects and not only weights; it is not read because that could "
                         "run code: save the weights alone: torch.save(model.state_dict(), FILE)") from error
    except Exception as error:  # SafetensorError is of Exception; torch raises RuntimeError, EOFError and others
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}") from error


def renamed(found: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights under other names: each name, or its beginning up to a dot, that is a key of `names` is replaced by
    the value, and removed if that is empty. A * in a key stands for any text, which the * in the value repeats. The
    first key that fits counts. Raises ValueError for a key that no name begins with."""
    patterns = {old: re.compile("(.*?)".join(map(re.escape, old.split("*"))) + r"(?=\.|$)") for old in names}
    result: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, value in found.items():
        fit = next(((old, match) for old, pattern in patterns.items() if (match := pattern.match(name))), None)
        if fit is not None:
            (old, match), new = fit, iter(names[fit[0]].split("*"))
            used.add(old)
            start = next(new) + "".join(text + part for text, part in zip(match.groups(), new, strict=False))
            name = f"{start}{name[match.end():]}".removeprefix(".")
        result[name] = value
    if unused := [old for old in names if old not in used]:
        raise ValueError(f"no name in the file begins with '{unused[0]}'; {_nearest(unused[0], found)}")
    return result


def best_match(expected: Mapping[str, Any], found: Mapping[str, Tensor]) -> Match:
    """The match with the most weights: names as they are, or without their common beginning or the first part after it,
    or below one of the network's own parts. A layer is taken as a whole or not at all. `expected` is a state dict of
    parameters and buffers; in one that keeps its variables (`keep_vars=True`), tied weights need to be in the file only
    once."""
    expected = {name: value for name, value in expected.items() if isinstance(value, Tensor)}
    common = _common_beginning(found)
    strips = ["", *dict.fromkeys(common + f"{name.removeprefix(common).partition('.')[0]}." for name in found
                                 if "." in name.removeprefix(common)), common]
    adds = ["", *dict.fromkeys(f"{name.partition('.')[0]}." for name in expected if "." in name)]
    fits = {(strip, add): {
        add + name.removeprefix(strip): name for name in found if name.startswith(strip)
        and (mine := expected.get(add + name.removeprefix(strip))) is not None and mine.shape == found[name].shape
    } for strip in strips for add in adds}
    strip, add = max(fits, key=lambda pair: len(fits[pair]))
    taken = fits[strip, add]
    tied = {id(expected[name]) for name in taken}
    layers = {name.rpartition(".")[0] for name in expected} - {above for name in expected
                                                               for above in [*_above(name)][:-1]} - {""}
    broken = {layer for name, value in expected.items() if (layer := name.rpartition(".")[0]) in layers
              and name not in taken and id(value) not in tied and not name.endswith(COUNTER)}
    taken = {name: other for name, other in taken.items() if name.rpartition(".")[0] not in broken}
    tied = {id(expected[name]) for name in taken}
    used = set(taken.values())
    left = {name: add + name.removeprefix(strip).partition(".")[0] for name in found if name not in used}
    return Match(taken, left, [name for name, value in expected.items() if id(value) not in tied])


def check(match: Match, expected: Mapping[str, Any], found: Mapping[str, Tensor], *, strict: bool) -> None:
    """Raises ValueError if nothing was taken, with the names that are nearest; and with `strict` if a weight of the
    network is not taken, or if the file has more in a part that is taken than the network."""
    if not match.taken:
        raise ValueError(f"none of the {len(found):,} tensors has the name and the shape of one of the network's\n"
                         + "\n".join(_nearest_pairs(expected, found)))
    missing = [name for name in match.new if not name.endswith(COUNTER)]
    surplus = [name for name, part in match.left.items() if any(one.startswith(f"{part}.") for one in match.taken)]
    for names, what in ((missing, "of the network are not taken"), (surplus, "of the file are not in the network")):
        if strict and names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise ValueError(f"not all weights fit: {', '.join(names[:SHOWN])}{more} {what}")


def take(network: nn.Module, match: Match, found: Mapping[str, Tensor]) -> None:
    """Loads the weights that were matched, in place, in the network's own types."""
    expected = network.state_dict()
    network.load_state_dict({name: found[other].to(expected[name].dtype) for name, other in match.taken.items()},
                            strict=False)


def describe(match: Match, expected: Mapping[str, Any], found: Mapping[str, Tensor], source: str) -> str:
    """A match as a table: the parts that are taken, left out and new."""
    new = [name for name in match.new if not name.endswith(COUNTER)]
    shapes = [f"{name} is {list(expected[name].shape)}, {list(found[other].shape)} in the file"
              for name in new[:1] if (other := _counterpart(name, match.left))
              and found[other].shape != expected[name].shape]
    rows = [("taken", _parts(match.taken, expected)), ("left out", _parts(match.left, found)),
            ("new", _parts(new, expected) + "".join(f" ({shape})" for shape in shapes))]
    return "\n".join([f"weights from {source}", *(f"  {label:<9} {text}" for label, text in rows if text)])


def _counterpart(name: str, left: Iterable[str]) -> str:
    """The only one of some names that ends as a name does, with the layer that holds it or without; '' if there are
    several, or none."""
    parts = name.split(".")
    for end in (parts[-2:], parts[-1:]):
        found = [other for other in left if other.split(".")[-len(end):] == end]
        if len(found) == 1:
            return found[0]
    return ""


def _parts(names: Iterable[str], among: Mapping[str, Any]) -> str:
    """Names as the largest parts of a network that hold no others: "backbone, head.0: 12 tensors"."""
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


def _common_beginning(names: Iterable[str]) -> str:
    """The parts with which all names begin: "model.net." of "model.net.a.weight" and "model.net.b.weight"."""
    above = [[*_above(name)] for name in names]
    shared = [parts[0] for parts in zip(*above, strict=False) if len(set(parts)) == 1]
    return f"{shared[-1]}." if shared else ""


def _nearest(name: str, names: Iterable[str]) -> str:
    """The beginnings of names that are most similar to a name."""
    tops = dict.fromkeys(part for one in names for part in (*_above(one), one))
    close = get_close_matches(name, tops, n=1)
    return f"did you mean '{close[0]}'?" if close else f"the names begin with {', '.join([*tops][:SHOWN])}"


def _nearest_pairs(expected: Mapping[str, Any], found: Mapping[str, Tensor]) -> Iterator[str]:
    """Names of the network, each with the most similar one in the file."""
    for name, value in [*expected.items()][:3]:
        for close in get_close_matches(name, found, n=1, cutoff=0.0):
            yield f"{name} {list(value.shape)}: nearest in the file is {close} {list(found[close].shape)}"


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
