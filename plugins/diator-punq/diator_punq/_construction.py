"""Compiled construction: functions that build what `punq.Container.resolve` would build, without inspecting anything.

punq inspects every constructor each time that it builds. Here its way to one object is followed once, step by step as
`punq.Container._resolve_impl` goes it, and written down as plain code::

    v0 = Session()
    v1 = Repository(session=v0)
    return Service(repository=v1)

Two things may change from one time to the next, so the code looks at both before it builds anything: the number of
registrations for each hint on the way, because punq only ever appends some, and whether punq has built its singletons.
If a singleton is missing, punq builds the whole object. punq also builds what this module does not follow: classes that
``auto_register`` finds, cycles, forward references, and everything in a subclass of `punq.Container`.

What is private to punq is that of the releases which pyproject.toml admits; without it, punq builds everything.
"""

import keyword
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ForwardRef, NamedTuple, get_args, get_origin

import punq

from diator.containers import Key
from diator_punq._registrations import defaults_of

# Any, in this module: hints and builders are whatever a user registers.

_MAX_LINES = 500
"""What is registered with ``cache=False`` is built again for each object that needs it, which makes long code."""
_MAX_COMPILED = 4
"""How often a function is compiled for one hint: once, and again after later registrations."""

Build = Callable[[Any], Any]
"""Takes the scope: the ``provided`` values, and the ``native`` container that punq resolves from."""


class Builders(dict[Any, Build]):
    """The functions for the hints that one container resolves, in scopes that are given values for the same keys."""

    def __init__(self, container: punq.Container, provided: Mapping[Any, Key]) -> None:
        super().__init__()
        self._container = container
        self._provided = provided
        """The keys of the values by their hints."""
        self._times: Counter[Any] = Counter()

    def __missing__(self, hint: Any) -> Build:
        def by_punq(scope: Any) -> Any:
            return scope.native.resolve(hint)

        def again(scope: Any) -> Any:
            self.pop(hint, None)
            return self[hint](scope)

        self._times[hint] += 1
        if self._times[hint] > _MAX_COMPILED or type(self._container) is not punq.Container:
            self[hint] = by_punq
            return by_punq
        try:
            self[hint] = _Way(self._container, self._provided).compile(hint, by_punq, again)
        except (_NotFollowedError, AttributeError, KeyError, TypeError):  # a private name is gone, or no signature
            return by_punq  # kept for this time only: what is missing may be registered yet
        return self[hint]


class _NotFollowedError(Exception):
    """Something that punq is left to do."""


class _Context(NamedTuple):
    """What punq remembers until the object that it was asked for is complete."""

    left: dict[Any, list[Any]]
    """The registrations that it has not taken yet."""
    built: dict[Any, str]
    """The names of the variables."""


class _Way:
    """The way of punq to one object, as lines of code."""

    def __init__(self, container: punq.Container, provided: Mapping[Any, Key]) -> None:
        self._container = container
        self._provided = provided
        self._lines: list[str] = []
        self._names: dict[str, Any] = {"singletons": container._singletons}  # pyright: ignore[reportPrivateUsage]  # see above
        self._asked: dict[Any, None] = {}
        self._singletons: dict[int, str] = {}
        self._building: list[Any] = []

    def compile(self, hint: Any, by_punq: Build, again: Build) -> Build:
        """Write the function, which calls ``by_punq`` if a singleton is missing, ``again`` for new registrations."""
        given = self._provided.get(hint)  # counts for a list of what is registered too, where punq looks at no value
        result = self._value(hint, _Context({}, {}), punq.empty) if given is None else self._given(given)
        registered = list(self._registered())
        self._names |= {"by_punq": by_punq, "again": again}
        head = ["def build(scope):"]
        if registered:
            count = "+".join(f"len({self._name(each)})" for each in registered)
            head.append(f"if {count} != {sum(map(len, registered))}: return again(scope)")
        head += [f"if {name} not in singletons: return by_punq(scope)" for name in self._singletons.values()]
        exec("\n ".join([*head, *self._lines, f"return {result}"]), self._names)  # noqa: S102 - all names are made here
        build: Build = self._names["build"]
        return build

    def _registered(self) -> Iterator[list[object]]:
        """The lists that a new registration would lengthen: those of the container and of the ones around it."""
        level: Any = vars(self._container.registrations)["_Registry__registrations"]
        while level is not None:
            entries: Any = level.entries
            yield from (entries[hint] for hint in self._asked)
            level = level.parent

    def _value(self, hint: Any, context: _Context, default: object) -> str:
        """Do what ``_resolve_impl`` does."""
        if hint in context.built:
            return context.built[hint]
        if get_origin(hint) is list:
            return self._list(*get_args(hint))
        if hint in self._provided:
            return self._given(self._provided[hint])
        left = self._left(hint, context)
        if not left:
            if default is punq.empty:
                raise _NotFollowedError
            return self._name(default)
        one = left.pop() if left[-1].cache else left[-1]
        if one.scope is punq.Scope.singleton:  # punq keeps it as long as the container, so no other one gets its id
            value = f"singletons[{self._singletons.setdefault(id(one), self._name(id(one)))}]"
        else:
            value = self._call(one, context)
        value = self._line(value)
        if one.cache:
            context.built[hint] = value
        return value

    def _given(self, key: Key) -> str:
        return f"scope.provided[{self._name(key)}]"

    def _list(self, item: Any = punq.empty) -> str:
        """Do what ``resolve_all`` does, which builds a singleton again even if there is one."""
        if item is punq.empty or item in self._provided:
            raise _NotFollowedError
        context = _Context({}, {})
        values: list[str] = []
        for one in self._left(item, context):  # which gets shorter if one of them takes another
            store = f"singletons[{self._name(id(one))}] = " if one.scope is punq.Scope.singleton else ""
            values.append(self._line(store + self._call(one, context)))
            if one.cache:
                context.built[item] = values[-1]
        return self._line(f"[{', '.join(values)}]")

    def _left(self, hint: Any, context: _Context) -> list[Any]:
        if isinstance(hint, ForwardRef) or (self._provided and hint is punq.Container):
            raise _NotFollowedError  # registered under other names too; and the container is the child with the values
        if hint not in context.left:
            self._asked[hint] = None
            context.left[hint] = self._container.registrations.build_context(hint).all_registrations(hint)
        return context.left[hint]

    def _call(self, one: Any, context: _Context) -> str:
        """Do what ``_build_impl`` does."""
        if any(one is other for other in self._building) or len(self._lines) > _MAX_LINES:
            raise _NotFollowedError
        defaults = defaults_of(one.builder)
        given = {name: self._name(value) for name, value in defaults.items()}
        self._building.append(one)
        for name, hint in one.needs.items():
            if name != "return" and name not in one.args:
                given[name] = self._value(hint, context, defaults.get(name, punq.empty))
        self._building.pop()
        given |= {name: self._name(value) for name, value in one.args.items()}
        # By name, as punq does: the order of parameters may be another than that of their hints.
        return f"{self._name(one.builder)}({', '.join(f'{_checked(name)}={value}' for name, value in given.items())})"

    def _line(self, expression: str) -> str:
        name = f"v{len(self._lines)}"
        self._lines.append(f"{name} = {expression}")
        return name

    def _name(self, value: object) -> str:
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name


def _checked(name: str) -> str:
    """Refuse names that only ``register(..., **{name: value})`` can have."""
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise _NotFollowedError
    return name
