"""Names of messages, handlers and types, as people and as tools want them."""

from collections import Counter
from typing import Any

from diator._locations import written
from diator.engine.hints import format_hint
from diator.engine.registrations import name_of
from diator.engine.signature import EMPTY, Unresolved


class Names:
    """Gives everything its full name, ``module.QualifiedName``, and the shortest one that is not ambiguous."""

    def __init__(self) -> None:
        self._short: dict[str, str] = {}
        self._bearers: Counter[str] = Counter()

    def of(self, target: object) -> str:
        """The full name of a class, a function, or the class of an object that is called."""
        return self._keep(target, name_of(target))

    def of_message(self, hint: Any, cls: type) -> str:
        """The full name of a message as its handler writes it: ``GetById[Meeting]``, of the class ``GetById``."""
        return self._keep(cls, type_text(hint))

    def short(self, full: str) -> str:
        """The name without its module, unless something in another module has the same one."""
        short = self._short[full]
        return full if self._bearers[short] > 1 else short

    def _keep(self, target: object, name: str) -> str:
        full = f"{_module(target)}.{name}"
        if full not in self._short:
            self._short[full] = name
            self._bearers[name] += 1
        return full


def _module(target: object) -> str:
    target = written(target)
    return str(getattr(target, "__module__", None) or type(target).__module__)


def type_text(hint: Any) -> str:
    """A type as its author wrote it, without the modules: ``Publish[UserJoined | UserWarned]``."""
    if hint is EMPTY:
        return "?"
    if isinstance(hint, Unresolved):
        return hint.annotation
    return format_hint(hint)
