"""The subclasses of a class of events, without classes that were replaced by a later definition."""

import sys
from collections.abc import Iterator

from diator.messages import Event


def with_subclasses(cls: type[Event]) -> frozenset[type[Event]]:
    """A class of events and its subclasses, as far as they are defined by now.

    A class whose name was given to another is none of them: ``@dataclass(slots=True)`` and ``attrs.define`` make a
    class twice, and a cell of a notebook or a reloaded module defines its classes again. Python keeps the first ones
    among the subclasses of their base, for as long as anything refers to them.
    """
    current: dict[tuple[str, str], type[Event]] = {}
    for sub in _subclasses(cls):
        name = (sub.__module__, sub.__qualname__)
        if name not in current or _named(*name) is not current[name]:
            current[name] = sub  # classes come in the order of their definition: the last one is the current one
    return frozenset({cls, *current.values()})


def _subclasses(cls: type[Event]) -> Iterator[type[Event]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _named(module: str, qualified: str) -> object:
    """The object that a name refers to now; ``None`` for names that are local to a function."""
    found: object = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return found
