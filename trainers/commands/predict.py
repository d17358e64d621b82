"""Runs inference on new images or texts. Writes a table of predictions and, for images, a contact sheet.

    python -m drumbeat.trainers.commands.predict RUN INPUT... [--out FILE.csv] [--sheet FILE.png]

is what `drumbeat predict RUN INPUT...` runs. Inputs that cannot be read are reported and left out.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError, UserError
from drumbeat.configs.layers import short
from drumbeat.configs.output_file import disk_fault
from drumbeat.configs.preconditions import check_inputs
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.terminal import print_text_only
from drumbeat.data.bar import Bar
from drumbeat.trainers.contact_sheet import save_sheet
from drumbeat.trainers.inference.inputs import TableFormat, read_images, read_texts
from drumbeat.trainers.inference.load import use_training_settings
from drumbeat.trainers.inference.predictor import Outputs, Predictor
from drumbeat.trainers.inference.tables import headings, rows, write_csv
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tracking import CORRECT, PLAIN, WRONG, contact_sheet

DRAWN = 60
"""The largest number of images on the sheet."""


def run(predictor: Predictor, paths: Sequence[Path], out: Path, sheet: Path) -> str:
    """Predicts all inputs, and writes the table and the sheet. Returns the text to print. Raises a `UserError` if no
    input can be read or a file cannot be written, and `OSError`."""
    if out == sheet:
        raise RunError(Fault(what="the table and the sheet are the same file", where=short(out),
                             remedy="Give the table the suffix .csv: --out predictions.csv"))
    check_inputs(paths, predictor.config)
    task = predictor.task
    read = read_texts if predictor.reads_texts else read_images
    items = read(paths, task, TableFormat.of(predictor.config))
    with Bar() as bar:
        found = predictor.predict(items, lambda count: bar.advance("predicting", count, len(items)))
    for reason in found.unreadable:
        print(f"left out   {reason}", file=sys.stderr)
    if not found.items:
        raise RunError(Fault(what="none of the inputs can be read", where=short(paths[0]),
                             given=found.unreadable[0]))
    known = any(item.actual for item in found.items)
    predictions = rows(task, found.outputs)
    actual = [[item.actual] if known else [] for item in found.items]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(out, ["file", *(["actual"] if known else []), *headings(task, found.outputs)],
              [[item.name, *label, *prediction]
               for item, label, prediction in zip(found.items, actual, predictions, strict=True)])
    lines = [f"predicted  {len(found.items):,}" + (f", {len(found.unreadable):,} left out" * bool(found.unreadable)),
             *_counts(task, found), f"table      {short(out)}"]
    if _draw(predictor, found, sheet):
        lines.append(f"sheet      {short(sheet)}")
    return "\n".join(lines)


def _counts(task: Task, found: Outputs) -> list[str]:
    """How often each class was predicted, and the accuracy on the items whose label is known."""
    if task.kind == "regression":
        return []
    predictions = [task.to_text(prediction) for prediction in task.predictions(found.outputs)]
    counts = Counter(predictions).most_common(10)
    lines = [f"{'classes' if not number else '':<11}{name} {count:,} ({count / len(predictions):.0%})"
             for number, (name, count) in enumerate(counts)]
    if correct := [item.actual == text for item, text in zip(found.items, predictions, strict=True) if item.actual]:
        lines.append(f"correct    {sum(correct) / len(correct):.0%} ({sum(correct)}/{len(correct)} with a label)")
    return lines


def _draw(predictor: Predictor, found: Outputs, file: Path) -> bool:
    """Draws the first images with their predictions: green if correct; red, and with the label, if wrong. Returns False
    for texts."""
    inputs = predictor.inputs(found.items[:DRAWN])
    if inputs is None:
        return False
    task, outputs = predictor.task, found.outputs[:DRAWN]
    probabilities = task.probabilities(outputs)
    titles, colours = [], []
    for number, (item, prediction) in enumerate(zip(found.items, task.predictions(outputs), strict=False)):
        name = task.to_text(prediction)
        probability = f" {float(probabilities[number].max()):.0%}" if task.kind == "classification" and (
            probabilities is not None) else ""
        correct = item.actual == name
        title = f"{name}{probability}"
        titles.append(title if correct or not item.actual else f"{title}\nactual {item.actual}")
        colours.append(PLAIN if not item.actual or task.kind == "regression" else CORRECT if correct else WRONG)
    save_sheet(contact_sheet(list(inputs), titles, columns=6, colours=colours), file)
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("--checkpoint")
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"))
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        use_training_settings(RunDir(args.run))
        predictor = Predictor.from_run(args.run, args.checkpoint, args.device)
        print(run(predictor, args.inputs, args.out.absolute(), (args.sheet or args.out.with_suffix(".png")).absolute()))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        file = Path(error.filename or args.out.absolute())
        print(RunError(disk_fault(error, file) or Fault(
            what=f"a file cannot be read or written: {error.strerror or error}", where=str(file))), file=sys.stderr)
        return RunError.exit_code
    return 0


if __name__ == "__main__":
    print_text_only()
    sys.exit(main())
