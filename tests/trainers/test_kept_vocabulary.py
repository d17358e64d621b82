"""The vocabulary that a run keeps for inference."""

from __future__ import annotations

from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.data.splits import Split
from drumbeat.data.text import Texts
from drumbeat.data.vocabulary import Vocabulary
from drumbeat.trainers.kept_vocabulary import keep_vocabulary, kept_vocabulary


def test_the_words_of_a_part_of_a_set_are_kept(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text\n" + "a good film\n" * 9)
    vocabulary = Vocabulary(file=str(tmp_path / "train.csv"), start_and_end=True)
    texts = Texts(file=str(tmp_path / "train.csv"), vocabulary=vocabulary, labels=None)
    run = RunDir(tmp_path / "run")
    (run.checkpoints / "000001").mkdir(parents=True)
    (run.checkpoints / "best").symlink_to("000001")
    assert kept_vocabulary(run.checkpoints / "best") is None
    keep_vocabulary(run, [1, 2, 3])
    assert not run.vocabulary.exists()
    keep_vocabulary(run, Split(of=texts, part="a", fractions={"a": 1.0}))
    kept = kept_vocabulary(run.checkpoints / "best")
    assert kept is not None
    assert kept.encode("a new film").tolist() == vocabulary.encode("a new film").tolist()
    assert (kept.start, kept.end, kept.fingerprint) == (2, 3, vocabulary.fingerprint)
