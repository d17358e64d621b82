"""What a resume may change in a run's config: one table, the changes that a run has taken, and what they mean for it.

A checkpoint holds the part of the config that its run may change and that the result depends on (`kept`). A rank that
resumes compares it with the config, so the step from which a change holds is known however the run came to resume: also
from an older checkpoint, and if config.yaml was edited by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any, Literal

from drumbeat.configs.errors import Fault
from drumbeat.configs.layers import leaves, nest
from drumbeat.configs.load import plain
from drumbeat.configs.run.checkpoint_records import ChangedBy, ConfigChange, Progress
from drumbeat.configs.run.ends import reopened
from drumbeat.configs.schema import Config
from drumbeat.configs.secrets import literal_secrets
from drumbeat.configs.yaml_text import inline

Effect = Literal["none", "now", "later", "never"]
"""Of a change on the result: none; from the step of the resume on; from there on, but only in a phase that has not
begun; or it is refused."""

MOST = 4
"""The largest number of changes that a text names for one step."""


@dataclass(frozen=True)
class Rule:
    """The effect of keys on a run that is resumed."""

    keys: str
    """A dotted key; `*` stands for any text."""
    effect: Effect
    reason: str
    """For users: why it is so."""


METRICS = "validation metrics before and after the change could not be compared, and they decide which weights are best"
ORDER = "it decides which sample is at which position, so samples would be left out or used twice"
STATE = "the optimizer's saved state belongs to what the phase has trained so far"

RULES = (
    Rule("launch.*", "none", "where and on how many ranks it trains"),
    Rule("tracking.*", "none", "what is drawn"),
    Rule("notify.*", "none", "who gets a message when it ends"),
    Rule("reference.*", "none", "figures that are drawn beside the curves"),
    Rule("checkpoints.*", "none", "when it saves"),
    Rule("watchdog.*", "none", "when a rank counts as hanging, and when ranks are compared"),
    Rule("data.workers", "none", "processes that load samples"),
    Rule("data.cache", "none", "where decoded images are"),
    Rule("data.max_skipped", "none", "when the run ends because of unreadable samples"),
    Rule("data.download_hint", "none", "a text"),
    Rule("data.root", "now", "the sets may have been moved; their files are compared with those of the checkpoint"),
    Rule("data.on_error", "now", "unreadable samples are replaced from here on"),
    Rule("data.allow_change", "now", "files of the training set may be other ones from here on"),
    Rule("data.transforms.train", "now", "the augmentation of the samples that are not read yet"),
    Rule("data.mix*", "now", "the mixing of the samples that are not read yet"),
    Rule("data.transforms.*", "never", METRICS),
    Rule("data.collate_fn*", "never", METRICS),
    Rule("data.validation*", "never", METRICS),
    Rule("data.test*", "now", "it is evaluated once, at the end"),
    Rule("data.train*", "never", "the checkpoint's position is one in the order of this set; data.root moves it"),
    Rule("data.shuffle", "never", ORDER),
    Rule("data.sampling*", "never", ORDER),
    Rule("data.bucket_batches", "never", ORDER),
    Rule("batch_size", "now", "the next step begins at the sample where the last one has ended"),
    Rule("micro_batch_size", "now", "how a batch is split"),
    Rule("virtual_ranks", "now", "the parts in which a step is computed, and the rounding of their sum"),
    Rule("precision", "now", "the rounding of the forward pass"),
    Rule("channels_last", "now", "the memory format"),
    Rule("deterministic", "now", "the choice of kernels"),
    Rule("recompute", "none", "what is computed again, with the same bits"),
    Rule("compile*", "now", "the kernels of the next steps"),
    Rule("sync_batchnorm", "now", "the statistics of BatchNorm in the next steps"),
    Rule("find_unused_parameters", "now", "the order in which the gradients of the ranks are summed"),
    Rule("on_nonfinite", "now", "what happens at the next NaN or Inf"),
    Rule("evaluation.batch_size", "now", "the last digits of the metrics"),
    Rule("evaluation.every_*", "now", "which weights are evaluated, and can become the best"),
    Rule("evaluation.at_start", "none", "the first step has been taken"),
    Rule("evaluation.*", "never", METRICS),
    Rule("phases.*.epochs", "now", "the end of a phase that is not finished"),
    Rule("phases.*.patience", "now", "the end of a phase that is not finished; it may continue one that it has ended"),
    Rule("phases.*.min_delta", "now", "the same"),
    Rule("phases.*.target", "now", "the same"),
    Rule("budget.*", "now", "the end of the run; it may continue one whose budget is used up"),
    Rule("limit_batches", "never", METRICS),
    Rule("phases.*.batch_size", "now", "as batch_size"),
    Rule("phases.*.optimizer._target_", "later", STATE),
    Rule("phases.*.optimizer*", "now", "what is changed is taken from the config, the rest from the checkpoint"),
    Rule("phases.*.groups*", "later", STATE),
    Rule("phases.*.layers", "later", STATE),
    Rule("phases.*.layer_decay", "now", "the learning rates of the next steps"),
    Rule("phases.*.scheduler*", "now", "the new schedule continues at the step that the phase has reached"),
    Rule("phases.*.average._target_", "later", "the average is one of the weights since the phase has begun"),
    Rule("phases.*.average*", "now", "the averages of the next steps"),
    Rule("phases.*.clip_norm", "now", "the gradients of the next steps"),
    Rule("phases.*.transforms", "now", "the augmentation of the samples that are not read yet"),
    Rule("phases.*.freeze", "later", STATE),
    Rule("phases.*.start_from", "later", "the phase has started"),
    Rule("phases.*", "later", "phases that have begun stay"),
    Rule("initialize.*", "never", "the run has started from these weights"),
    Rule("model*", "never", "the saved weights are those of this model"),
    Rule("task*", "never", METRICS),
    Rule("seed", "never", "the order of the samples and all random numbers follow from it"),
    Rule("name", "never", "the run's folder has this name"),
)
"""The first rule that fits a key applies. Every key has one."""


def rule_of(key: str) -> Rule:
    """The rule of a dotted key."""
    return next(rule for rule in RULES if fnmatchcase(key, rule.keys))


def kept(config: Config) -> dict[str, Any]:
    """The values that a resume may change and that the result depends on, nested as in YAML; without secrets."""
    values = plain(config)
    secret = literal_secrets(values)
    found: dict[str, Any] = {}
    for key, value in leaves(values):
        if rule_of(key).effect in ("now", "later") and key not in secret:
            merge(found, nest(key, value))
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of each leaf that differs; None stands for a key that is not there."""
    old, new = dict(leaves(before)), dict(leaves(after))
    found = [(key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new])]
    return [(key, one, other) for key, one, other in found if one != other and not (
        one in (None, {}) and other in (None, {}))]


