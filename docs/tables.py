"""The parts of the pages that are read from the code: keys, files, modules, verdicts, error messages.

In a page, `<!-- table: NAME -->` and `<!-- end -->` enclose what the function of that name here returns.

    python -m docs.pages      rewrites them; a test fails until then
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from docs.errors import ROOT, errors
from drumbeat.configs import fields, schema, site
from drumbeat.configs.run import (
    changes,
    checkpoint_records,
    code_records,
    determinism,
    fork,
    profile_records,
    rank_records,
    record,
    records,
    tracker_records,
    versions,
)
from drumbeat.launch.attempts.meanings import MEANINGS
from drumbeat.launch.attempts.verdict import REASONS as STOPS
from drumbeat.launch.slurm.limits import COUNTED
from drumbeat.launch.slurm.reasons import REASONS
from drumbeat.launch.slurm.sbatch_errors import SBATCH_ERRORS
from drumbeat.launch.slurm.states import ENDED as JOB_ENDS
from drumbeat.launch.slurm.states import QUEUED

SECTION = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
WRITTEN = re.compile(r"(?P<path>[\w/.-]+\.json): (?P<what>.+?)\. Written (?P<who>.+?)\.?$", re.DOTALL)
"""How the docstring of a record begins: its file, what it holds, and who writes it."""


def filled(page: str) -> str:
    """A page's text with its tables as the code has them now."""
    return SECTION.sub(lambda section: f"{section[1]}\n{TABLES[section[2]]()}\n\n{section[3]}", page)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ").strip() or " " for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *cells])


VALUE = r"(?:=(?:[^\s,;`]*[\w\])}])?)?"
TYPED = re.compile(r"(?<![\w`/.${-])(--[a-z][\w-]*(?: (?:[A-Z]+|\d+)\b)?" + VALUE +
                   r"|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+" + VALUE
                   + r"|[a-z]\w*(?:[._]\w+)+(?:\(\))?" + VALUE + r")(?![\w}])")
"""A flag, a variable, a key or a file in running text."""


def plain(text: str) -> str:
    """Running text of the code's as Markdown: what is to be typed is set as code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else TYPED.sub(r"`\1`", part.replace("<", "&lt;").replace("*", "\\*"))
                   for part in parts)


PROGRAMS = ("man ", "nvidia-smi", "python ", "sacctmgr", "scontrol", "sinfo", "squeue", "sshare", "drumbeat")
"""What a sentence may begin with that has no capital."""


def sentence(text: str) -> str:
    text = plain(text)
    first = text[:1] if text.startswith(PROGRAMS) else text[:1].upper()
    return f"{first}{text[1:]}{'' if not text or text[-1] in '.!?' else '.'}"


def doc(file: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.:])\s*\n\n|(?<=\w[.])\s+(?=[A-Z])", text.strip())[0].rstrip(":")


def field_docs(module: ModuleType, name: str) -> dict[str, str]:
    """The docstring under each field of a dataclass."""
    tree = ast.parse(inspect.getsource(module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    fields = [(node.target.id, after) for node, after in zip(body, [*body[1:], None], strict=True)
              if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return {key: str(after.value.value) if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            for key, after in fields}


def keys(name: str, prefix: str = "", module: ModuleType = schema) -> str:
    """The keys of a section of the config, or of a cluster's profile: name, default, what it does."""
    kind: Any = getattr(module, name)
    docs, rows = field_docs(sys.modules[kind.__module__], name), []
    for field in dataclasses.fields(kind):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if not dataclasses.is_dataclass(made):
            rows.append((f"`{prefix}{field.name}`", _default(made), plain(docs[field.name])))
    return table(("key", "default", "what it does"), rows)


def _default(value: Any) -> str:
    if value == fields.MISSING:
        return "required"
    if isinstance(value, dict) and "_target_" in value:
        return f"`{value['_target_']}`"
    words = {None: "null", True: "true", False: "false"}
    return f"`{words[value] if value is None or isinstance(value, bool) else value or _empty(value)}`"


def _empty(value: Any) -> str:
    return '""' if isinstance(value, str) else str(value)


def config_sections() -> str:
    """All keys of a config, a section for each heading."""
    parts = [keys("Config")]
    for field in dataclasses.fields(schema.Config):
        kind: Any = field.default_factory
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
            parts += [f"## {field.name}", plain(kind.__doc__ or ""), keys(str(kind.__qualname__), f"{field.name}.")]
            parts += [keys("Transforms", "data.transforms.")] if field.name == "data" else []
    return "\n\n".join([*parts, "## phases", plain(schema.Phase.__doc__ or ""), keys("Phase", "phases.NAME."),
                        plain(schema.Group.__doc__ or ""), keys("Group", "phases.NAME.groups.GROUP.")])


