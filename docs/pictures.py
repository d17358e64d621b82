"""The pictures of the pages: two diagrams, and a terminal in which a run is killed and comes back.

    python -m docs.pictures           draws the diagrams
    python -m docs.pictures run       makes the run on two ranks, kills one of them, and draws what the terminal shows
    python -m docs.pictures lr_finder RUN     draws the loss over the learning rate of a run of lr_finder_fashion_mnist

They are SVG without scripts or fonts from elsewhere, so they are shown offline.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.data.demo.xray import write_radiographs
from drumbeat.launch.drill.faults import processes
from drumbeat.trainers.report.events import read_events
from drumbeat.trainers.report.range_test import range_test

FOLDER = Path(__file__).resolve().parent / "pictures"
ROOT = FOLDER.parent.parent

STYLE = """<style>
  .card { fill: #ffffff; stroke: #c5cae9 } .node { fill: #f4f5fb; stroke: #c5cae9 }
  .box { fill: #ffffff; stroke: #3f51b5 }
  .disk { fill: #fff8e1; stroke: #b28704 } text { font: 15px sans-serif; fill: #1f2430 }
  .small { font-size: 13px; fill: #4a5064 } .bold { font-weight: bold } line { stroke: #3f51b5; stroke-width: 1.5 }
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
<path d="M0 0 8 4 0 8z" fill="#3f51b5"/></marker></defs>"""


def box(x: int, y: int, width: int, height: int, title: str, *more: str, kind: str = "box") -> str:
    """A rectangle with a title and lines below it."""
    lines = [f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>',
             f'<text class="bold" x="{x + 12}" y="{y + 23}">{title}</text>',
             *(f'<text class="small" x="{x + 12}" y="{y + 43 + 18 * row}">{line}</text>'
               for row, line in enumerate(more))]
    return "\n".join(lines)


def arrow(x1: int, y1: int, x2: int, y2: int, words: str = "", *, both: bool = False) -> str:
    """An arrow, with words to the right of its middle."""
    start = ' marker-start="url(#tip)"' if both else ""
    text = f'<text class="small" x="{(x1 + x2) // 2 + 8}" y="{(y1 + y2) // 2 + 5}">{words}</text>' if words else ""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"{start} marker-end="url(#tip)"/>{text}'


def drawing(width: int, height: int, title: str, *parts: str) -> str:
    card = f'<rect class="card" x="1" y="1" width="{width - 2}" height="{height - 2}" rx="10"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
                      f"<title>{title}</title>", STYLE, card, *parts, "</svg>"]) + "\n"


def processes_picture() -> str:
    """Who starts whom, and that all of them meet in the run's folder."""
    return drawing(
        660, 610, "The processes of a run",
        box(20, 20, 370, 66, "drumbeat run", "login node, or this machine; never imports torch"),
        arrow(205, 86, 205, 132, "SLURM, srun or submitit"),
        box(20, 134, 370, 456, "each node", kind="node"),
        box(40, 170, 330, 66, "node launcher", "reacts to signals; decides what is next"),
        arrow(205, 236, 205, 268, "starts"),
        box(40, 270, 330, 48, "fork server: has imported torch once"),
        arrow(205, 318, 205, 350, "forks"),
        box(40, 352, 330, 48, "torchrun (elastic agent)"),
        arrow(120, 400, 120, 434, "forks"), arrow(290, 400, 290, 434),
        box(40, 436, 158, 66, "rank 1, 2, ...", "joins, trains"),
        box(212, 436, 158, 66, "rank 0", "joins, trains, saves"),
        arrow(120, 502, 120, 528), arrow(290, 502, 290, 528),
        box(40, 530, 158, 44, "loader workers"),
        box(212, 530, 158, 44, "writer, loaders"),
        box(450, 170, 190, 404, "the run's folder", "plan.json, config.yaml", "code/", "status.json", "",
            "attempts/K/launch.json", "attempts/K/stop.json", "attempts/K/verdict.json", "",
            "attempts/K/heartbeat.json", "attempts/K/rankR.log", "attempts/K/saved.json", "result.json", "tensorboard/",
            "", "", "checkpoints/", kind="disk"),
        arrow(390, 53, 520, 168, both=True), arrow(370, 203, 448, 203, both=True), arrow(370, 468, 448, 440, both=True),
        arrow(370, 552, 448, 504))


def rules() -> tuple[dict[str, list[set[str]]], dict[str, set[str]]]:
    """ROOMS and MAY_IMPORT, as tests/test_house.py has them."""
    tree = ast.parse((ROOT / "tests" / "test_house.py").read_text())
    tables = {node.targets[0].id: node.value for node in tree.body
              if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}
    return ast.literal_eval(tables["ROOMS"]), ast.literal_eval(tables["MAY_IMPORT"])


PLACES = {"launch": (20, 20, 340), "trainers": (380, 20, 260), "configs": (20, 430, 195), "data": (232, 430, 195),
          "models": (444, 430, 196)}
"""Left, top and width of each package."""


def rooms_picture(rooms: dict[str, list[set[str]]], may_import: dict[str, set[str]]) -> str:
    """The packages and the folders in them: each imports only from the rows below it, and from where an arrow leads."""
    parts = []
    for package, (x, y, width) in PLACES.items():
        parts.append(box(x, y, width, 340 if y == 20 else 162, f"{package}/", kind="node"))
        for row, names in enumerate(rooms.get(package, [])):
            shown = sorted(f"{name}/" if name else "modules" for name in names)
            each = (width - 24 - 8 * (len(shown) - 1)) // len(shown)
            parts += [box(x + 12 + (each + 8) * column, y + 40 + 58 * row, each, 44, name)
                      for column, name in enumerate(shown)]
        for other in sorted(may_import[package] - {package}):
            left, top, wide = PLACES[other]
            goal = left + wide // 2
            parts.append(arrow(min(max(goal, x + 30), x + width - 30), y + 340, goal, top - 2))
    return drawing(660, 612, "The folders of Drumbeat, and which of them may import which", *parts)


def terminal(output: str, title: str) -> str:
    """A terminal of 92 columns that shows an output."""
    console = Console(record=True, width=92, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(output))
    layout = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title=title, theme=DIMMED_MONOKAI, code_format=layout)


def killed_run(config: str, *words: str) -> str:
    """What a run on two ranks prints, one of which is killed after the first checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        write_radiographs(Path(folder) / "datasets" / "xray_demo")
        command = [sys.executable, str(ROOT / "launch" / "run.py"), config, "--procs", "2", *words]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=os.environ | {"PATH": path}) as run:
            while not (found := list(Path(folder).glob("runs/*/latest/checkpoints/last"))):
                assert run.poll() is None
                time.sleep(0.1)
            time.sleep(2)
            here = RunDir(found[0].parent.parent.resolve())
            os.kill(processes(here)["rank"][-1], signal.SIGKILL)
            assert run.stdout
            output = run.stdout.read()
            assert run.wait() == 0, output
            assert View.read(here).number == 1, "it has come back once"
        return shortened(output)


def shortened(output: str) -> str:
    """An output that fits a picture: `...` stands for what is between the second evaluation and the last one. The line
    about the copy of the code is left out, and the host gets another name."""
    dim, yellow, usual = "\033[2m", "\033[33m", "\033[0m"
    output = re.sub(r"(?m)^code .*\n", "", re.sub(r"on \S+ was killed", "on node1 was killed", output))
    evaluations = [found.start() for found in re.finditer(r"(?m)^.*  validation  ", output)]
    after = output.index("step", output.index("\n", evaluations[1]))
    left_out = slice(output.rindex("\n", 0, after) + 1, evaluations[-1])
    output = f"{output[:left_out.start]}{dim}...{usual}\n{output[left_out.stop:]}"
    return re.sub(r"(?m)^(restarting: .*)$", rf"{dim}# another terminal: kill -9 of a rank{usual}\n{yellow}\1{usual}",
                  output)


def finder_picture(run: RunDir) -> str:
    """The chart with which the report of a learning-rate finder begins."""
    (figure,) = range_test(read_events(run.tensorboard))
    style = """<style>text { font: 12px sans-serif; fill: #4a5064 } .grid { stroke: #e3e5f0 } .ground { fill: #ffffff }
.best { stroke: #4a5064; stroke-dasharray: 3 3 } polyline { fill: none; stroke: #3f51b5; stroke-width: 1.8 }</style>
<rect class="ground" width="100%" height="100%"/>"""
    svg = str(figure.body).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    return f"{svg.replace('>', f'>{style}', 1)}\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    if sys.argv[1:2] == ["lr_finder"]:
        (FOLDER / "lr_finder.svg").write_text(finder_picture(RunDir(Path(sys.argv[2]))))
    if sys.argv[1:] == ["run"]:
        config = "resnet50_xray_demo"
        typed = "\033[1m$ drumbeat run resnet50_xray_demo --procs 2\033[0m\n"
        shown = terminal(typed + killed_run(config), "a rank is killed, and the run comes back")
        (FOLDER / "run.svg").write_text(shown)
    (FOLDER / "processes.svg").write_text(processes_picture())
    (FOLDER / "rooms.svg").write_text(rooms_picture(*rules()))
    print(f"drawn: {', '.join(sorted(path.name for path in FOLDER.glob('*.svg')))}")


if __name__ == "__main__":
    main()
