"""A run keeps the vocabulary of its texts, so that inference needs neither the training texts nor their tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drumbeat.configs.output_file import replacing
from drumbeat.configs.run.folder import RunDir
from drumbeat.data.text import Texts
from drumbeat.data.vocabulary import Vocabulary


def keep_vocabulary(run: RunDir, samples: Any) -> None:
    """Writes the vocabulary of a set of texts to the run's folder; nothing for other sets."""
    texts = texts_of(samples)
    if texts is not None and not run.vocabulary.exists():
        with replacing(run.vocabulary) as new:
            texts.vocabulary.save(str(new))


def kept_vocabulary(checkpoint: Path) -> Vocabulary | None:
    """The vocabulary that the run of a checkpoint has kept; None if there is none. Raises `ValueError`."""
    run = RunDir(checkpoint.resolve().parent.parent)
    return Vocabulary(file=str(run.vocabulary)) if run.vocabulary.is_file() else None


def texts_of(samples: Any) -> Texts | None:
    """The `Texts` that a dataset is, or is a part of; None for other datasets."""
    while samples is not None and not isinstance(samples, Texts):
        samples = getattr(samples, "of", None)
    return samples
