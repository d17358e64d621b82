"""Predictions for what a person hands over: a table, and a sheet to look at.

    python -m drumbeat.trainers.commands.predict RUN GIVEN... [--out FILE.csv] [--sheet FILE.png]

is what `drumbeat predict RUN GIVEN...` runs. What cannot be read is told and left out.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError, UserError
from drumbeat.configs.layers import short
from drumbeat.configs.preconditions import check_given, innermost
from drumbeat.configs.run.folder import RunDir
from drumbeat.data.bar import Bar
from drumbeat.trainers.contact_sheet import save_sheet
from drumbeat.trainers.inference.inputs import images_given, texts_given
from drumbeat.trainers.inference.load import settle
from drumbeat.trainers.inference.predictor import Predicted, Predictor
from drumbeat.trainers.inference.tables import headings, rows, write_csv
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tracking import PLAIN, RIGHT, WRONG, contact_sheet

DRAWN = 60
"""Images on the sheet."""


def run(predictor: Predictor, paths: Sequence[Path], out: Path, sheet: Path) -> str:
    """Predicts everything that is given, and writes the table and the sheet; what came of it, in words. Raises a
    `UserError` where nothing can be read or something cannot be written, and `OSError`."""
    if out == sheet:
        raise RunError(Fault(what="the table and the sheet would be one file", where=short(out),
                             remedy="Name the table after what it is: --out predictions.csv"))
    check_given(paths, predictor.config)
    task = predictor.task
    column = str(innermost(predictor.config.data.train).get("text", "text"))
    items = texts_given(paths, task, column) if predictor.reads_texts else images_given(paths, task)
    with Bar() as bar:
        found = predictor.predict(items, lambda count: bar.more("predicting", count, len(items)))
    for reason in found.unreadable:
        print(f"left out   {reason}", file=sys.stderr)
    if not found.items:
        raise RunError(Fault(what="nothing that was given can be read", where=short(paths[0]),
                             given=found.unreadable[0]))
    known = any(item.actual for item in found.items)
    answers = rows(task, found.outputs)
    actual = [[item.actual] if known else [] for item in found.items]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(out, ["file", *(["actual"] if known else []), *headings(task, found.outputs)],
              [[item.name, *truth, *answer] for item, truth, answer in zip(found.items, actual, answers, strict=True)])
    lines = [f"predicted  {len(found.items):,}" + (f", {len(found.unreadable):,} left out" * bool(found.unreadable)),
             *_counts(task, found), f"table      {short(out)}"]
    if _draw(predictor, found, sheet):
        lines.append(f"sheet      {short(sheet)}")
    return "\n".join(lines)


def _counts(task: Task, found: Predicted) -> list[str]:
    """How often each class was predicted; and how many of those whose label is known are right."""
    if task.kind == "regression":
        return []
    answers = [task.named(answer) for answer in task.predicted(found.outputs)]
    counts = sorted({answer: answers.count(answer) for answer in set(answers)}.items(), key=lambda pair: -pair[1])
    lines = [f"{'answers' if not number else '':<11}{name} {count:,} ({count / len(answers):.0%})"
             for number, (name, count) in enumerate(counts[:10])]
    if known := [item.actual == answer for item, answer in zip(found.items, answers, strict=True) if item.actual]:
        lines.append(f"right      {sum(known) / len(known):.0%} ({sum(known)}/{len(known)} with a label)")
    return lines


def _draw(predictor: Predictor, found: Predicted, file: Path) -> bool:
    """A sheet of the first images, each with its answer: green where it is right, red, and with what it is, where it is
    wrong. Whether there was anything to draw."""
    inputs = predictor.inputs(found.items[:DRAWN])
    if inputs is None:
        return False
    task, outputs = predictor.task, found.outputs[:DRAWN]
    probabilities = task.probabilities(outputs)
    titles, colours = [], []
    for number, (item, answer) in enumerate(zip(found.items, task.predicted(outputs), strict=False)):
        name = task.named(answer)
        sure = f" {float(probabilities[number].max()):.0%}" if task.kind == "classification" and (
            probabilities is not None) else ""
        right = item.actual == name
        titles.append(f"{name}{sure}" if right or not item.actual else f"{name}{sure}\nactual {item.actual}")
        colours.append(PLAIN if not item.actual or task.kind == "regression" else RIGHT if right else WRONG)
    save_sheet(contact_sheet(list(inputs), titles, columns=6, colours=colours), file)
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("given", type=Path, nargs="+")
    parser.add_argument("--checkpoint")
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"))
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        settle(RunDir(args.run))
        predictor = Predictor.from_run(args.run, args.checkpoint, args.device)
        print(run(predictor, args.given, args.out.absolute(), (args.sheet or args.out.with_suffix(".png")).absolute()))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        what = f"this cannot be read or written: {error.strerror or error}"
        print(RunError(Fault(what=what, where=str(error.filename or ""))), file=sys.stderr)
        return RunError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
