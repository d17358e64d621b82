"""drumbeat: the table of contents of all verbs, a few lines each.

Nothing is imported here that --help can do without: each verb imports what it needs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from drumbeat.configs.errors import ConfigError, Fault, UserError, nearest
from drumbeat.launch.commands.arguments import add_arguments

REQUIRED = ("omegaconf", "rich", "shtab", "submitit", "yaml")
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
    from drumbeat.launch.run import run

    return run(args)


def resume(args: argparse.Namespace) -> int:
    args.resume = args.run
    return run(args)


def rerun(args: argparse.Namespace) -> int:
    args.rerun = args.run
    return run(args)


def status(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.listing import as_json, facts
    from drumbeat.launch.runs.status import gone, status_text

    found = find_run(args.run, Path(args.runs))
    print(as_json(facts(found) | gone(found)) if args.json else status_text(found))
    return 0


def ls(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import all_runs
    from drumbeat.launch.runs.listing import as_json, facts, show

    runs = all_runs(Path(args.runs))
    if args.json:
        print(as_json([facts(run) for run in reversed(runs)]))
    else:
        show(runs, Path(args.runs), every=args.all)
    return 0


def logs(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.logs import error_lines, log_lines

    found = find_run(args.run, Path(args.runs))
    one = None if args.attempt == "all" else args.attempt
    for line in error_lines(found, one) if args.errors else log_lines(
            found, rank=None if args.all else args.rank, follow=args.follow, attempt=args.attempt):
        print(line, flush=True)
    return 0


def why(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.why import why

    print(why(find_run(args.run, Path(args.runs))))
    return 0


def stop(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.stop import ask_to_stop

    print(ask_to_stop(find_run(args.run, Path(args.runs))))
    return 0


def cancel(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.stop import cancel

    print(cancel(find_run(args.run, Path(args.runs))))
    return 0


def verify(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.programs import on_run
    from drumbeat.launch.runs.find import find_run

    return on_run("drumbeat.trainers.commands.verify", find_run(args.run, Path(args.runs)), new_code=args.new_code)


def checkpoints(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.status import checkpoints_text

    print(checkpoints_text(find_run(args.run, Path(args.runs))))
    return 0


def export(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.programs import start
    from drumbeat.launch.runs.find import find_run

    folder = find_run(args.run, Path(args.runs)).path
    return start("drumbeat.trainers.commands.export", str(folder), str(args.file.absolute()), "last" if args.last else "best")


def report(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.programs import start
    from drumbeat.launch.runs.find import find_run

    folder = find_run(args.run, Path(args.runs)).path
    return start("drumbeat.trainers.report.report", str(folder), str((args.out or folder / "report.html").absolute()))


def tensorboard(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.tensorboard import serve

    return serve(args.run, Path(args.runs), args.port)


def evaluate(args: argparse.Namespace) -> int:
    from drumbeat.configs.preconditions import check_data, check_split
    from drumbeat.launch.commands.programs import on_run, ranks, trained_run

    chosen = ranks(args.gpus, args.procs) + (["--checkpoint", args.checkpoint] if args.checkpoint else [])
    found, config = trained_run(args.run, Path(args.runs), args.checkpoint)
    check_split(config, args.split)
    check_data(config, fixed=True)
    return on_run("drumbeat.trainers.commands.evaluate", found, "--split", args.split, *chosen, new_code=args.new_code)


def predict(args: argparse.Namespace) -> int:
    from drumbeat.configs.preconditions import check_given
    from drumbeat.launch.commands.programs import on_run, trained_run
    from drumbeat.launch.plan.job import Machine

    found, config = trained_run(args.run, Path(args.runs), args.checkpoint)
    check_given(list(map(Path, args.given)), config)
    device = "cuda" if Machine.here().gpus else "cpu"
    chosen = [word for option in ("checkpoint", "out", "sheet") if (value := getattr(args, option))
              for word in (f"--{option}", value)]
    return on_run("drumbeat.trainers.commands.predict", found, *args.given, *chosen, "--device", device, new_code=args.new_code)


def cache(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.programs import on_config

    return on_config("drumbeat.trainers.commands.cache", args.words)


def doctor(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.programs import on_config

    return on_config("drumbeat.trainers.commands.doctor", args.words, *(["--all"] if args.all else []), "--sheet", args.sheet)


def drill(args: argparse.Namespace) -> int:
    import random

    from drumbeat.launch.commands.programs import load_words
    from drumbeat.launch.drill.drill import drill

    flags = [f"--{name}={value}" for name in ("gpus", "procs") if (value := getattr(args, name)) is not None]
    seed = random.randrange(10**6) if args.seed is None else args.seed
    return drill([*args.words, *flags], Path(args.runs), name=f"{load_words(args.words).name}-drill", kills=args.kills,
                 seed=seed, every=args.every)


def show(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.programs import on_config

    return on_config("drumbeat.trainers.commands.show", args.words, "--sheet", args.sheet)


def demo_data(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.programs import start

    return start("drumbeat.data.demo.demo", args.kind, str(args.folder.absolute()))


def completion(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.completion import script

    print(script(args.shell, *parsers("drumbeat run")))
    return 0


VERBS: dict[str, tuple[str, Callable[[argparse.Namespace], int]]] = {
    "run": ("train what a config describes", run),
    "resume": ("go on with a run that was stopped or killed", resume),
    "rerun": ("start the same code and config again, as a new run", rerun),
    "ls": ("which runs there are, and how they are doing", ls),
    "status": ("how a run is doing", status),
    "why": ("why a run is not at work, and what to do", why),
    "logs": ("what the ranks of a run printed", logs),
    "stop": ("ask a run to save and leave", stop),
    "cancel": ("end a run now", cancel),
    "verify": ("prove which samples a run has used", verify),
    "checkpoints": ("what of a run is saved", checkpoints),
    "evaluate": ("judge a run's weights on one of its sets", evaluate),
    "predict": ("what a run's model makes of new images or texts", predict),
    "export": ("write a run's weights as one plain file", export),
    "report": ("write all there is to see of a run as one HTML file", report),
    "tensorboard": ("show the curves of runs in TensorBoard, on this machine", tensorboard),
    "show": ("a config's model, what it costs and what it sees", show),
    "doctor": ("look at a config's data before training on it", doctor),
    "drill": ("strike a run in every way, and prove nothing is lost", drill),
    "cache": ("decode a config's images ahead of its runs", cache),
    "completion": ("print what has bash or zsh complete what you type", completion),
    "demo-data": ("write synthetic data to try things with", demo_data),
}

ABOUT = "Trains PyTorch models from one config, on any machine.\n\n" + "\n".join(
    ["verbs:", *(f"  {name:<12}{what}" for name, (what, _) in VERBS.items()), "", "drumbeat VERB --help says more."])


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
        words = re.sub(r"\(choose from .*\)", lambda found: found[0].replace("'", ""), message)  # 3.11 quotes
        raise ConfigError(Fault(what=words.removeprefix("argument "), where="command line",
                                remedy=f"See: {self.prog} --help"))


def parsers(program: str) -> tuple[Parser, dict[str, Parser]]:
    """All verbs and their options."""
    top = Parser(prog="drumbeat", usage="drumbeat VERB ...", description=ABOUT, allow_abbrev=False,
                 formatter_class=argparse.RawDescriptionHelpFormatter)
    group = top.add_subparsers(prog="drumbeat", metavar="VERB", help=argparse.SUPPRESS, required=True)
    verbs: dict[str, Parser] = {}
    for name, (what, function) in VERBS.items():
        verbs[name] = group.add_parser(name, description=f"{what[:1].upper()}{what[1:]}.", help=what,
                                       allow_abbrev=False)
        verbs[name].set_defaults(verb=function)
        add_arguments(name, verbs[name])
    verbs["run"].prog = program
    return top, verbs


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
