"""Evaluates a checkpoint of a run on one of its sets, on any number of ranks. Writes metrics and plots.

    python -m drumbeat.trainers.commands.evaluate RUN --split test [--checkpoint best] [--ranks N] [--device cuda]

is what `drumbeat evaluate RUN` runs. Errors of the user are found before ranks are started; a single rank is this
process.

    RUN/evaluation/<split>-<step>/
        metrics.json, metrics.txt      overall, and for each class, label or value
        predictions.csv                a row for each sample: its target, prediction, loss and probabilities
        samples.safetensors            the same in numbers, for `drumbeat compare`
        confusion.png, roc.png, precision_recall.png, scatter.png, worst_samples.png      depending on the task
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from drumbeat.configs.errors import Fault, PreflightError, RunError, UserError
from drumbeat.configs.layers import short
from drumbeat.configs.load import read
from drumbeat.configs.output_file import disk_fault
from drumbeat.configs.preconditions import SPLITS, check_split, with_hint
from drumbeat.configs.run.checkpoint_records import EvaluationMetrics, Manifest
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.schema import Config
from drumbeat.configs.terminal import print_text_only, visible
from drumbeat.data.bar import Bar
from drumbeat.data.loader import BatchFetcher, Samples, error_message, one_thread
from drumbeat.data.sample_names import sample_names
from drumbeat.data.user_code import CollateError, SampleError
from drumbeat.trainers.build import (
    Sets,
    build_forward,
    build_sets,
    build_task,
    loader_workers,
    use_caches,
)
from drumbeat.trainers.contact_sheet import CPU, save_sheet, worst_samples_sheet
from drumbeat.trainers.evaluate import evaluate
from drumbeat.trainers.inference.load import good_checkpoint, load_model, training_set, use_training_settings
from drumbeat.trainers.inference.metrics import as_text
from drumbeat.trainers.inference.samples import NAME as SAMPLES
from drumbeat.trainers.inference.samples import kept_samples, write_samples
from drumbeat.trainers.inference.tables import sample_cells, write_csv
from drumbeat.trainers.metrics import build_metrics
from drumbeat.trainers.model_and_task import parts_of
from drumbeat.trainers.sample_counts import check_unreadable
from drumbeat.trainers.tasks import Results, Task
from drumbeat.trainers.tasks.task import losses_of
from drumbeat.trainers.world import World, die_with_agent, join

WORST_SAMPLES = 40
"""The number of samples on the sheet of worst samples."""


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """The set and the checkpoint to evaluate."""

    run: RunDir
    config: Config
    split: str
    path: Path
    """The checkpoint's folder."""
    checkpoint: str
    """A description of the checkpoint: "best checkpoint, step 120"."""
    sets: Sets
    samples: Samples
    task: Task

    @property
    def step(self) -> int:
        return Manifest.require(self.path / "manifest.json").step

    @property
    def folder(self) -> Path:
        """Where the metrics are written."""
        return self.run.path / "evaluation" / f"{self.split}-{self.step}"


def build_job(run: RunDir, split: str, which: str | None) -> EvaluationJob:
    """Builds the job, and checks it unless this is a rank, whose parent has checked it. Raises a `UserError`."""
    config = read(run.config)
    path, checkpoint = good_checkpoint(run, which)
    check_split(config, split)
    try:
        sets = build_sets(config)
    except PreflightError as error:
        raise PreflightError(*with_hint(error.faults, config.data.download_hint, fixed=True)) from None
    samples = getattr(sets, split)
    _check_names(path, split, sets, samples)
    job = EvaluationJob(run=run, config=config, split=split, path=path, checkpoint=checkpoint, sets=sets,
                        samples=samples, task=build_task(config, sets))
    if "RANK" not in os.environ:
        _smoke_test(job)
    use_caches(config, sets, processes=len(os.sched_getaffinity(0)))
    return job


