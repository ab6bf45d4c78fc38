"""How the plugin for a container is found: by the package of the container's class.

A plugin registers an entry point in the group ``diator.containers``. Its name is the import name of the library
(``punq``); its object is called with the native container and returns a `Container`. Only the plugin that is needed is
imported.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from diator.containers.port import Container
from diator.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "diator.containers"

KNOWN = ("di", "dishka", "punq", "rodi", "svcs", "wireup")
"""Libraries that have a plugin of ours, ``diator-<name>``, so that an error can name what to install."""


def find_container(given: object) -> Container:
    """Return the port for the user's container: a plugin's object unchanged, or a native container in its plugin.

    Raises `ConfigurationError` if no installed plugin serves the library, or if the plugin is not a `Container`.
    """
    if isinstance(given, type):
        raise ConfigurationError([_is_a_class(given)])
    if isinstance(given, Container):
        return given
    from importlib.metadata import entry_points  # noqa: PLC0415 - as slow to import as half of Diator

    installed = {point.name: point for point in entry_points(group=GROUP)}
    for library in _libraries(given):
        if library in installed:
            return _load(installed[library], given)
    raise ConfigurationError([_no_plugin(given, sorted(installed))])


def _libraries(given: object) -> Iterator[str]:
    for base in type(given).__mro__[:-1]:
        yield base.__module__.partition(".")[0]


def _load(point: "EntryPoint", given: object) -> Container:
    wrap: Callable[[object], object] = point.load()
    wrapped = wrap(given)
    if isinstance(wrapped, Container):
        return wrapped
    missing = [name for name in sorted(vars(Container)) if not name.startswith("_") and not hasattr(wrapped, name)]
    text = f"the container plugin {point.value!r} returned a {type(wrapped).__name__}, which lacks {', '.join(missing)}"
    fix = f"upgrade the distribution of {point.value.partition(':')[0]!r}, or report this to its authors"
    raise ConfigurationError([Problem("container-plugin", text, fix)])


def _is_a_class(given: type) -> Problem:
    text = f"container={given!r} is a class; expected an object"
    return Problem("container-plugin", text, f"pass an instance, container={given.__qualname__}(...)")


def _no_plugin(given: object, installed: list[str]) -> Problem:
    text = f"no container plugin for {given!r}; installed are plugins for: {', '.join(installed) or 'none'}"
    ours = next((library for library in _libraries(given) if library in KNOWN), None)
    if ours:
        return Problem("container-plugin", text, f'install it: uv add "diator[{ours}]"')
    fix = f"use a container of {', '.join(KNOWN)}, or pass an object that implements diator.containers.Container"
    return Problem("container-plugin", text, fix)
