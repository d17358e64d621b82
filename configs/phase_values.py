"""What a phase knows about itself, for arguments that are numbers in a config:

    total_steps: ${phase.steps}
    milestones: ["${phase.steps // 20}"]            the first 5 %
    gamma: ${1e5 ** (1 / phase.steps)}              a factor for each step

The arguments are those of a phase's optimizer, groups, scheduler and average. Such a reference stays one in the run's
config, and is computed where the optimizer is built, because the size of the training set decides it. torch's
schedulers count steps in whole numbers, so a result is rounded to one, except that of a power.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from drumbeat.configs.errors import Fault, nearest
from drumbeat.configs.layers import leaves

NAMES = ("steps", "epochs", "steps_per_epoch")
"""Optimizer steps of the phase; its epochs, rounded up, which is how often `scheduler_every: epoch` advances; and steps
in an epoch, which may be a fraction."""

REFERENCE = re.compile(r"\$\{([^${}:]*(?<![\w.])phase\.[^${}:]*)\}")
PLACES = re.compile(r"phases\.[^.]+\.(optimizer|scheduler|groups|average)\b")
"""The keys that may hold references."""

EXAMPLE = {"steps": 1000, "epochs": 10, "steps_per_epoch": 100}
"""For a check of what is written, before the size of the training set is known."""

OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Pow: lambda base, power: float(base) ** float(power)}


class ExpressionError(ValueError):
    """A reference cannot be computed. `str()` of it is the reason."""


def refers(value: Any) -> bool:
    """Whether a value is a text with such references."""
    return isinstance(value, str) and REFERENCE.search(value) is not None


def resolved(node: Any, values: Mapping[str, float], key: str, faults: list[Fault]) -> Any:
    """A section of a config with numbers in place of its references. Adds faults at dotted keys."""
    if isinstance(node, Mapping):
        return {name: resolved(value, values, f"{key}.{name}", faults) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [resolved(value, values, f"{key}[{number}]", faults) for number, value in enumerate(node)]
    if not refers(node):
        return node
    try:
        return computed(node, values)
    except ExpressionError as error:
        faults.append(Fault(what=f"{key} cannot be computed: {error}", where=key, given=node,
                            remedy="A phase knows phase.steps, phase.epochs and phase.steps_per_epoch; + - * / // ** "
                                   "and parentheses are known."))
        return 0


def computed(text: str, values: Mapping[str, float]) -> float:
    """The number that a text, all of which is one reference, stands for. Raises `ExpressionError`."""
    whole = REFERENCE.fullmatch(text)
    if whole is None:
        raise ExpressionError("put all of it between ${ and }")
    try:
        tree = ast.parse(whole[1].strip(), mode="eval").body
        number = _number(tree, values)
        if isinstance(number, complex) or not math.isfinite(number):
            raise ExpressionError("it is not a real number")
    except SyntaxError:
        raise ExpressionError(f"'{whole[1].strip()}' is not a formula") from None
    except (ArithmeticError, RecursionError, MemoryError) as error:
        raise ExpressionError(str(error)) from None
    if any(isinstance(node, ast.Pow) for node in ast.walk(tree)):
        return float(number)
    if number and not round(number):
        raise ExpressionError(f"{number:g} is rounded to 0")
    return round(float(number))


def misplaced(values: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults of references that stand where no phase is known, or that can never be computed."""
    for key, value in leaves(values):
        if PLACES.match(key):
            faults: list[Fault] = []
            resolved(value, EXAMPLE, key, faults)
            yield from faults
        elif text := next(_references(value), ""):
            yield Fault(what=f"{key} refers to a phase, and only its optimizer, groups, scheduler and "
                             "average can", where=key, given=text, remedy="Write the number itself.")


def _references(node: Any) -> Iterator[str]:
    """The texts with references in a value of a config."""
    if isinstance(node, Mapping | list):
        for value in node.values() if isinstance(node, Mapping) else node:
            yield from _references(value)
    elif refers(node):
        yield node


def _number(node: ast.expr, values: Mapping[str, float]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.Attribute(value=ast.Name(id="phase"), attr=name):
            if name not in values:
                raise ExpressionError(f"a phase has no '{name}'. {nearest(name, values)}")
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_number(inner, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_number(left, values), _number(right, values))
    raise ExpressionError(f"'{ast.unparse(node)}' is not a number")
