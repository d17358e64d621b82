"""Texts: words that the vocabulary does not have, texts that are cut, empty ones, and wrong encodings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from drumbeat.configs.layers import short
from drumbeat.data.order import Integers
from drumbeat.data.splits import underlying
from drumbeat.data.text import Texts
from drumbeat.trainers.doctor.findings import Finding
from drumbeat.trainers.doctor.subject import Subject

MANY_UNKNOWN = 0.1
"""The share of unknown words from which on a set is reported."""
MANY_CUT = 0.05
"""The share of truncated texts from which on a set is reported."""
BLOCK = 1000
"""Texts that are read at a time."""
MOST_TEXTS = 100_000
"""Texts of a set that are read, unless all are."""
GARBLED = {b"\xef\xbf\xbd": "U+FFFD, in place of a character that could not be decoded",
           b"\xc3\x83\xc2": "UTF-8 that was decoded as Latin-1 and encoded again: 'Ã¼' for 'ü'",
           b"\xc3\x83\xc5": "UTF-8 that was decoded as Windows-1252 and encoded again: 'ÃŸ' for 'ß'",
           b"\xc3\xa2\xe2\x82\xac": "UTF-8 that was decoded as Windows-1252 and encoded again: 'â€™' for an apostrophe"}
"""Bytes that correct text hardly ever has, and what they are."""


def text_findings(subject: Subject, *, everything: bool) -> Iterator[Finding]:
    """What is wrong with the texts of a set."""
    found = underlying(subject.samples, Texts)
    if found is None:
        return
    texts, rows = found
    name, n = subject.name, len(rows)
    unknown, empty = _unknown(texts, rows if everything else rows[:: max(1, n // MOST_TEXTS)])
    if unknown > MANY_UNKNOWN:
        yield Finding("warning", "unknown_words", f"{unknown:.0%} of the words of {name} are not in the vocabulary",
                      "All of them are the same word to the model. Is the vocabulary of the same language? For scripts "
                      "without spaces, use a tokenizer.json: data.train.vocabulary.file=tokenizer.json")
    if len(empty):
        yield Finding("warning", "no_known_word", f"{len(empty):,} of {n:,} texts of {name} have no known word",
                      "They are empty, or of another language or encoding: remove or correct them.",
                      [f"{name} row {int(row):,} of {short(texts.file)}" for row in empty])
    if texts.limit is not None and (cut := texts.whole_lengths[rows] > texts.limit).mean() > MANY_CUT:
        lost = 1 - np.minimum(texts.whole_lengths[rows], texts.limit).sum() / texts.whole_lengths[rows].sum()
        yield Finding("warning" if cut.mean() > 0.25 else "note", "cut_texts",
                      f"{int(cut.sum()):,} of {n:,} texts of {name} ({cut.mean():.0%}) are cut to {texts.limit:,} "
                      "words",
                      f"{lost:.0%} of all words are lost. Increase max_length, if they matter.")


def _unknown(texts: Texts, rows: Integers) -> tuple[float, Integers]:
    """The fraction of unknown words, and the rows without any known word."""
    vocabulary = texts.vocabulary
    special = torch.tensor([number for number in (vocabulary.start, vocabulary.end, vocabulary.padding)
                            if number is not None])
    words = missing = 0
    empty: list[Integers] = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start:start + BLOCK]
        ids = texts.fetch(block)[0].ids
        own = ~torch.isin(ids, special)
        unknown = own & (ids == vocabulary.unknown)
        words, missing = words + int(own.sum()), missing + int(unknown.sum())
        empty.append(block[(unknown.sum(1) == own.sum(1)).numpy()])
    return missing / max(1, words), np.concatenate(empty) if empty else rows


def encoding_findings(subjects: Sequence[Subject]) -> Iterator[Finding]:
    """Files whose text was decoded wrongly before it was saved."""
    for file in dict.fromkeys(found[0].file for one in subjects if (found := underlying(one.samples, Texts))):
        counts = _counts(file)
        if any(counts.values()):
            yield Finding("warning", "garbled_text", f"{short(file)} has text that was decoded wrongly: "
                          f"{sum(counts.values()):,} places",
                          "Make the file again from its source, with the right encoding.",
                          [f"{count:,} times {GARBLED[start]}" for start, count in counts.items() if count])


def _counts(file: Path) -> dict[bytes, int]:
    """How often each of the bytes in `GARBLED` occur. One across the end of a piece of 4 MB is not counted."""
    counts = dict.fromkeys(GARBLED, 0)
    with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
        while piece := opened.read(4 << 20):
            for wrong in GARBLED:
                counts[wrong] += piece.count(wrong)
    return counts


def length_facts(lengths: Integers) -> str:
    """The lengths of the samples, as text."""
    middle, most = np.percentile(lengths, [50, 95])
    return f"median {middle:.0f}, 95 % up to {most:.0f}, longest {lengths.max():,}"
