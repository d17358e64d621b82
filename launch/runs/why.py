"""Why a run is not running, and what to do: from its folder, and from SLURM if its job is in the queue."""

from __future__ import annotations

from drumbeat.configs.errors import hang
from drumbeat.configs.layers import short
from drumbeat.configs.run.view import View
from drumbeat.configs.text_fields import clock
from drumbeat.launch.backends.backend import backend_of, running_evidence
from drumbeat.launch.backends.contract import Rows
from drumbeat.launch.backends.job_log import last_lines
from drumbeat.launch.backends.local import SILENCE_SECONDS
from drumbeat.launch.backends.typed import command
from drumbeat.launch.runs.remedy import remedy
from drumbeat.launch.runs.rows import behind, slow_parts


def why(view: View) -> str:
    """Why a run is not running, in a few lines."""
    state = view.state or "unknown"
    rows = [("run", view.run.id), ("state", state)]
    if state == "finished":
        rows.append(("why", "it has finished"))
    elif view.ended:
        rows += [("why", view.verdict or f"it is {state}"), *_job_log(view), ("fix", remedy(view))]
    else:
        rows += (view.job and backend_of(view.backend).explain(view)) or _from_folder(view)
        rows += slow_parts(view)
    rows += behind(view)
    return "\n".join(hang(f"{name:<12}", text) for name, text in rows)


def _job_log(view: View) -> Rows:
    """The last lines of the job's log, if no attempt has started in it."""
    return [row for path in backend_of(view.backend).job_log(view)[:1] for row in (
        ("log", short(path)), *(("", line) for line in last_lines(path)))]


def _from_folder(view: View) -> Rows:
    """The same for a run that has not ended, from its folder and its processes."""
    run, silence = view.run, view.seconds_since_heartbeat()
    if evidence := running_evidence(view):
        if view.state == "paused":
            return [("running", evidence), ("why", view.verdict),
                    ("fix", "Free some space, or bring the disk back: the run continues by itself.")]
        quiet = silence > SILENCE_SECONDS
        return [("running", evidence), ("why", f"no heartbeat for {clock(silence)}: it may hang, or be filling a cache"
                                 if quiet else "it is running normally"),
                ("fix", command("logs --all" if quiet else "logs -f", run))]
    return [("why", f"no process of it is running, and its last heartbeat was {clock(silence)} ago"),
            ("fix", f"Resume it: {command('resume', run)}")]
