"""The vocabulary of a text model: how a text is split into words, their numbers, and pretrained word vectors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from drumbeat.data.order import Integers
from drumbeat.data.regular import lines_of
from drumbeat.data.store import built, digest
from drumbeat.data.tables import Table, found, short

ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
"""Scripts that are written without spaces between words."""
WORD = rf"[{ALONE}]\p{{M}}*|[\w&&[^{ALONE}]]+|[^\w\s]"
"""A letter of such a script with its marks; a run of other letters (with their marks), digits and underscores; or any
other single character that is not a space."""

MOST_BYTES = 256 << 20
"""The size of a tokenizer.json."""
MOST_WORDS = 1 << 24
MOST_DIMENSIONS = 1 << 14
MOST_LINE = 1 << 20
"""Bytes of a word and its vector in a file of vectors."""

PADDING, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"


class Vocabulary:
    """The words of a training file and their numbers (token ids).

    The vocabulary is built from the column `text` of `file`. A word is a run of letters and digits, or a single mark or
    symbol; of scripts that are written without spaces, such as Chinese, Japanese and Thai, it is a single letter. Words
    that occur at least `min_frequency` times are numbered by descending frequency (ties in alphabetical order), and
    `max_words` limits how many are kept. Number 0 is padding and 1 stands for an unknown word. With `start_and_end`,
    number 2 is put before each text and 3 after it. The same file and arguments give the same bytes. The result is
    cached. For a validation set, name the training file here, so that both sets share one vocabulary.

    If `file` is a tokenizer.json of the `tokenizers` library, as Hugging Face models have it, it is used as it is, and
    the other arguments are ignored, except `padding`: the word that stands for padding, if the file does not tell it.
    """

    def __init__(self, *, file: str, text: str = "text", lower: bool = True, min_frequency: int = 2,
                 max_words: int | None = None, start_and_end: bool = False, quoted: bool | None = None,
                 cache: str | None = None, padding: str | None = None) -> None:
        """`quoted` and `cache` have the same meaning as in `Texts`.

        Raises FileNotFoundError if the file does not exist, and ValueError if it is not in the expected format.
        """
        if min_frequency < 1 or (max_words is not None and max_words < 1):
            raise ValueError(f"min_frequency and max_words must be at least 1, not {min_frequency} and {max_words}")
        path = found(file)
        if not _is_tokenizer(path):
            table = Table(path, quoted)
            specials = [PADDING, UNKNOWN, *([START, END] if start_and_end else [])]

            def learn(folder: Path) -> None:
                _learn(table, text, lower=lower, least=min_frequency, most=max_words, specials=specials
                       ).save(str(folder / "tokenizer.json"))

            recipe = (text, lower, min_frequency, max_words, specials, table.quoted)
            path = built(path, "vocabulary", recipe, learn, cache) / "tokenizer.json"
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path} is larger than {MOST_BYTES >> 20} MB")
        try:
            description = path.read_text("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not a tokenizer.json: it is not UTF-8") from None
        self._use(description if padding is None else _padded(description, padding), str(path))

    def _use(self, description: str, file: str) -> None:
        self.file = file
        self._description = description
        self.fingerprint = digest(description)
        """A digest of the vocabulary and of how texts are split: 16 hexadecimal digits."""
        try:
            self._tokenizer = Tokenizer.from_str(description)
            told = self._tokenizer.padding
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            self._tokenizer.encode_special_tokens = True  # "[PAD]" written in a text is text
            probe = self._tokenizer.encode("a")
            largest = max(self._tokenizer.get_vocab().values())
        except BaseException as error:  # Exception, or PanicException, which is none, if the library fails itself
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise ValueError(f"{file} is not a tokenizer.json: {error}") from None
        if largest >= MOST_WORDS or not probe.ids:
            raise ValueError(f"{file} numbers a word {largest:,}, and can number at most {MOST_WORDS:,} words"
                             if largest >= MOST_WORDS else f"{file} makes nothing of the text 'a'")
        self.start: int | None = probe.ids[0] if probe.special_tokens_mask[0] else None
        self.end: int | None = probe.ids[-1] if probe.special_tokens_mask[-1] else None
        names = [str(told["pad_token"])] if told else [PADDING, "[PAD]", "<|pad|>"]
        found = self._special(*names)
        if found is None:
            specials = [str(token) for token in self._tokenizer.get_added_tokens_decoder().values()]
            raise ValueError(f"{file} does not tell which word stands for padding; name one of its words, for example "
                             f"padding: '{(specials or self.words())[-1]}'")
        self.padding: int = found
        model = json.loads(description)["model"]
        self.unknown = model.get("unk_id") if "unk_token" not in model else self._special(str(model["unk_token"]))
        """The number of a word that is not in the vocabulary; None if there is none, because words are split further,
        down to bytes."""
        self._added = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._empty = [number for number in (self.start, self.unknown, self.end) if number is not None]

    def _special(self, *names: str) -> int | None:
        """The number of the first of these words that there is."""
        numbers = (self._tokenizer.token_to_id(name) for name in names)
        return next((int(number) for number in numbers if number is not None), None)

    def __getstate__(self) -> tuple[str, str]:
        return self._description, self.file

    def __setstate__(self, state: tuple[str, str]) -> None:
        self._use(*state)

    @property
    def size(self) -> int:
        """The number of words, V, including the special ones: every number is in range(V)."""
        return len(self._by_number)

    @cached_property
    def _by_number(self) -> list[str]:
        numbers = self._tokenizer.get_vocab()
        by_number = [""] * (1 + max(numbers.values()))
        for word, number in numbers.items():
            by_number[number] = word
        return by_number

    def words(self) -> list[str]:
        """All words: the word with number i is at index i."""
        return list(self._by_number)

    def encode(self, text: str) -> NDArray[np.int32]:
        """The numbers of a text's words, int32 [T]. T is at least 1: a text without words becomes one unknown word."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], Integers]:
        """Encodes many texts on all cores: their word numbers, concatenated (int32), and their lengths (int64 [n])."""
        rows = [encoded.ids for encoded in self._tokenizer.encode_batch_fast(texts)]
        rows = [row if len(row) > self._added else self._empty or [self.padding] for row in rows]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths

    def save(self, path: str) -> None:
        """Writes a tokenizer.json, which can be given as `file`."""
        Path(path).write_text(self._description, "utf-8")


