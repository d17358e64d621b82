"""Why a run does not run, in words, and what to do: from its folder, and from SLURM where its job waits there."""

from __future__ import annotations

from drumbeat.configs.errors import hang
from drumbeat.configs.run.view import View
from drumbeat.configs.text_fields import clock
from drumbeat.launch.backends.backend import backend_of, still_runs
from drumbeat.launch.backends.contract import Rows
from drumbeat.launch.backends.local import SILENCE_SECONDS
from drumbeat.launch.backends.typed import command


def why(view: View) -> str:
    """What keeps a run from going on, in a few lines."""
    state = view.state or "unknown"
    rows = [("run", view.run.id), ("state", state)]
    if state == "finished":
        rows.append(("why", "it has come to its end"))
    elif view.ended:
        rows += [("why", view.verdict or f"it is {state}"), ("fix", f"Go on with it: {command('resume', view.run)}")]
    else:
        rows += (view.job and backend_of(view.backend).explain(view)) or _from_folder(view)
    return "\n".join(hang(f"{name:<12}", text) for name, text in rows)


def _from_folder(view: View) -> Rows:
    """A run that has not ended, as its folder and its processes tell."""
    run, silence = view.run, view.seconds_since_heartbeat()
    if sign := still_runs(view):
        if view.state == "paused":
            return [("work", sign), ("why", view.verdict),
                    ("fix", "Make room, or bring the disk back: the run goes on by itself.")]
        quiet = silence > SILENCE_SECONDS
        return [("work", sign), ("why", f"nothing was heard of it for {clock(silence)}: it may hang, or fill a cache"
                                 if quiet else "nothing keeps it"),
                ("fix", command("logs --all" if quiet else "logs -f", run))]
    return [("why", f"nothing of it is at work any more, and it was last heard of {clock(silence)} ago"),
            ("fix", f"Go on with it: {command('resume', run)}")]
