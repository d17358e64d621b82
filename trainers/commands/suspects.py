"""Training samples whose labels may be wrong: those that a run's model gets wrong with the largest losses.

    python -m drumbeat.trainers.commands.suspects RUN [--checkpoint best] [--sheet FILE] [--json]

is what `drumbeat doctor --run RUN` runs. A model learns what most samples have in common before it learns single wrong
labels, so these have the largest losses after the first epochs (Arpit et al., "A closer look at memorization in deep
networks", 2017).
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

from drumbeat.configs.errors import UserError
from drumbeat.configs.layers import short
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.terminal import print_text_only
from drumbeat.trainers.commands.evaluate import EvaluationJob, build_job, run_job
from drumbeat.trainers.contact_sheet import save_sheet, worst_samples_sheet
from drumbeat.trainers.doctor.findings import MOST, Finding, Findings
from drumbeat.trainers.doctor.subject import Subject
from drumbeat.trainers.inference.load import use_training_settings
from drumbeat.trainers.tasks import Results
from drumbeat.trainers.world import join

SHOWN, ON_SHEET = 12, 24
"""Samples that are listed, and drawn."""


def suspects(job: EvaluationJob, results: Results) -> list[Finding]:
    """The samples that the model gets wrong, or of a regression all, with the largest losses first."""
    worst, indices = job.task.worst_samples(results, MOST), results.indices
    if not worst:
        return []
    subject, means = Subject("train", job.samples), results.mean_losses
    wrong = len(job.task.worst_samples(results, len(indices)))
    text = (f"{wrong:,} of {len(indices):,} training samples are predicted differently by the {job.checkpoint}"
            if job.task.kind != "regression" else f"the largest losses on training samples, {job.checkpoint}")
    return [Finding(
        "note", "suspect_labels", text,
        "Wrong labels are probably among the first: look at the sheet. After many epochs a model has learned "
        "wrong labels, too: --checkpoint STEP takes an early one.",
        [f"loss {float(means[one.index]):.3g}  {', '.join(one.title.splitlines())}  "
         f"{subject.sample(indices[one.index])}" for one in worst], SHOWN)]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--sheet", type=Path, default=Path("suspects.png"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    run, found = RunDir(args.run), Findings()
    warnings.simplefilter("ignore")
    try:
        use_training_settings(run)
        job = build_job(run, "train", args.checkpoint)
        with join("cpu") as world:
            results = run_job(job, world)
        assert results is not None  # this is the only rank
        found.add(suspects(job, results))
        if not found.found:
            found.fact("verdict", "no training sample is contradicted: the model predicts the labels of all")
        sheet = worst_samples_sheet(job.task, job.samples, job.sets.evaluate_transforms, results, most=ON_SHEET,
                                    columns=6, collate=job.sets.collate)
        if sheet is not None:
            save_sheet(sheet, args.sheet.absolute())
            found.fact("sheet", short(args.sheet))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(found.as_json(), indent=2) if args.json else found)
    return 0


if __name__ == "__main__":
    print_text_only()
    sys.exit(main())