def refusals(before: Config, after: Config, progress: Progress | None) -> list[Fault]:
    """A fault for each key that differs and may not change on a resume from this progress; None is before the first
    checkpoint."""
    changed = differences(plain(before), plain(after))
    secret = {*literal_secrets(plain(before)), *literal_secrets(plain(after))}
    moved = any(key == "data.root" for key, *_ in changed)
    faults: dict[str, Fault] = {}
    for key, old, new in changed:
        phase = key.split(".")[1] if key.startswith("phases.") else ""
        gone = f"phases.{phase}" if phase and phase not in after.phases else ""
        follows = moved and key.startswith(("data.train.", "data.validation.", "data.test."))
        reason = "" if follows else _reason(rule_of(gone or key), phase, list(before.phases), progress)
        if reason:
            values = "a secret" if key in secret else f"{_value(old)} in the run, {_value(new)} now"
            faults[gone or key] = Fault(
                what=f"{gone or key} cannot change on resume: {reason}", where=gone or key,
                given="" if gone else values, remedy="Leave it out, or start a new run: drumbeat rerun RUN KEY=VALUE")
    return [*faults.values()]


def _reason(rule: Rule, phase: str, names: Sequence[str], progress: Progress | None) -> str:
    """Why a key with this rule, which may be one of a phase, may not change; '' if it may."""
    reached = progress.phase if progress else -1
    number = names.index(phase) if phase in names else len(names)
    if phase and number < reached:
        return f"phase {phase} is finished"
    return rule.reason if rule.effect == "never" or (rule.effect == "later" and number == reached) else ""


def taken(progress: Progress, saved: Mapping[str, Any], config: Config, *, attempt: int, user: str,
          time: float, by: ChangedBy = "resume") -> Progress:
    """The progress of a checkpoint, with what is not as in the config that it was `saved` with. A phase that has ended
    early may continue."""
    found = tuple(ConfigChange(key=key, old=old, new=new, step=progress.step, attempt=attempt, user=user, time=time,
                               by=by)
                  for key, old, new in differences(saved, kept(config))) if saved else ()
    return reopened(replace(progress, changes=(*progress.changes, *found)), config) if found else progress


def without_best(progress: Progress, *, attempt: int, user: str, time: float) -> Progress:
    """The progress of a run that continues although its best weights are lost, so that later ones become the best."""
    lost = ConfigChange(key=f"the best weights, of step {progress.best['step']}, were lost", step=progress.step,
                        attempt=attempt, user=user, time=time)
    top = tuple(one for one in progress.top if one["step"] != progress.best["step"])
    return replace(progress, best={}, top=top, changes=(*progress.changes, lost))


def exactness(changes: Sequence[ConfigChange]) -> str:
    """Up to which step a run is exact, and what has changed then, as text; '' if nothing has changed."""
    parts = [f"step {step:,}{',' if number else '; then'} "
             f"{changes_text([(one.key, one.old, one.new) for one in some], by)}"
             for number, ((step, by), some) in enumerate(groupby(changes, key=lambda one: (one.step, one.by)))]
    return f"exact up to {'; at '.join(parts)}" if parts else ""


def changes_text(changes: Sequence[tuple[str, Any, Any]], by: ChangedBy = "resume") -> str:
    """Changes (key, old, new) as text: "batch_size changed from 64 to 32 by resume"."""
    texts = [f"{key} changed from {_value(old)} to {_value(new)} by {by}" if old != new else key
             for key, old, new in changes]
    more = [f"{len(texts) - MOST} more"] if len(texts) > MOST else []
    return ", ".join(texts[:MOST] + more).replace(f" by {by}, ", ", ")


def _value(value: Any) -> str:
    return "nothing" if value is None else inline(value)


def merge(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Adds copies of nested values to others, in place."""
    for name, value in over.items():
        if isinstance(value, dict):
            if not value or not isinstance(under.get(name), dict):
                under[name] = {}
            merge(under[name], value)
        else:
            under[name] = value
