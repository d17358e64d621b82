"""The arguments of all verbs, and how a run is named."""

from __future__ import annotations

import argparse
from pathlib import Path

RUN_USAGE = """%(prog)s CONFIG [KEY=VALUE ...] [options]
       %(prog)s --resume RUN [KEY=VALUE ...] [options]"""

RUN_EXAMPLES = """examples:
  %(prog)s configs/resnet50_xray_demo.yaml --procs 2
  %(prog)s resnet50_xray --gpus 8 batch_size=256
  %(prog)s resnet50_xray --slurm --nodes 2 --gpus 8
  %(prog)s resnet50_xray --here
  %(prog)s resnet50_xray --debug phases.head.epochs=1
  %(prog)s --resume resnet50_xray
"""


DEMOS = {
    "xray": "chest radiographs in Kaggle's folders",
    "cifar10": "ten figures in CIFAR-10's binary files",
    "fashion_mnist": "the same in Fashion-MNIST's files",
    "hymenoptera": "ants and bees, a folder each",
    "news": "stories in a CSV with four topics",
}


def add_arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """The arguments of a verb."""
    ARGUMENTS.get(verb, add_which)(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.description = "Train what a config describes: here, on a cluster, or in this very process."
    parser.usage, parser.epilog = RUN_USAGE, RUN_EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("words", nargs="*", metavar="CONFIG", help="a config file, or the name of a shipped one; then "
                        "changes to it, KEY=VALUE")
    what = _add_start_arguments(parser, "all there are; needed with --slurm", "1; with --here all")
    what.add_argument("--name", help="collect the run under runs/NAME (default: the config's name)")
    what.add_argument("--resume", metavar="RUN", help="go on with a run, as drumbeat resume RUN does")
    _add_no_snapshot(what)
    parser.set_defaults(rerun=None, new_code=False, take_over=False)


def add_resume_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `resume`."""
    parser.description = ("Go on with a run that was stopped or killed: from its newest good checkpoint, with the code "
                          "and config it was submitted with, where it ran, on as many ranks.")
    parser.usage = "%(prog)s RUN [KEY=VALUE ...] [options]"
    add_which(parser, runs=False)
    parser.add_argument("words", nargs="*", default=[], metavar="KEY=VALUE", help="changes that cannot alter its "
                        "results: data.workers=2, checkpoints.keep=3")
    what = _add_start_arguments(parser, "as before", "as before")
    what.add_argument("--new-code", action="store_true", help="with the code as it is now, not as it was submitted")
    what.add_argument("--take-over", action="store_true", help="although it seems to be at work on another machine, "
                      "which can save nothing more then")
    parser.set_defaults(rerun=None, name=None, no_snapshot=False)


def add_rerun_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `rerun`."""
    parser.description = "Start the code and config of a run again, as a new run."
    parser.usage = "%(prog)s RUN [KEY=VALUE ...] [options]"
    add_which(parser, runs=False)
    parser.add_argument("words", nargs="*", default=[], metavar="KEY=VALUE",
                        help="changes to its config: batch_size=64")
    what = _add_start_arguments(parser, "as that run has", "as that run has")
    what.add_argument("--name", help="collect the new run under runs/NAME (default: the same name)")
    what.add_argument("--new-code", action="store_true", help="the code as it is now, not as that run had it")
    _add_no_snapshot(what)
    parser.set_defaults(resume=None)


def add_ls_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ls`."""
    parser.add_argument("--all", action="store_true", help="the older ones too")
    parser.add_argument("--json", action="store_true", help="all runs, with all that is known of them, for a program")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")


def add_logs_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `logs`."""
    add_which(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the run goes on")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rank", type=whole, default=0, metavar="R", help="whose (default: 0)")
    which.add_argument("--all", action="store_true", help="of all ranks, and torchrun's, each line with its name")
    which.add_argument("--errors", action="store_true", help="only what went wrong on each rank, the earliest first")
    parser.add_argument("--attempt", type=attempt, metavar="K", help="of which start: its number, from 0, or all "
                        "(default: the newest; with --errors, the newest that had any)")


def add_drill_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `drill`."""
    parser.description = ("Strike a run in every way, and prove nothing is lost: train what a config describes "
                          "straight through, under blows of every kind at random steps, and with a change of ranks.")
    parser.usage = "%(prog)s CONFIG [KEY=VALUE ...] [options]"
    parser.add_argument("words", nargs="+", metavar="CONFIG", help="a config file, or the name of a shipped one; then "
                        "changes to it, KEY=VALUE: phases.NAME.epochs=0.1 makes it short")
    parser.add_argument("--gpus", type=whole, metavar="N", help="ranks, a GPU each (default: all there are)")
    parser.add_argument("--procs", type=whole, metavar="N", help="ranks on the CPU")
    parser.add_argument("--kills", type=count, default=9, metavar="K", help="how many blows (default: 9, one of each "
                        "kind)")
    parser.add_argument("--seed", type=whole, metavar="S", help="for the same blows again (default: random)")
    parser.add_argument("--every", type=seconds, metavar="SECONDS", help="a blow in about so many seconds, until the "
                        "run is over (default: at random steps)")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are made (default: runs)")


def add_completion_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `completion`."""
    parser.description = "Print a script that has a shell complete verbs, options, configs and runs."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """in bash, for this shell or in ~/.bashrc for all:
  source <(drumbeat completion bash)
in zsh, in a folder of your fpath:
  drumbeat completion zsh > ~/.zfunc/_drumbeat"""
    parser.add_argument("shell", choices=["bash", "zsh"], help="which shell")


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `status`."""
    add_which(parser)
    parser.add_argument("--json", action="store_true", help="all that is known of it, for a program")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    add_which(parser)
    parser.add_argument("file", metavar="FILE", type=Path, help="where to: FILE.pt, .pth or .safetensors")
    parser.add_argument("--last", action="store_true", help="the newest weights instead of the best")


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    add_which(parser)
    _add_new_code(parser)


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    add_which(parser)
    parser.add_argument("--split", default="test", choices=["train", "validation", "test"], help="which set (default: "
                        "test)")
    parser.add_argument("--gpus", type=whole, metavar="N", help="on so many GPUs (default: one, if any)")
    parser.add_argument("--procs", type=whole, metavar="N", help="as so many processes, on the CPU")
    _add_checkpoint(parser)
    _add_new_code(parser)


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `predict`."""
    add_which(parser)
    parser.add_argument("given", nargs="+", metavar="GIVEN", help="images, folders of them, tables with a column "
                        "`file`; for a model of texts, tables of them, or .txt with one a line")
    parser.add_argument("--out", metavar="FILE", help="where to write the table (default: predictions.csv)")
    parser.add_argument("--sheet", metavar="FILE", help="where to draw images (default: beside the table)")
    _add_checkpoint(parser)
    _add_new_code(parser)


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `report`."""
    add_which(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="where to (default: report.html in the run's folder)")


def add_tensorboard_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tensorboard`."""
    parser.add_argument("run", metavar="RUN", nargs="*", help="runs by folder, id or name (default: all)")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")
    parser.add_argument("--port", type=whole, default=6006, metavar="P", help="the first port to try (default: 6006)")


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `show`."""
    _add_config(parser, " [--sheet FILE]")
    parser.add_argument("--sheet", default="show.png", metavar="FILE", help="where to draw training samples as the "
                        "model sees them (default: show.png)")


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    _add_config(parser, " [--all] [--sheet FILE]")
    parser.add_argument("--all", action="store_true", help="read every sample, not some hundred")
    parser.add_argument("--sheet", default="doctor.png", metavar="FILE", help="where to draw what the model will see "
                        "(default: doctor.png)")


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cache`."""
    _add_config(parser, "")


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `demo-data`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["kinds:", *(f"  {kind:<15}{what}" for kind, what in DEMOS.items())])
    parser.add_argument("kind", choices=list(DEMOS), metavar="KIND", help="which, of those below")
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to write them")


def add_which(parser: argparse.ArgumentParser, *, runs: bool = True) -> None:
    """Which run is meant."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, its id or the beginning of it, or a name")
    if runs:
        parser.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")


def whole(text: str) -> int:
    """A number, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def attempt(text: str) -> int | str:
    """The number of an attempt, or all of them, for argparse."""
    return text if text == "all" else whole(text)


def count(text: str) -> int:
    """A number from 1 on, for argparse."""
    if (number := whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be at least 1")
    return number


def seconds(text: str) -> float:
    """A time, for argparse."""
    try:
        if 0 < (number := float(text)) < float("inf"):
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds")


def _add_config(parser: argparse.ArgumentParser, options: str) -> None:
    parser.usage = f"%(prog)s CONFIG [KEY=VALUE ...]{options}"
    parser.add_argument("words", nargs="+", metavar="CONFIG", help="a config file, or the name of a shipped one; then "
                        "changes to it, KEY=VALUE")


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", metavar="WHICH", help="best, last or a step (default: best; last where there "
                        "is no validation set)")


def _add_new_code(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--new-code", action="store_true", help="with the code as it is now, not with the run's copy")


def _add_start_arguments(parser: argparse.ArgumentParser, ranks: str, nodes: str) -> argparse._ArgumentGroup:
    """What all verbs that start a run have; `ranks` and `nodes` say how many there are if none are asked for. Returns
    the group that others belong to."""
    size = parser.add_argument_group("how many processes")
    size.add_argument("--gpus", type=whole, metavar="N", help=f"ranks on each node, a GPU each (default: {ranks})")
    size.add_argument("--procs", type=whole, metavar="N", help="ranks on each node, on the CPU")
    size.add_argument("--nodes", type=whole, metavar="K", help=f"nodes of a cluster (default: {nodes})")
    place = parser.add_argument_group("where (default: on this machine, watched from this terminal)")
    place.add_argument("--detach", action="store_true", help="return at once, and leave it at work")
    place.add_argument("--debug", action="store_true", help="in this process: one rank, breakpoints work")
    place.add_argument("--slurm", action="store_true", help="on a cluster: submit to SLURM and return")
    place.add_argument("--here", action="store_true", help="in the allocation around this shell (salloc), watched")
    place.add_argument("--profile", metavar="SITE", help="which cluster: configs/clusters/SITE.yaml")
    what = parser.add_argument_group("how")
    what.add_argument("--dry-run", action="store_true", help="print what would run, and do nothing")
    what.add_argument("--no-preflight", action="store_true", help="start without looking at model, data and cluster")
    what.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")
    return what


def _add_no_snapshot(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--no-snapshot", action="store_true", help="run the code where it is, not a copy of it")


ARGUMENTS = {
    "run": add_run_arguments, "resume": add_resume_arguments, "rerun": add_rerun_arguments, "ls": add_ls_arguments,
    "status": add_status_arguments, "logs": add_logs_arguments, "verify": add_verify_arguments,
    "evaluate": add_evaluate_arguments, "predict": add_predict_arguments, "export": add_export_arguments,
    "report": add_report_arguments,
    "tensorboard": add_tensorboard_arguments, "show": add_show_arguments, "doctor": add_doctor_arguments,
    "drill": add_drill_arguments, "cache": add_cache_arguments, "completion": add_completion_arguments,
    "demo-data": add_demo_arguments,
}
"""Of each verb that takes more than the name of a run."""
