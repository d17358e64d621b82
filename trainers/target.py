"""Builds objects from `_target_: package.module.Name` and arguments. Nested targets and lists are built first."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from drumbeat.configs.errors import Fault, PreflightError, nearest
from drumbeat.configs.faults import MISSPELT_TARGET
from drumbeat.configs.secrets import hidden
from drumbeat.configs.variables import UnsetVariableError, value, variables
from drumbeat.configs.yaml_text import inline


def instantiate(node: Any, key: str, *positional: Any, inner: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """The object that a config section describes. `key` is the dotted name of the section, for errors; `positional` are
    arguments that are not in the config (an optimizer's parameters), and `inner` those that targets within this one get
    if they need an argument of such a name (a scheduler's optimizer). Raises `PreflightError`."""
    if isinstance(node, list | tuple):
        return all_of([partial(_inner, item, f"{key}[{number}]", inner) for number, item in enumerate(node)])
    if isinstance(node, Ready):
        return node.value
    if not isinstance(node, Mapping):
        return with_variables(node, key)
    names = [name for name in node if name != "_target_"]
    values = all_of([partial(_inner, node[name], f"{key}.{name}", inner) for name in names])
    arguments = dict(zip(names, values, strict=True))
    if "_target_" not in node:
        if positional:
            raise PreflightError(Fault(what=f"{key} has no _target_", where=key, given=inline(node),
                                       remedy="Add one: _target_: package.module.Name"))
        return arguments
    target = locate(str(node["_target_"] or ""), key)
    try:
        return target(*positional, **arguments)
    except PreflightError:
        raise
    except TypeError as error:
        raise PreflightError(_refused(target, node, key, arguments, error)) from error
    except Exception as error:
        raise PreflightError(Fault(what=str(error) or type(error).__name__, where=key,
                                   given=f"_target_: {node['_target_']}")) from error


def function_at(node: Any, key: str, *, lacks: int) -> Callable[..., Any] | None:
    """The function that a config section names, with the section's arguments, if it lacks only so many positional
    values to be called, as a transform lacks one; None for anything else. Raises `PreflightError`."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    function = locate(str(node["_target_"] or ""), key)
    if inspect.isroutine(function) and not _takes(function, arguments) and _takes(function, arguments, *[None] * lacks):
        return partial(function, **instantiate(arguments, key))
    return None


def _takes(function: Any, arguments: Mapping[str, Any], *positional: Any) -> bool:
    """Whether a function can be called with these arguments; one without a signature, such as `torch.sqrt`, needs a
    value."""
    try:
        inspect.signature(function).bind(*positional, **arguments)
    except TypeError:
        return False
    except ValueError:
        return bool(positional)
    return True


def _inner(node: Any, key: str, inner: Mapping[str, Any]) -> Any:
    """What an argument of a target describes, with those of the `inner` arguments that it needs."""
    if isinstance(node, Mapping) and "_target_" in node and inner:
        needed = _required(locate(str(node["_target_"] or ""), key))
        node = {**{name: Ready(value) for name, value in inner.items() if name in needed}, **node}
    return instantiate(node, key, inner=inner)


class Ready:
    """A value among the arguments of a target that needs no building."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _required(target: Any) -> list[str]:
    """The names of the arguments that a target needs."""
    try:
        return [name for name, one in inspect.signature(target).parameters.items() if one.default is one.empty]
    except (TypeError, ValueError):
        return []


def with_variables(node: Any, key: str) -> Any:
    """A value of a config, with those of the environment variables that it refers to. Raises `PreflightError`."""
    if not variables(node):
        return node
    try:
        return value(node)
    except UnsetVariableError as error:
        raise PreflightError(Fault(what=f"{key} refers to something that does not exist: {error}", where=key,
                                   given=node, remedy=f"Set it in the environment of {socket.gethostname()}; the run's "
                                   "folder does not hold its value.")) from None


def all_of(builds: Iterable[Callable[[], Any]]) -> list[Any]:
    """The results of all functions. Raises one `PreflightError` with the faults of all of them."""
    built: list[Any] = []
    faults: list[Fault] = []
    for build in builds:
        try:
            built.append(build())
        except PreflightError as error:
            faults += error.faults
    if faults:
        raise PreflightError(*faults)
    return built


def locate(address: str, key: str) -> Any:
    """The object at a dotted address. The longest part that can be imported is the module, the rest are attributes."""
    parts = address.split(".")
    where = f"{key}._target_"
    if not all(parts):
        raise PreflightError(Fault(what="this is not the address of a class or a function", where=where,
                                   given=inline(address), remedy="Write package.module.Name."))
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                continue
            raise PreflightError(Fault(what=f"importing {name} failed: {error}", where=where, given=address)) from error
        except Exception as error:
            raise PreflightError(Fault(what=f"importing {name} failed: {type(error).__name__}: {error}", where=where,
                                       given=address)) from error
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                if attribute in _modules(found):
                    raise PreflightError(_not_callable(address, where))
                raise PreflightError(Fault(what=f"{name} has no '{attribute}'", where=where, given=address,
                                           remedy=_nearest_name(found, attribute)))
            found = getattr(found, attribute)
        if not callable(found):
            raise PreflightError(_not_callable(address, where))
        return found
    raise PreflightError(Fault(what=f"there is no package '{parts[0]}' to import", where=where, given=address,
                               remedy="Write package.module.Name. The package must be in the current folder, in "
                                      "PYTHONPATH, or installed."))


def _modules(package: Any) -> list[str]:
    """The names of a package's modules."""
    return [module.name for module in pkgutil.iter_modules(getattr(package, "__path__", []))]


def _not_callable(address: str, where: str) -> Fault:
    return Fault(what=f"{address} cannot be called", where=where, given=address,
                 remedy="A target is a class or a function, not a module or a value.")


def _nearest_name(found: Any, attribute: str) -> str:
    names = [name for name in dir(found) if not name.startswith("_")] + _modules(found)
    remedy = nearest(attribute, names)
    return remedy if remedy.startswith("Did") else f"See what {found.__name__} contains."


def _refused(target: Any, node: Mapping[str, Any], key: str, arguments: dict[str, Any], error: TypeError) -> Fault:
    """The argument that is unknown or missing, if the signature shows it; otherwise the error's own text."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [name for name in arguments if parameters and name not in parameters]
    if unknown and not takes_any:
        return Fault(what=f"{node['_target_']} has no argument '{unknown[0]}'", where=f"{key}.{unknown[0]}",
                     given=f"{unknown[0]}: {inline(hidden(node)[unknown[0]])}", remedy=nearest(unknown[0], parameters)
                     if unknown[0] not in MISSPELT_TARGET else "Did you mean '_target_'?")
    texts = [name for name, given in arguments.items() if isinstance(given, str) and name in parameters
             and type(parameters[name].default) in (int, float)]
    if texts:
        return Fault(what=f"{key}.{texts[0]} must be a number", where=f"{key}.{texts[0]}",
                     given=f"{texts[0]}: {inline(hidden(node)[texts[0]])}")
    return Fault(what=str(error), where=key, given=f"_target_: {node['_target_']}",
                 remedy=f"It takes: {', '.join(map(str, parameters.values()))}" if parameters else "")
