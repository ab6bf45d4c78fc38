"""Which provider di takes for a parameter. A key that Diator asks for is looked up as a parameter with that hint.

Every parameter that is not bound gets something from di: an object of its hint, of any kind. Here only what
the application has chosen counts: a bind, a `Marker` in the hint, an `Injectable` class, or a default.
"""

import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from di import Container, SolvedDependent
from di.api.dependencies import DependentBase, InjectableClassProvider
from di.dependent import Dependent, Marker

from diator.containers import Key, hint_of, key_of

EMPTY: Any = inspect.Parameter.empty

# Any, in this module: hints are any typing form, and dependents give whatever their hints name.
Dependency = DependentBase[Any]


class Found(NamedTuple):
    """What di takes for a parameter."""

    key: Key
    dependent: Dependency
    chosen: bool
    """Whether the user has chosen this dependent."""
    default: str | None = None
    """The name of the parameter, if it has a default, which is used if nothing was chosen."""
    overridden: Marker | None = None
    """The marker that has lost against a bind of the type."""


class Wiring:
    """The binds of a container, and the order of its scopes, the last of which is the unit of work."""

    def __init__(self, container: Container, scopes: Sequence[Hashable]) -> None:
        self.hooks = container._bind_hooks  # pyright: ignore[reportPrivateUsage] - the only way to see them
        self.scopes = tuple(scopes)
        self.unit = self.scopes[-1]

    def find(self, key: Key) -> Found:
        """Find what di would take for a parameter of a handler."""
        parameter = inspect.Parameter("dependency", inspect.Parameter.KEYWORD_ONLY, annotation=_annotation(key))
        is_alias = get_origin(key.hint) is not None  # 3.10 takes `list[int]` for a class, and di stumbles over it
        marker = key.qualifier if isinstance(key.qualifier, Marker) else Marker(scope=self.unit)
        return self._look(parameter, Dependent[Any]() if is_alias else marker.register_parameter(parameter))

    def needs(self, provider: Dependency) -> Iterator[Found]:
        """Find what di would pass to a provider."""
        for own, parameter in provider.get_dependencies():
            if parameter is None:  # a sibling, named by a `JoinedDependent`
                yield Found(Key(own.call), self._bound(None, own) or own, own.call is not None)
            else:
                yield self._look(parameter, own)

    def solve(self, root: Dependency, provided: Mapping[Key, Dependency]) -> SolvedDependent[Any]:
        """Have di plan how a provider is built, in scopes that were given values for these keys."""

        def rebind(param: inspect.Parameter | None, dependent: Dependency) -> Dependency | None:
            if param is None:
                return None if dependent is root else self._bound(None, dependent)
            return provided.get(_key(param.annotation)) or self._look(param, dependent).dependent

        container = Container()
        container.bind(rebind)
        return container.solve(root, self.scopes)

    def _look(self, parameter: inspect.Parameter, own: Dependency) -> Found:
        key, default = _key(parameter.annotation), None if parameter.default is EMPTY else parameter.name
        if key.qualifier is not None and not isinstance(key.qualifier, Marker):
            # Binds by type are deaf to qualifiers. This asks for exactly what the hint says, as for a class.
            bound = self._bound(None, Dependent(parameter.annotation))
            return Found(key, bound or own, bound is not None, default)
        bound = self._bound(parameter, own)
        provider = bound or own
        chosen = bound is not None or isinstance(key.qualifier, Marker) or _is_injectable(key.hint)
        by_type = bound is not None and self._bound(None, own) is None
        marker = key.qualifier if by_type and isinstance(key.qualifier, Marker) and key.qualifier.call else None
        return Found(key, provider, chosen and provider.call is not None, default, marker)

    def _bound(self, parameter: inspect.Parameter | None, own: Dependency) -> Dependency | None:
        bound: Dependency | None = None
        for hook in self.hooks:
            bound = hook(parameter, bound or own) or bound
        return bound


def marker_in(metadata: Sequence[object]) -> Marker | None:
    """Give di's own mark, the outermost if there are several."""
    return next((mark for mark in reversed(metadata) if isinstance(mark, Marker)), None)


def _annotation(key: Key) -> Any:
    return Annotated[key.hint, key.qualifier] if isinstance(key.qualifier, Marker) else hint_of(key)


def _key(annotation: Any) -> Key:
    key = key_of(annotation, marker_in)
    return key if get_origin(key.hint) is not Annotated else Key(get_args(key.hint)[0])


def _is_injectable(hint: Any) -> bool:
    return get_origin(hint) is None and isinstance(hint, type) and issubclass(hint, InjectableClassProvider)
