"""A run keeps the vocabulary of its texts, so that inference needs neither the training texts nor their tokenizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drumbeat.configs.output_file import replacing
from drumbeat.configs.run.folder import RunDir
from drumbeat.data.splits import underlying

if TYPE_CHECKING:
    from drumbeat.data.vocabulary import Vocabulary


def keep_vocabulary(run: RunDir, samples: Any) -> None:
    """Writes the vocabulary of a set of texts to the run's folder; nothing for other sets."""
    texts = sys.modules.get("drumbeat.data.text")  # which only sets of texts import
    found = texts and underlying(samples, texts.Texts)
    if found and not run.vocabulary.exists():
        with replacing(run.vocabulary) as new:
            found[0].vocabulary.save(str(new))


def kept_vocabulary(checkpoint: Path) -> Vocabulary | None:
    """The vocabulary that the run of a checkpoint has kept; None if there is none. Raises `ValueError`."""
    from drumbeat.data.vocabulary import Vocabulary  # a run without texts does not need it

    run = RunDir(checkpoint.resolve().parent.parent)
    return Vocabulary(file=str(run.vocabulary)) if run.vocabulary.is_file() else None
