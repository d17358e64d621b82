"""drumbeat: the table of contents of all verbs, a few lines each.

Nothing is imported here that --help can do without: each verb imports what it needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from configs.errors import ConfigError, Fault, UserError, nearest

REQUIRED = ("omegaconf", "rich", "submitit", "yaml")
"""What the launcher needs besides the standard library."""


def main(argv: Sequence[str] | None = None, program: str = "drumbeat run") -> int:
    """Runs one verb; its exit code. A user's mistake is one screen on stderr and exit code 2."""
    try:
        args = parse(list(sys.argv[1:] if argv is None else argv), program)
        code = int(args.verb(args))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as in `drumbeat logs RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as absent:
        if absent.name not in REQUIRED:
            raise
        print(Fault(what=f"{absent.name} is not installed", where=sys.executable,
                    remedy="Use .venv/bin/python, which `make demo` makes, or: pip install -e ."), file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    from launch.run import run

    return run(args)


def status(args: argparse.Namespace) -> int:
    from launch.runs import find_run, status_text

    print(status_text(find_run(args.run, Path(args.runs))))
    return 0


def logs(args: argparse.Namespace) -> int:
    from launch.runs import find_run, log_lines

    for line in log_lines(find_run(args.run, Path(args.runs)), rank=args.rank, follow=args.follow):
        print(line, flush=True)
    return 0


def stop(args: argparse.Namespace) -> int:
    from launch.runs import ask_to_stop, find_run

    print(ask_to_stop(find_run(args.run, Path(args.runs))))
    return 0


def verify(args: argparse.Namespace) -> int:
    from launch.runs import find_run
    from launch.tools import start

    return start("trainers.verify", str(find_run(args.run, Path(args.runs)).path))


def checkpoints(args: argparse.Namespace) -> int:
    from launch.runs import checkpoints_text, find_run

    print(checkpoints_text(find_run(args.run, Path(args.runs))))
    return 0


def export(args: argparse.Namespace) -> int:
    from launch.runs import find_run
    from launch.tools import start

    folder = find_run(args.run, Path(args.runs)).path
    return start("trainers.export", str(folder), str(args.file.absolute()), "last" if args.last else "best")


def evaluate(args: argparse.Namespace) -> int:
    from launch.runs import find_run
    from launch.tools import ranks, start

    folder = find_run(args.run, Path(args.runs)).path
    chosen = ["--checkpoint", args.checkpoint] if args.checkpoint else []
    return start("trainers.evaluation", str(folder), "--split", args.split, *chosen, *ranks(args.gpus, args.procs))


def predict(args: argparse.Namespace) -> int:
    from launch.runs import find_run
    from launch.tools import ranks, start

    folder = find_run(args.run, Path(args.runs)).path
    chosen = [word for option in ("checkpoint", "out", "sheet") if (value := getattr(args, option))
              for word in (f"--{option}", value)]
    return start("trainers.predictions", str(folder), *args.given, *chosen, *ranks(None, None))


def cache(args: argparse.Namespace) -> int:
    from launch.tools import on_config

    return on_config("trainers.cache", args.words)


def doctor(args: argparse.Namespace) -> int:
    from launch.tools import on_config

    return on_config("trainers.doctor", args.words, *(["--all"] if args.all else []), "--sheet", args.sheet)


def show(args: argparse.Namespace) -> int:
    from launch.tools import on_config

    return on_config("trainers.show", args.words, "--sheet", args.sheet)


def drill(args: argparse.Namespace) -> int:
    import random

    from configs.load import load
    from launch.drill import drill

    flags = [f"--{name}={value}" for name in ("gpus", "procs") if (value := getattr(args, name)) is not None]
    files = [word for word in args.words if "=" not in word]
    if len(files) != 1:
        raise ConfigError(Fault(what="one config is needed", where="command line", given=" ".join(files),
                                remedy="For example: drumbeat drill configs/resnet50_xray_demo.yaml --procs 2"))
    name = load(files[0], [word for word in args.words if "=" in word]).config.name
    seed = random.randrange(10**6) if args.seed is None else args.seed
    return drill([*args.words, *flags], Path(args.runs), name=f"{name}-drill", kills=args.kills, seed=seed,
                 every=args.every)


def demo_data(args: argparse.Namespace) -> int:
    from launch.tools import start

    return start("data.demo", args.kind, str(args.folder.absolute()))


VERBS: dict[str, tuple[str, Callable[[argparse.Namespace], int]]] = {
    "run": ("train what a config describes", run),
    "status": ("how a run is doing", status),
    "logs": ("what the ranks of a run printed", logs),
    "stop": ("ask a run to save and leave", stop),
    "verify": ("prove which samples a run has used", verify),
    "checkpoints": ("what of a run is saved", checkpoints),
    "evaluate": ("judge a run's weights on one of its sets", evaluate),
    "predict": ("what a run's model makes of new images or texts", predict),
    "export": ("write a run's weights as one plain file", export),
    "show": ("a config's model, what it costs and what it sees", show),
    "doctor": ("look at a config's data before training on it", doctor),
    "drill": ("hurt a config's training in every way, and prove nothing is lost", drill),
    "cache": ("decode a config's images ahead of its runs", cache),
    "demo-data": ("write synthetic data to try things with", demo_data),
}

DEMOS = {
    "xray": "chest radiographs in Kaggle's folders",
    "cifar10": "ten figures in CIFAR-10's binary files",
    "fashion_mnist": "the same in Fashion-MNIST's files",
    "hymenoptera": "ants and bees, a folder each",
    "news": "stories in a CSV with four topics",
}

ABOUT = "Trains PyTorch models from one config, on any machine.\n\n" + "\n".join(
    ["verbs:", *(f"  {name:<12}{what}" for name, (what, _) in VERBS.items()), "", "drumbeat VERB --help says more."])

RUN_USAGE = """%(prog)s CONFIG [KEY=VALUE ...] [options]
       %(prog)s --resume RUN [options]"""

RUN_EXAMPLES = """examples:
  %(prog)s configs/resnet50_xray_demo.yaml --procs 2
  %(prog)s resnet50_xray --gpus 8 batch_size=256
  %(prog)s resnet50_xray --slurm --nodes 2 --gpus 8
  %(prog)s resnet50_xray --debug phases.head.epochs=1
  %(prog)s --resume resnet50_xray
"""


def parse(words: list[str], program: str = "drumbeat run") -> argparse.Namespace:
    """The arguments, KEY=VALUE also behind options, where argparse alone would not look for them."""
    top, verbs = parsers(program)
    words = words or ["--help"]
    if words[0] not in verbs and not words[0].startswith("-"):
        raise ConfigError(Fault(what=f"there is no verb '{words[0]}'", where="command line",
                                remedy=nearest(words[0], verbs)))
    args, rest = top.parse_known_args(words)
    dashed = [word for word in rest if word.startswith("-")]
    if unknown := dashed or ([] if "words" in args else rest):
        options = [name for action in verbs[words[0]]._actions for name in action.option_strings]
        raise ConfigError(*(Fault(what=f"unexpected '{word}'", where="command line", remedy=_instead(word, options))
                            for word in unknown))
    if rest:
        args.words = [*args.words, *rest]
    return args


class Parser(argparse.ArgumentParser):
    """argparse, with errors that look like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(Fault(what=message.removeprefix("argument "), where="command line",
                                remedy=f"See: {self.prog} --help"))


def parsers(program: str) -> tuple[Parser, dict[str, Parser]]:
    """All verbs and their options."""
    top = Parser(prog="drumbeat", usage="drumbeat VERB ...", description=ABOUT, allow_abbrev=False,
                 formatter_class=argparse.RawDescriptionHelpFormatter)
    group = top.add_subparsers(prog="drumbeat", metavar="VERB", help=argparse.SUPPRESS, required=True)
    verbs: dict[str, Parser] = {}
    for name, (what, function) in VERBS.items():
        verbs[name] = group.add_parser(name, description=f"{what.capitalize()}.", allow_abbrev=False)
        verbs[name].set_defaults(verb=function)
    verbs["run"].prog = program
    add_run_arguments(verbs["run"])
    for name in ("status", "logs", "stop", "verify", "checkpoints", "evaluate", "predict", "export"):
        verbs[name].add_argument("run", metavar="RUN", help="a run's folder, its id or the beginning of it, or a name")
        verbs[name].add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")
    verbs["evaluate"].add_argument("--split", default="test", choices=["train", "validation", "test"], help="which set "
                                   "(default: test)")
    verbs["evaluate"].add_argument("--gpus", type=whole, metavar="N", help="on so many GPUs (default: one, if any)")
    verbs["evaluate"].add_argument("--procs", type=whole, metavar="N", help="as so many processes, on the CPU")
    verbs["predict"].add_argument("given", nargs="+", metavar="GIVEN", help="images, folders of them, tables with a "
                                  "column `file`; for a model of texts, tables of them, or .txt with one a line")
    verbs["predict"].add_argument("--out", metavar="FILE", help="where to write the table (default: predictions.csv)")
    verbs["predict"].add_argument("--sheet", metavar="FILE", help="where to draw images (default: beside the table)")
    for name in ("evaluate", "predict"):
        verbs[name].add_argument("--checkpoint", metavar="WHICH", help="best, last or a step (default: best; last "
                                 "where there is no validation set)")
    verbs["export"].add_argument("file", metavar="FILE", type=Path, help="where to: FILE.pt, .pth or .safetensors")
    verbs["export"].add_argument("--last", action="store_true", help="the newest weights instead of the best")
    verbs["logs"].add_argument("-f", "--follow", action="store_true", help="go on as the run goes on")
    verbs["logs"].add_argument("--rank", type=whole, default=0, metavar="R", help="whose (default: 0)")
    for name, options in (("doctor", " [--all] [--sheet FILE]"), ("cache", ""), ("show", " [--sheet FILE]")):
        verbs[name].usage = f"drumbeat {name} CONFIG [KEY=VALUE ...]{options}"
        verbs[name].add_argument("words", nargs="+", metavar="CONFIG", help="a config file, or the name of a shipped "
                                 "one; then changes to it, KEY=VALUE")
    verbs["doctor"].add_argument("--all", action="store_true", help="read every sample, not some hundred")
    verbs["doctor"].add_argument("--sheet", default="doctor.png", metavar="FILE", help="where to draw what the model "
                                 "will see (default: doctor.png)")
    verbs["show"].add_argument("--sheet", default="show.png", metavar="FILE", help="where to draw training samples as "
                               "the model sees them (default: show.png)")
    drilled = verbs["drill"]
    drilled.usage = "drumbeat drill CONFIG [KEY=VALUE ...] [options]"
    drilled.add_argument("words", nargs="+", metavar="CONFIG", help="a config file, or the name of a shipped one; then "
                         "changes to it, KEY=VALUE: phases.NAME.epochs=0.1 makes it short")
    drilled.add_argument("--gpus", type=whole, metavar="N", help="ranks, a GPU each (default: all there are)")
    drilled.add_argument("--procs", type=whole, metavar="N", help="ranks on the CPU")
    drilled.add_argument("--kills", type=whole, default=9, metavar="K", help="how many blows (default: 9, one of each "
                         "kind)")
    drilled.add_argument("--seed", type=whole, metavar="S", help="for the same blows again (default: random)")
    drilled.add_argument("--every", type=float, metavar="SECONDS", help="a blow in about so many seconds, until "
                         "the run is over (default: at random steps)")
    drilled.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are made (default: runs)")
    verbs["demo-data"].formatter_class = argparse.RawDescriptionHelpFormatter
    verbs["demo-data"].epilog = "\n".join(["kinds:", *(f"  {kind:<15}{what}" for kind, what in DEMOS.items())])
    verbs["demo-data"].add_argument("kind", choices=list(DEMOS), metavar="KIND", help="which, of those below")
    verbs["demo-data"].add_argument("folder", metavar="DIR", type=Path, help="where to write them")
    return top, verbs


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.description = "Train what a config describes: here, on a cluster, or in this very process."
    parser.usage, parser.epilog = RUN_USAGE, RUN_EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("words", nargs="*", metavar="CONFIG", help="a config file, or the name of a shipped one; then "
                        "changes to it, KEY=VALUE")
    size = parser.add_argument_group("how many processes")
    size.add_argument("--gpus", type=whole, metavar="N", help="ranks on each node, a GPU each (default: all there are; "
                      "needed with --slurm)")
    size.add_argument("--procs", type=whole, metavar="N", help="ranks on each node, on the CPU")
    size.add_argument("--nodes", type=whole, metavar="K", help="nodes of a cluster (default: 1)")
    place = parser.add_argument_group("where (default: on this machine, watched from this terminal)")
    place.add_argument("--detach", action="store_true", help="on this machine, and return at once")
    place.add_argument("--debug", action="store_true", help="in this process: one rank, breakpoints work")
    place.add_argument("--slurm", action="store_true", help="on a cluster: submit to SLURM and return")
    place.add_argument("--profile", metavar="SITE", help="which cluster: configs/clusters/SITE.yaml")
    what = parser.add_argument_group("which run")
    what.add_argument("--dry-run", action="store_true", help="print what would run, and do nothing")
    what.add_argument("--name", help="collect the run under runs/NAME (default: the config's name)")
    what.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are made (default: runs)")
    what.add_argument("--resume", metavar="RUN", help="go on with a run: its folder, id, or name for the latest")


def whole(text: str) -> int:
    """A number, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def _instead(word: str, options: list[str]) -> str:
    """What to write in place of a word that nothing takes."""
    if not word.startswith("-"):
        return "See --help."
    name, equals, _ = word.partition("=")
    remedy = nearest(name, options)
    if equals and not remedy.startswith("Did"):
        return f"Changes to the config have no dashes: {word.lstrip('-')}"
    return remedy


if __name__ == "__main__":
    sys.exit(main())
