"""A page for each shipped config: what its file opens with, as Markdown, and a list of them all.

    python -m docs.pages      after a config was added or its header changed; a test fails until then

It also rewrites the tables that other pages take from the code (`docs/tables.py`).
"""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from docs import tables

FOLDER = Path(__file__).resolve().parent / "configs"
CONFIGS = FOLDER.parent.parent / "configs"

LABEL = re.compile(r"([A-Z][a-z]+(?: [a-z]+)?) {2,}(.+)")
"""The beginning of a paragraph of a header: `Run          python launch/run.py ...`."""
COMMAND = re.compile(r"(python|drumbeat|make) ")
"""The beginning of a line that is to be typed."""
CHANGE = re.compile(r"[\w.]+=(?:'[^']*'|[^\s,;]+)")
"""A KEY=VALUE in the running text."""


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    files = sorted(CONFIGS.glob("*.yaml"))
    names = [file.stem for file in files]
    heads = {file.stem: header(file.read_text(encoding="utf-8")) for file in files}
    found = {f"{name}.md": _page(name, *heads[name], names) for name in names}
    rows = "\n".join(f"- [{name}]({name}.md): {_prose(heads[name][0], [])}" for name in names)
    found["index.md"] = ("# The experiments that come with Drumbeat\n\nEach is one file in [configs/](../../configs); "
                         "these pages are what the files open with.\n\n" + rows + "\n")
    return found


def header(text: str) -> tuple[str, list[tuple[str, list[str]]]]:
    """What a config's file opens with: its first sentences, and its paragraphs by their labels, line by line."""
    lines = [line.removeprefix("#").removeprefix(" ") for line in text.partition("\n\n")[0].splitlines()]
    end = lines.index("") if "" in lines else len(lines)
    paragraphs: list[tuple[str, list[str]]] = []
    for line in lines[end + 1:]:
        if found := LABEL.fullmatch(line):
            paragraphs.append((found[1], [found[2]]))
        elif line.strip():
            paragraphs[-1][1].append(line.strip())
    return " ".join(lines[:end]), paragraphs


def _page(name: str, title: str, paragraphs: list[tuple[str, list[str]]], names: list[str]) -> str:
    others = [other for other in names if other != name]
    parts = [f"# {name}", _prose(title, others)]
    for label, lines in paragraphs:
        if label == "Run":
            commands = list(takewhile(COMMAND.match, lines))
            parts += [f"**{label}**", "\n".join(['```bash test="long"', *commands, "```"])]
            parts += [_prose(rest, others)] if (rest := " ".join(lines[len(commands):])) else []
        elif lines[0].startswith("- "):
            items = " ".join(lines).removeprefix("- ").split(" - ")
            parts += [f"**{label}**", "\n".join(f"- {_prose(item, others)}" for item in items)]
        else:
            parts.append(f"**{label}** {_prose(' '.join(lines), others)}")
    return "\n\n".join([*parts, f"The file: [configs/{name}.yaml](../../configs/{name}.yaml). All pages: "
                        "[index](index.md)."]) + "\n"


def _prose(text: str, others: list[str]) -> str:
    """Running text as Markdown: what is to be typed set apart, the names of other configs as links to their pages."""
    parts = re.split(f"(`[^`]*`|{CHANGE.pattern})", text)
    for number, part in enumerate(parts):
        if number % 2:
            parts[number] = part if part.startswith("`") else f"`{part}`"
        else:
            shown = re.sub(r"([*<\\])|(?<!\w)_|_(?!\w)", r"\\\g<0>", part)
            parts[number] = re.sub(r"(?<![\w/.])\w+(?:\.yaml)?(?![\w/])", lambda word: _link(word[0], others), shown)
    return "".join(parts)


def _link(word: str, others: list[str]) -> str:
    name = word.removesuffix(".yaml")
    return f"[{name}]({name}.md)" if name in others else word


def main() -> None:
    """Writes the pages and tables, and removes the pages of configs that are gone."""
    FOLDER.mkdir(exist_ok=True)
    texts = pages()
    for stale in {path.name for path in FOLDER.glob("*.md")} - texts.keys():
        (FOLDER / stale).unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for page in tables.pages():
        page.write_text(tables.filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{len(texts)} pages in {FOLDER}, and the tables of {len(tables.pages())} others")


if __name__ == "__main__":
    main()