def _check_names(path: Path, split: str, sets: Sets, samples: Samples) -> None:
    """Raises `PreflightError` if the classes or values are not those of the training."""
    for kind in ("classes", "value_names"):
        known = training_set(path).get(kind) or getattr(sets.train, kind, None)
        found = getattr(samples, kind, None)
        if known and found and list(known) != list(found):
            only = [f"only in {where}: {', '.join([*extra[:6], *(['...'] if len(extra) > 6 else [])])}"
                    for where, extra in (("the run", [one for one in known if one not in found]),
                                         ("the data", [one for one in found if one not in known])) if extra]
            plain = kind.replace("_", " ")
            raise PreflightError(Fault(what=f"the {plain} of data.{split} differ from those of the training",
                                       where=f"data.{split}", given="\n".join(only) or "the same, in another order",
                                       remedy="Restore the data, or train again."))


def _smoke_test(job: EvaluationJob) -> None:
    """Runs the model and the loss on one sample. Raises `PreflightError` if model, task and set do not fit together."""
    if not len(job.samples):
        raise PreflightError(Fault(what=f"data.{job.split} is empty", where=f"data.{job.split}"))
    model = load_model(job.config, job.path, torch.device("cpu"), job.task)
    fetch = BatchFetcher(job.samples, indices=lambda positions: positions, transforms=job.sets.evaluate_transforms,
                         skip_unreadable=True, collate=job.sets.collate, name=f"data.{job.split}")
    try:
        batch = fetch.__getitems__([0])
    except (SampleError, CollateError) as error:
        raise PreflightError(Fault(what=str(error), where=f"data.{job.split}")) from None
    targets, ignored = batch.targets, getattr(job.task, "ignore_index", None)
    if isinstance(targets, Tensor) and targets.dtype == torch.int64 and targets.dim() == 1 and int(
            targets[0]) < 0 and int(targets[0]) != ignored:
        raise PreflightError(Fault(what=f"data.{job.split} has no labels to compare with", where=f"data.{job.split}",
                                   remedy="Name the column with the labels: labels. Without labels: drumbeat predict"))
    forward = build_forward(job.config, CPU.device)
    try:
        with torch.no_grad(), forward.autocast():
            losses_of(job.task, forward.outputs(model, batch.inputs), batch.targets, 1)
    except Exception as error:  # a model of the user's may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PreflightError(Fault(what=f"the model and data.{job.split} do not fit together: {reason}",
                                   where=f"data.{job.split}", remedy="To see both: drumbeat show CONFIG")) from None


