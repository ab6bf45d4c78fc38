"""What a rodi container holds, and what rodi would look up to build it.

That is asked of rodi itself, so that its own rules hold: class-level annotations, names of parameters as aliases. Its
resolvers first look into a context for what is built already; one that claims to hold everything writes down what they
look for, and nothing is built. rodi has no public way to see any of this; pyproject.toml admits the releases tried.
"""

import functools
from collections.abc import Iterator
from typing import Any

import rodi

from diator.containers import Lifetime

# Any, in this module: hints and factories are whatever a user registers, and rodi does not type its resolvers.
_rodi: Any = rodi


class Registrations(dict[Any, Any]):
    """The resolvers of a container, by hint."""

    def __init__(self, container: Any) -> None:
        super().__init__(container)
        self._endless: Any = rodi.Container()
        self._endless._map = _Everything()
        self._endless._aliases = container._aliases.copy()  # rodi adds to it whatever it looks for
        self._endless._exact_aliases = container._exact_aliases

    @functools.cached_property
    def kept(self) -> dict[Any, dict[Any, Any]]:
        """The class that rodi keeps a scoped object under, and all that is kept there: layers by hint."""
        kept: dict[Any, dict[Any, Any]] = {}
        for hint, resolver in self.items():
            for layer in layers(resolver):
                if lifetime_of(layer) is Lifetime.SCOPED:
                    kept.setdefault(class_of(layer), {})[hint] = layer
        return kept

    def needs(self, hint: Any) -> list[Any]:
        """Return what rodi would look up to build this. Raises what rodi raises when it can't read hints."""
        looked_up = _Everything()
        context = _rodi.ResolutionContext()
        context.resolved = looked_up
        self._looking(self[hint])(context)
        return list(dict.fromkeys(looked_up.hints))

    def _looking(self, resolver: Any) -> Any:
        """Copy a resolver into a container where nothing is missing."""
        if type(resolver) is _rodi.DynamicResolver:
            return _rodi.DynamicResolver(class_of(resolver), self._endless, resolver.life_style)
        if type(resolver) is _rodi.DecoratorResolver:
            inner = self._looking(resolver._inner_resolver)
            base, style = resolver._base_type, resolver.life_style
            return _rodi.DecoratorResolver(base, class_of(resolver), inner, self._endless, style)
        return resolver


def lifetime_of(resolver: Any) -> Lifetime:
    """Translate rodi's life style; an instance has none."""
    return Lifetime[resolver.life_style.name] if hasattr(resolver, "life_style") else Lifetime.SINGLETON


def layers(resolver: Any) -> Iterator[Any]:
    """Yield the resolvers of what ``decorate`` has wrapped, the outermost first."""
    while type(resolver) is _rodi.DecoratorResolver:
        yield resolver
        resolver = resolver._inner_resolver
    yield resolver


def class_of(layer: Any) -> Any:
    """Return the class that is built; for a factory its key, for an instance None."""
    return layer._decorator_type if type(layer) is _rodi.DecoratorResolver else getattr(layer, "concrete_type", None)


def function_of(layer: Any) -> Any:
    """Return the function that a factory was registered with; None for anything else."""
    wrapped: Any = getattr(layer, "factory", None)
    is_wrapped = type(wrapped) in (_rodi.FactoryWrapperNoArgs, _rodi.FactoryWrapperContextArg)
    return wrapped.factory if is_wrapped else wrapped


class _Everything(dict[Any, Any]):
    """Claims to hold every hint, and notes which ones were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.hints: list[Any] = []

    def __contains__(self, hint: object) -> bool:
        return True

    def __missing__(self, hint: Any) -> None:
        self.hints.append(hint)
