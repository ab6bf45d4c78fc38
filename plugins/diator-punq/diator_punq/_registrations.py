"""What a punq container holds, and which of it punq cannot honor. All that is private to punq is read here."""

import contextlib
import inspect
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import punq
from typing_extensions import get_type_hints

from diator import Named
from diator.containers import Reason, call_error, is_abstract, unfinished

# Any, in this module: hints and builders are whatever a user registers.


class Registered(NamedTuple):
    """A registration, as far as it matters here."""

    builder: Any
    scope: punq.Scope
    needs: dict[str, Any]
    """The hints of the constructor; nothing for a function."""
    given: dict[str, Any]
    """The arguments that were given when it was registered."""
    cache: bool
    """Whether punq builds it only once for one object that it is asked for."""

    @property
    def hints(self) -> dict[str, Any]:
        """What punq looks up and passes, by the name of the parameter."""
        return {name: hint for name, hint in self.needs.items() if name != "return" and name not in self.given}

    @property
    def defaults(self) -> Collection[str]:
        """The parameters that punq passes with their defaults, where it finds nothing better."""
        return defaults_of(self.builder)


class Registrations:
    """What a punq container holds."""

    def __init__(self, container: punq.Container) -> None:
        self._container = container

    def of(self, hint: Any) -> list[Registered]:
        """Give the registrations of a service; punq begins with the last."""
        return _of(self._container, hint)

    def unregistered(self, hint: Any) -> Registered | None:
        """Give what punq would register by itself for this hint, with ``auto_register``."""
        if isinstance(hint, type) and self._container._auto_register:  # pyright: ignore[reportPrivateUsage] - not told otherwise
            with contextlib.suppress(punq.InvalidForwardReferenceError):
                return _of(punq.Container().register(hint, cache=False), hint)[0]
        return None

    def refusals(self, one: Registered) -> Iterator[Reason]:
        """Yield why punq cannot honor a registration, if it cannot."""
        builder = one.builder
        kind = unfinished(builder)
        if kind:
            reason = f"punq would give the {kind} itself, and neither run it to its end nor close it"
            yield reason, "register a class or a plain function, or use a container that can do this, such as dishka"
            return
        if is_abstract(builder):
            yield f"{builder!r} is abstract", "register a class that implements it"
        for name in self._qualified(one):
            reason = f"punq drops the qualifier of the parameter {name!r} of {builder!r}"
            yield reason, "hint a class or a NewType of its own there, and register that"
        try:
            error = call_error(builder, **dict.fromkeys({*one.defaults, *one.hints, *one.given}))
        except TypeError as unreadable:
            error = unreadable
        if error:
            fix = "hint each parameter of the constructor, or give it: register(..., name=value)"
            yield f"punq cannot call {builder!r}: {error}", f"{fix}; a function must take none"

    def _qualified(self, one: Registered) -> Iterator[str]:
        if not isinstance(one.builder, type):
            return
        local_names = self._container.registrations._localns  # pyright: ignore[reportPrivateUsage] - as punq reads them
        init = one.builder.__init__  # type: ignore[misc]  # only its hints are read
        for name, hint in get_type_hints(init, None, local_names, include_extras=True).items():
            if name in one.hints and any(isinstance(mark, Named) for mark in getattr(hint, "__metadata__", ())):
                yield name


def defaults_of(builder: Any) -> dict[str, Any]:
    """Return what punq passes for parameters that it finds nothing for."""
    spec = inspect.getfullargspec(builder)
    defaults = spec.defaults or ()
    return dict(zip(spec.args[len(spec.args) - len(defaults) :], defaults, strict=True)) | (spec.kwonlydefaults or {})


def is_instance(one: Registered) -> bool:
    """Tell whether this was registered with ``instance=``, for which punq makes a function of its own."""
    return getattr(one.builder, "__globals__", {}).get("__name__") == punq.__name__


def _of(container: punq.Container, hint: Any) -> list[Registered]:
    found = container.registrations.build_context(hint).all_registrations(hint)
    return [Registered(one.builder, one.scope, one.needs, one.args, one.cache) for one in found]
