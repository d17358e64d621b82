"""drumbeat completion SHELL: a script that has bash or zsh complete commands, options, configs, profiles and runs.

Once sourced it starts no Python: the shell itself looks into the folders.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping

from drumbeat.configs.layers import ROOT

HELP = "print a script that has bash or zsh complete what you type"

SHELLS = ("bash", "zsh")

KINDS = {"run": "runs", "resume": "runs", "words": "configs", "profile": "profiles"}
"""What an argument of this name is one of. In resume and rerun, `words` are KEY=VALUE."""

HELPERS = {
    "bash": """\
_drumbeat_in() {  # the folder of all runs: that of --runs, where it is given
  local word before=
  for word in "${COMP_WORDS[@]}"; do
    if [ "$before" = --runs ]; then echo "$word"; return; fi
    before=$word
  done
  echo runs
}
_drumbeat_runs() {
  local folder path
  folder=$(_drumbeat_in)
  compgen -W "$(for path in "$folder"/*/*/plan.json; do
    path=${path%/plan.json}
    if [ -e "$path/plan.json" ] && [ ! -L "$path" ]; then echo "${path##*/}"; path=${path%/*}; echo "${path##*/}"; fi
  done | sort -u)" -- "$1"
}
_drumbeat_configs() {
  local path
  compgen -f -X '!*.yaml' -- "$1"
  compgen -d -S / -- "$1"
  compgen -W "$(for path in CONFIGS/*.yaml; do path=${path##*/}; echo "${path%.yaml}"; done)" -- "$1"
}
_drumbeat_profiles() {
  local path
  compgen -W "$(for path in CONFIGS/clusters/*.yaml; do path=${path##*/}; echo "${path%.yaml}"; done)" -- "$1"
}
""",
    "zsh": """\
_drumbeat_runs() {
  local folder=runs
  if (( ${words[(I)--runs]} )); then folder=${words[${words[(I)--runs]}+1]}; fi
  local -a found=(${folder}/*/*/plan.json(N:h))
  local -aU names=(${found:h:t} ${${found:t}:#latest})
  compadd -a names
}
_drumbeat_configs() {
  local -a names=(CONFIGS/*.yaml(N:t:r))
  compadd -a names
  _files -g '*.yaml'
}
_drumbeat_profiles() {
  local -a names=(CONFIGS/clusters/*.yaml(N:t:r))
  compadd -a names
}
""",
}
"""Shell functions that list what can stand there."""


def script(shell: str, top: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """The script for a shell, made from the parsers themselves."""
    import shtab

    (group,) = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    group.help = "command"
    for name, parser in commands.items():
        parser.prog = f"drumbeat {name}"  # and not as it was called
        for action in parser._actions:
            kind = KINDS.get(action.dest)
            if kind and not (name in ("resume", "rerun") and action.dest == "words"):
                action.complete = dict.fromkeys(SHELLS, f"_drumbeat_{kind}")  # type: ignore[attr-defined]
            elif action.metavar in ("DIR", "FILE"):
                action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
    helpers = HELPERS[shell].replace("CONFIGS", shlex.quote(str(ROOT / "configs")))
    return str(shtab.complete(top, shell, preamble=helpers))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print a script that has a shell complete commands, options, configs and runs."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """in bash, for this shell or in ~/.bashrc for all:
  source <(drumbeat completion bash)
in zsh, in a folder of your fpath:
  drumbeat completion zsh > ~/.zfunc/_drumbeat"""
    parser.add_argument("shell", choices=["bash", "zsh"], help="which shell")


def run(args: argparse.Namespace) -> int:
    print(script(args.shell, *args.parsers))
    return 0
