"""What a rodi container holds, and what rodi would look up to build it.

That is asked of rodi itself, so that its own rules hold: class-level annotations, names of parameters as aliases. Its
resolvers first look into a context for what is built already; one that claims to hold everything writes down what they
look for, and nothing is built.
"""

import functools
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import rodi

from diator import Named
from diator.containers import Key, Lifetime

# Any, in this module: hints and factories are whatever a user registers, and rodi does not type its resolvers.
_resolvers: Any = rodi


@functools.lru_cache
def hint_of(key: Key) -> Any:
    """Fold the qualifier into the hint: rodi takes anything that can be hashed."""
    return key.hint if key.qualifier is None else Annotated[key.hint, Named(key.qualifier)]


def key_of(hint: Any) -> Key:
    """Do the reverse of `hint_of`."""
    if get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Named):
        return Key(get_args(hint)[0], hint.__metadata__[0].name)
    return Key(hint)


def lifetime_of(resolver: Any) -> Lifetime:
    """Translate rodi's life style; an instance has none."""
    return Lifetime[resolver.life_style.name] if hasattr(resolver, "life_style") else Lifetime.SINGLETON


def layers(resolver: Any) -> Iterator[Any]:
    """Give the resolvers of what ``decorate`` has wrapped, the outermost first."""
    while type(resolver) is _resolvers.DecoratorResolver:
        yield resolver
        resolver = resolver._inner_resolver
    yield resolver


def class_of(layer: Any) -> Any:
    """Give the class that is built; for a factory its key, for an instance None."""
    return (
        layer._decorator_type if type(layer) is _resolvers.DecoratorResolver else getattr(layer, "concrete_type", None)
    )


def function_of(layer: Any) -> Any:
    """Give the function that a factory was registered with; None for anything else."""
    wrapped: Any = getattr(layer, "factory", None)
    is_wrapped = type(wrapped) in (_resolvers.FactoryWrapperNoArgs, _resolvers.FactoryWrapperContextArg)
    return wrapped.factory if is_wrapped else wrapped


class Registrations(dict[Any, Any]):
    """The resolvers of a container, by hint."""

    def __init__(self, container: Any) -> None:
        super().__init__(container)
        self._endless: Any = rodi.Container()
        self._endless._map = _Everything()
        self._endless._aliases = container._aliases.copy()  # rodi adds to it whatever it looks for
        self._endless._exact_aliases = container._exact_aliases
        self.kept: dict[Any, dict[Any, Any]] = {}
        """The class that rodi keeps a scoped object under, and all that is kept there: layers by hint."""
        for hint, resolver in self.items():
            for layer in layers(resolver):
                if lifetime_of(layer) is Lifetime.SCOPED:
                    self.kept.setdefault(class_of(layer), {})[hint] = layer

    def needs(self, hint: Any) -> list[Any]:
        """Tell what rodi would look up to build this. Raises whatever rodi does when it can't read hints."""
        looked_up = _Everything()
        context = _resolvers.ResolutionContext()
        context.resolved = looked_up
        self._looking(self[hint])(context)
        return list(dict.fromkeys(looked_up.hints))

    def _looking(self, resolver: Any) -> Any:
        """Copy a resolver into a container where nothing is missing."""
        if type(resolver) is _resolvers.DynamicResolver:
            return _resolvers.DynamicResolver(class_of(resolver), self._endless, resolver.life_style)
        if type(resolver) is _resolvers.DecoratorResolver:
            inner = self._looking(resolver._inner_resolver)
            base, style = resolver._base_type, resolver.life_style
            return _resolvers.DecoratorResolver(base, class_of(resolver), inner, self._endless, style)
        return resolver


class _Everything(dict[Any, Any]):
    """Claims to hold every hint, and notes which ones were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.hints: list[Any] = []

    def __contains__(self, hint: object) -> bool:
        return True

    def __missing__(self, hint: Any) -> None:
        self.hints.append(hint)