def _padded(description: str, word: str) -> str:
    """A tokenizer with a word for padding."""
    try:
        tokenizer = json.loads(description)
    except ValueError:
        return description  # which is reported as every tokenizer that is none
    return json.dumps(tokenizer | {"padding": {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": word}}, ensure_ascii=False)


def _learn(table: Table, text: str, *, lower: bool, least: int, most: int | None, specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    trainer = trainers.WordLevelTrainer(vocab_size=most or 2**31, min_frequency=least, special_tokens=[],
                                        show_progress=False)
    tokenizer.train_from_iterator((block[0] for block in table.blocks([text], "words")), trainer)
    learnt = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    if not learnt:
        raise ValueError(f"{table.path}, column {text!r}: no word occurs {least} times; lower min_frequency")
    # The special words are not "added tokens", which would match in texts. Punctuation splits "<pad>" in three.
    numbers = {word: number for number, word in enumerate([*specials, *(word for word, _ in learnt)])}
    tokenizer.model = models.WordLevel(vocab=numbers, unk_token=UNKNOWN)
    if START in specials:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, numbers[START]), (END, numbers[END])])
    return tokenizer


def _is_tokenizer(path: Path) -> bool:
    """Whether a .json file is a tokenizer.json and not JSON lines: its first line is not a whole JSON value, or is an
    object with a section "model"."""
    if path.suffix.lower() != ".json":
        return False
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline(MOST_BYTES))
        except (ValueError, RecursionError):
            return True
    return isinstance(first, dict) and isinstance(first.get("model"), dict)


class Vectors(NamedTuple):
    """Pretrained vectors for a vocabulary of V words."""

    values: Tensor
    """float32 [V, D]; zeros for a word without a vector."""
    found: Tensor
    """bool [V]: which words have a vector."""
    coverage: float
    """The fraction of the words that have a vector, from 0 to 1, not counting special words."""


def _bounded(file: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        yield from lines_of(file, MOST_LINE)
    except ValueError as error:
        raise ValueError(f"{path}, {error}; it is not a file of vectors") from None


def glove(file: str, vocabulary: Vocabulary) -> Vectors:
    """Reads the vectors of a vocabulary from a GloVe or fastText text file: a word and D numbers on each line.

    The file is read line by line, so only the vectors that are kept take memory. The number of words with a vector is
    printed to stderr. If a word occurs twice in the file, the first vector counts. Raises FileNotFoundError, and
    ValueError, which names the line, if the file is not in this format.
    """
    path = found(file)
    specials = {vocabulary.padding, vocabulary.unknown, vocabulary.start, vocabulary.end}
    numbers = {word.encode(): number for number, word in enumerate(vocabulary.words()) if number not in specials}
    wanted = len(numbers)
    has = torch.zeros(vocabulary.size, dtype=torch.bool)
    values = np.empty((0, 0), np.float32)
    with path.open("rb") as lines:
        for line, row in enumerate(_bounded(lines, path), 1):
            if not len(values):
                if line == 1 and len(row.split()) == 2:
                    continue  # fastText's header: the number of words and of dimensions
                dimensions = len(row.split()) - 1
                if dimensions > MOST_DIMENSIONS:
                    raise ValueError(f"{path}, line {line}: vectors of {dimensions:,} numbers; the most are "
                                     f"{MOST_DIMENSIONS:,}")
                values = np.zeros((vocabulary.size, max(1, dimensions)), np.float32)
            if row.partition(b" ")[0] not in numbers:
                continue
            word, *parts = row.rstrip().rsplit(b" ", values.shape[1])
            if b" " in word:
                continue  # some entries of the Common Crawl vectors are several words
            try:
                values[numbers[word]] = np.fromiter(map(float, parts), np.float32, values.shape[1])
            except ValueError:
                raise ValueError(f"{path}, line {line}: expected a word and {values.shape[1]} numbers, not "
                                 f"{short(row.decode(errors='replace').strip())}; download the file again") from None
            has[numbers.pop(word)] = True
    if not len(values):
        raise ValueError(f"{path} holds no vectors; expected a word and its numbers on each line")
    coverage = (wanted - len(numbers)) / max(1, wanted)
    print(f"vectors    {path.name} has {wanted - len(numbers):,} of {wanted:,} words ({coverage:.0%})", file=sys.stderr,
          flush=True)
    return Vectors(torch.from_numpy(values), has, coverage)