def run_job(job: EvaluationJob, world: World) -> Results | None:
    """Evaluates the set. Returns the results on rank 0, the same to the bit at any world size. Raises `PreflightError`
    for a sample that cannot be read."""
    threads = torch.get_num_threads()
    size = job.config.evaluation.batch_size
    task = job.task
    parts_of(task).to(world.device)
    model: nn.Module = load_model(job.config, job.path, world.device, task)
    total = -(-len(job.samples) // size)
    with Bar(shown=world.is_main) as bar:
        try:
            return evaluate(model, task, job.samples, list(job.sets.evaluate_transforms), world=world, batch_size=size,
                            forward=build_forward(job.config, world.device),
                            workers=loader_workers(job.config, threads=threads, debug=False),
                            skip_unreadable=job.config.data.on_error == "skip",
                            batch_statistics=job.config.evaluation.batch_statistics,
                            metrics=build_metrics(job.config, task), draws=WORST_SAMPLES,
                            collate=job.sets.collate, name=f"data.{job.split}",
                            heartbeat=lambda: bar.advance(f"evaluating {job.split}", 1, total))
        except (SampleError, CollateError) as error:
            raise PreflightError(Fault(what=error_message(error), where=f"data.{job.split}",
                                       remedy="Repair or restore it.")) from error
        finally:
            parts_of(task).to("cpu")  # what reads the results has them there


def write_report(job: EvaluationJob, results: Results) -> str:
    """Writes all files into the run's folder, and points and images for TensorBoard. Returns the metrics as text.
    Raises `PreflightError` if too many samples could not be read, and `OSError`."""
    from drumbeat.trainers.inference.plots import draw  # takes seconds to import
    from drumbeat.trainers.tasks.measure import measure

    left_out = len(job.samples) - len(results.losses)
    if note := check_unreadable(job.split, left_out, len(job.samples), job.config.data.max_skipped):
        note += "\n\n"
    with one_thread():
        found = measure(job.task, results)
        folder = job.folder
        folder.mkdir(parents=True, exist_ok=True)
        plots = draw(job.task, results, found, folder)
    sheet = worst_samples_sheet(job.task, job.samples, job.sets.evaluate_transforms, results, most=WORST_SAMPLES,
                                columns=5, collate=job.sets.collate)
    if sheet is not None:
        save_sheet(sheet, folder / "worst_samples.png")
        plots.append(folder / "worst_samples.png")
    heading = f"{job.split} set of {job.run.id}, {job.checkpoint}: {len(results.losses):,} samples"
    EvaluationMetrics(run=job.run.id, split=job.split, checkpoint=job.checkpoint, step=job.step,
                      samples=len(results.losses), unreadable=left_out, kind=found.kind, metrics=found.metrics,
                      classes=found.classes, confusion=found.confusion).write(folder / "metrics.json")
    write_text(folder / "metrics.txt", visible(f"{heading}\n\n{as_text(found, most=None)}\n"))
    _write_predictions(job, results, folder / "predictions.csv")
    write_samples(kept_samples(job.task, results, job.samples), folder / SAMPLES)
    _to_tensorboard(job, found.metrics, plots)
    return f"{note}{heading}\n\n{as_text(found)}\n\nfolder     {short(folder)}\nplots      " \
           f"{', '.join(file.name for file in plots)}"


def _write_predictions(job: EvaluationJob, results: Results, file: Path) -> None:
    names = sample_names(job.samples)
    heading, cells = sample_cells(job.task, results)
    lines = [[names[index] if names else str(index), *row] for index, row in zip(results.indices, cells, strict=True)]
    write_csv(file, ["sample", *heading], lines)


def _to_tensorboard(job: EvaluationJob, metrics: dict[str, float | None], plots: list[Path]) -> None:
    """Points and images at the checkpoint's step, in a separate folder, because the run may still be writing its
    own."""
    from PIL import Image

    from drumbeat.trainers.event_file import EventFile

    job.run.tensorboard.mkdir(exist_ok=True)
    events = EventFile(job.run.tensorboard / "evaluation")
    events.scalars({f"{job.split}/{name}": value for name, value in metrics.items() if value is not None}, job.step)
    for file in plots:
        with Image.open(file) as image:
            events.image(f"{job.split}/{file.stem}", image, job.step)
    events.close()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--checkpoint")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    run = RunDir(args.run)
    warnings.simplefilter("ignore")
    try:
        use_training_settings(run)
        job = build_job(run, args.split, args.checkpoint)
        if args.ranks > 1 and "RANK" not in os.environ:
            return _on_ranks(args.ranks)
        with join(args.device) as world:
            results = run_job(job, world)
            if results is not None:
                print(write_report(job, results))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        file = Path(error.filename or run.path)
        print(RunError(disk_fault(error, file) or Fault(
            what=f"a file cannot be read or written: {error.strerror or error}", where=str(file))), file=sys.stderr)
        return RunError.exit_code
    return 0


def _on_ranks(count: int) -> int:
    """Runs this command on `count` ranks. Returns the exit code of the first rank that failed, which has printed
    why."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args
    from torch.distributed.run import run as torchrun

    from drumbeat.trainers.store import meet_on_loopback

    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        torchrun(parse_args([*meet_on_loopback(), f"--nproc-per-node={count}", "--max-restarts=0",
                             "-m", "drumbeat.configs.importing", "drumbeat.trainers.commands.evaluate",
                             *sys.argv[1:]]))
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        if first.exitcode < 0:
            print(f"error: rank {rank} was killed by signal {-first.exitcode}", file=sys.stderr)
        return max(1, first.exitcode)
    return 0


if __name__ == "__main__":
    if "RANK" in os.environ:
        die_with_agent()
    print_text_only()
    sys.exit(main())