def json_files() -> str:
    """The JSON files of a run: what each holds, and who writes it."""
    rows = []
    for module in (records, rank_records, profile_records, code_records, checkpoint_records, determinism, fork,
                   versions, tracker_records):
        for one in vars(module).values():
            here = inspect.isclass(one) and issubclass(one, record.Record) and one.__module__ == module.__name__
            if here and (found := WRITTEN.match(" ".join((one.__doc__ or "").split()))):
                rows.append((f"`{found['path']}`", sentence(found["what"]), sentence(found["who"])))
    return table(("file", "what it holds", "written"), rows)


def verdicts() -> str:
    see = "See the error itself, which the verdict quotes."
    rows = [(f"rank R … {plain(one.description)}", sentence(one.fix) if one.fix else see) for one in MEANINGS]
    return table(("the verdict says", "what to do"), rows)


def stops() -> str:
    return table(("the verdict says", "the stop was asked for by"), [
        (f"stopped …: {words}", f"`{name}`") for name, words in STOPS.items()])


def reasons() -> str:
    return table(("squeue says", "it means", "what to do"), [
        (f"`{name}`", sentence(words), sentence(fix)) for name, (words, fix) in REASONS.items()])


def job_states() -> str:
    return table(("SLURM's state", "it means", "what to do"), [
        (f"`{name}`", sentence(words), sentence(fix)) for name, (words, fix) in QUEUED.items()])


def job_ends() -> str:
    return table(("SLURM's state", "it means", "what to do before `drumbeat resume RUN`"), [
        (f"`{name}`", sentence(words), sentence(fix) if fix else "") for name, (words, fix) in JOB_ENDS.items()])


def refusals() -> str:
    rows = [(", ".join(f"“{_readable(part)}”" for part in re.split(r"\|(?![^(]*\))", pattern)),
             f"`{key}`" if key else "", sentence(fix.replace("{user}", "$USER").replace("{partitions}", "their names")))
            for pattern, key, fix in SBATCH_ERRORS]
    return table(("sbatch says", "profile key", "what to do"), rows)


def _readable(pattern: str) -> str:
    return re.sub(r"\((.*?)\)", lambda group: group[1].replace("|", " or "), pattern.replace(".*", " … ")).strip()


def limits() -> str:
    rows = [(f"`{name}`", plain(counted), plain(less) or "nothing less: wait") for name, (counted, less) in
            COUNTED.items()]
    return table(("in the limit's name", "it counts", "ask for"), rows)


def messages() -> str:
    """Every error message, by the room that shows it."""
    titles = {"launch": "Starting and managing runs", "configs": "Config files and KEY=VALUE",
              "trainers": "Targets, data and weights", "data": "Reading samples"}
    return "\n\n".join(f"## {title}\n\n" + table(("error", "fix"), [
        (plain(what), plain(fix)) for what, fix in errors(package)]) for package, title in titles.items()
        if errors(package))


def tree() -> str:
    """Each folder of the product with its modules."""
    parts = []
    for top in ("launch", "trainers", "configs", "data", "models", "docs", "benchmarks"):
        for folder in [ROOT / top, *sorted(path for path in (ROOT / top).rglob("*") if path.is_dir())]:
            files = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
            if files:
                name = folder.relative_to(ROOT)
                init = folder / "__init__.py"
                parts += [f"{'#' * (2 + len(name.parts))} {name}/", *([sentence(doc(init))] if init.exists() else []),
                          table(("module", "what it is"), [(f"`{file.name}`", sentence(doc(file))) for file in files])]
    return "\n\n".join(parts)


EFFECTS = {"none": "yes", "now": "from here on", "later": "for phases that have not begun", "never": "no"}


def resume_keys() -> str:
    """Which keys may change on a resume, and why."""
    return table(["key", "may change", "because"],
                 [(f"`{rule.keys}`", EFFECTS[rule.effect], plain(rule.reason)) for rule in changes.RULES])


TABLES: dict[str, Callable[[], str]] = {
    "config": config_sections, "profile": lambda: keys("Site", module=site), "json-files": json_files,
    "verdicts": verdicts, "stops": stops, "reasons": reasons, "job-states": job_states, "job-ends": job_ends,
    "refusals": refusals, "limits": limits, "errors": messages, "tree": tree,
    "resume-keys": resume_keys}


def pages() -> list[Path]:
    """The pages that hold tables."""
    return [page for page in sorted((ROOT / "docs").glob("*.md")) if SECTION.search(page.read_text())]
