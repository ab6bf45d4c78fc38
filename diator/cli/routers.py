"""Routers that were defined and never included: what is registered on them does not run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from diator._inspection import registry_of
from diator._locations import SourceLocation
from diator.app import Diator
from diator.cli.arguments import count
from diator.engine.registry import Registry
from diator.errors import Problem
from diator.router import Router


def never_included(target: str) -> Iterator[Problem]:
    """Find routers at the top of modules that are loaded, and part of the program: its package, or the current folder.

    A router that another one has included is that one's matter. One in a module that nothing imports is not seen.
    """
    package = target.partition(":")[0].partition(".")[0]
    seen: dict[int, tuple[str, Registry]] = {}
    for module in list(sys.modules.values()):
        for name, router in _routers(module) if _is_of_program(module, package) else ():
            registry = registry_of(router)
            if registry.closed is None and _is_home(module, registry, known=id(router) in seen):
                seen[id(router)] = (f"{module.__name__}.{name}", registry)
    for name, registry in seen.values():
        yield _problem(name, registry)


def _routers(module: ModuleType) -> Iterator[tuple[str, Router]]:
    for name, value in list(vars(module).items()):
        # By its class: some objects, such as proxies, run code where isinstance asks for theirs.
        if issubclass(type(value), Router) and not issubclass(type(value), Diator):
            yield name, value


def _is_of_program(module: object, package: str) -> bool:
    if not issubclass(type(module), ModuleType):
        return False
    name, file = vars(module).get("__name__"), vars(module).get("__file__")
    if not isinstance(name, str) or not isinstance(file, str):
        return False
    path = Path(file)
    is_here = path.is_relative_to(Path.cwd()) and "site-packages" not in path.parts
    return name.partition(".")[0] == package or is_here


def _is_home(module: ModuleType, registry: Registry, *, known: bool) -> bool:
    """Whether a router is to be called by the name that it has here: where it is filled, or else where it is first."""
    return not known or module.__file__ in {location.file for location in _places(registry)}


def _places(registry: Registry) -> Iterator[SourceLocation]:
    yield from (handler.registered_at for handler in registry.handlers)
    yield from (middleware.registered_at for middleware in registry.middlewares)
    yield from (*registry.declared_events.values(), *registry.provided.values())


def _problem(name: str, registry: Registry) -> Problem:
    held = f"{count(len(registry.handlers), 'handler')} and {count(len(registry.middlewares), 'middleware')}"
    text = f"router {name}, with {held}, was never included: its handlers do not run"
    location = next(_places(registry), None)
    return Problem(
        "router", text, f"include it: app.include({name.rpartition('.')[2]}), or drop it", location, "warning"
    )
