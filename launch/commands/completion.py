"""drumbeat completion SHELL: a script that lets bash or zsh complete commands, options, configs, profiles, runs and
config keys.

The shell itself lists the folders; only for KEY=VALUE does it start Python (`config_keys.py`). Names of folders and
keys may be hostile: none is passed to `compgen -W`, which would execute commands in it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping

from drumbeat.configs.importing import HOME
from drumbeat.configs.layers import ROOT

HELP = "print a completion script for bash or zsh"

KEYS = "drumbeat.launch.commands.config_keys"
"""The program that prints keys and values."""
SHELLS = ("bash", "zsh")

KINDS = {"run": "runs", "run_a": "runs", "run_b": "runs", "resume": "runs", "words": "words", "profile": "profiles",
         "forget": "nodes"}
"""Which shell function completes an argument of this name."""

BASH = """\
_drumbeat_match() {  # the lines of the input that begin with $1; compgen -W would execute what a name holds
  local line
  while IFS= read -r line; do
    case $line in "$1"*) printf '%s\\n' "$line" ;; esac
  done
}
_drumbeat_folder() {  # the folder of all runs: that of --runs, or runs
  local word before=
  for word in "${COMP_WORDS[@]}"; do
    if [ "$before" = --runs ]; then printf '%s\\n' "$word"; return; fi
    before=$word
  done
  echo runs
}
_drumbeat_runs() {
  local folder path
  folder=$(_drumbeat_folder)
  for path in "$folder"/*/*/plan.json; do
    path=${path%/plan.json}
    if [ -e "$path/plan.json" ] && [ ! -L "$path" ]; then
      printf '%s\\n' "${path##*/}"; path=${path%/*}; printf '%s\\n' "${path##*/}"
    fi
  done | sort -u | _drumbeat_match "$1"
}
_drumbeat_nodes() {  # the nodes that are remembered, from the names of their files
  local path
  for path in "$(_drumbeat_folder)"/.nodes/*.json; do
    path=${path##*/}
    if [ "$path" != '*.json' ]; then printf '%s\\n' "${path%.*.json}"; fi
  done | sort -u | _drumbeat_match "$1"
}
_drumbeat_names() {  # the names of the YAML files in a folder
  local path
  for path in "$1"/*.yaml; do path=${path##*/}; printf '%s\\n' "${path%.yaml}"; done | _drumbeat_match "$2"
}
_drumbeat_profiles() { _drumbeat_names CONFIGS/clusters "$1"; }
_drumbeat_words() {  # configs; behind the config or the run, KEY=VALUE. bash makes three words of it: KEY, = and VALUE
  local number=2 word=$1 config=
  for ((; number < COMP_CWORD; number++)); do
    case ${COMP_WORDS[number]} in -* | =) ;; *) [ "${COMP_WORDS[number + 1]}" = = ] || config=1 ;; esac
  done
  if [ -z "$config" ]; then
    compgen -f -X '!*.yaml' -- "$1"
    compgen -d -S / -- "$1"
    _drumbeat_names CONFIGS "$1"
    if [ "${COMP_WORDS[1]}" = sweep ]; then _drumbeat_runs "$1"; fi
    return
  fi
  number=$COMP_CWORD
  if [ "$word" = = ]; then word="${COMP_WORDS[number - 1]}="; number=$((number - 1))
  elif [ "${COMP_WORDS[number - 1]}" = = ]; then word="${COMP_WORDS[number - 2]}=$1"; number=$((number - 2)); fi
  KEYS "$word" "${COMP_WORDS[@]:1:number - 1}" 2>/dev/null | while IFS= read -r line; do
    case $word in *=*) printf '%s\\n' "${line#*=}" ;; *) printf '%s\\n' "$line" ;; esac
  done
}
"""

ZSH = """\
_drumbeat_folder() {
  REPLY=runs
  if (( ${words[(I)--runs]} )); then REPLY=${words[${words[(I)--runs]}+1]}; fi
}
_drumbeat_nodes() {
  _drumbeat_folder
  local -aU names=(${REPLY}/.nodes/*.json(N:t:r:r))
  compadd -a names
}
_drumbeat_runs() {
  _drumbeat_folder
  local folder=$REPLY
  local -a found=(${folder}/*/*/plan.json(N:h))
  local -aU names=(${found:h:t} ${${found:t}:#latest})
  compadd -a names
}
_drumbeat_profiles() {
  local -a names=(CONFIGS/clusters/*.yaml(N:t:r))
  compadd -a names
}
_drumbeat_words() {
  local -a before=(${words[2,CURRENT-1]}) names
  if (( ${#${${before:#-*}:#*=*}} )) && [[ ${words[1]} != drumbeat || ${#before} -gt 1 ]]; then
    names=(${(f)"$(KEYS "$PREFIX" ${words[1,CURRENT-1]} 2>/dev/null)"})
    compadd -S '' -a names
  else
    names=(CONFIGS/*.yaml(N:t:r))
    compadd -a names
    if [[ ${words[1]} = sweep || ${words[2]} = sweep ]]; then _drumbeat_runs; fi
    _files -g '*.yaml'
  fi
}
"""

END = """
_drumbeat() {  # no blank behind KEY= and SECTION.
  _shtab_drumbeat
  case ${COMPREPLY[0]-} in *= | *.) compopt -o nospace 2>/dev/null ;; esac
  return 0
}
complete -o bashdefault -F _drumbeat drumbeat
"""
"""Behind shtab's script for bash."""


def script(shell: str, top: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """The script for a shell, made from the parsers themselves."""
    import shtab

    (group,) = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    group.help = "command"
    for name, parser in commands.items():
        parser.prog = f"drumbeat {name}"  # whatever program this is
        for action in parser._actions:
            if kind := KINDS.get(action.dest):
                action.complete = dict.fromkeys(SHELLS, f"_drumbeat_{kind}")  # type: ignore[attr-defined]
            elif action.metavar in ("DIR", "FILE"):
                action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
    # -P: the current folder is not imported from
    keys = f"env PYTHONPATH={shlex.quote(str(HOME))} {shlex.quote(sys.executable)} -P -m {KEYS}"
    preamble = {"bash": BASH, "zsh": ZSH}[shell].replace("CONFIGS", shlex.quote(str(ROOT / "configs"))).replace(
        "KEYS", keys)
    return str(shtab.complete(top, shell, preamble=preamble)) + END * (shell == "bash")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print a script that lets a shell complete commands, options, configs, runs\nand config keys."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """in bash, for this shell or in ~/.bashrc for all:
  source <(drumbeat completion bash)
in zsh, in a folder of your fpath:
  drumbeat completion zsh > ~/.zfunc/_drumbeat"""
    parser.add_argument("shell", choices=["bash", "zsh"], help="the shell")


def run(args: argparse.Namespace) -> int:
    print(script(args.shell, *args.parsers))
    return 0
