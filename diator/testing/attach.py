"""Attaching: an app is watched, and given replacements, by exchanging its plans; afterwards it has its own again.

The app is compiled a second time, from the same registrations, with hooks that watch it. Nothing of that is left in the
app when the block has ended.
"""

import dataclasses
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from difflib import get_close_matches
from types import TracebackType
from typing import Any
from weakref import WeakSet

from typing_extensions import is_protocol

from diator._inspection import (
    exchange,
    exchange_scopes,
    hooks_of,
    inspect_app,
    is_running,
    messaging_of,
    parts_of,
    registry_of,
)
from diator._keys import Key
from diator._parts import Parts
from diator.app import Diator
from diator.containers.find import find_container
from diator.containers.port import Container, ContainerCapability, Lifetime, Resolver, Scope, ValidationResult
from diator.delivery.messaging import Messaging
from diator.engine.check import CheckResult
from diator.engine.dispatch import Dispatch
from diator.engine.hints import class_of, key_of
from diator.engine.resources import ContainerScopes
from diator.engine.unit import NO_VALUES
from diator.errors import ConfigurationError, DiatorError, Problem
from diator.testing.session_messaging import AS_IT_IS, SessionMessaging, SessionOptions
from diator.testing.watch import RecordingHooks

_watched: WeakSet[Diator] = WeakSet()


def attached(
    app: Diator, watcher: RecordingHooks, replace: Mapping[Any, object], stage: SessionOptions = AS_IT_IS
) -> ExitStack:
    """Have an app watched, and its dependencies and its broker replaced, until the block ends; running or not.

    Raises `ConfigurationError` for what can't be replaced and for what is wrong with the app, `DiatorError` for an app
    that is watched already.
    """
    # Any: a key of `replace` is a hint (see Router.provides).
    if app in _watched:
        raise DiatorError(f"{app!r} is being recorded already; use that record, or end it first")
    own = _own_parts(app, stage.container)
    replaced = {key_of(hint, own.container): given for hint, given in replace.items()}
    parts = _parts(app, own, watcher, stage, replaced)
    checked = _checked(app, own, parts, replaced)
    registry, closed = registry_of(app), registry_of(app).closed
    former = _exchanged(app, watcher, parts, checked)
    # No generator: `contextlib` sets the traceback of what passes through one, which not every error allows.
    stack = ExitStack()
    if stage.container is not None:
        stack.callback(exchange_scopes(app, own.scopes))
    registry.freeze(f"{app!r} is being recorded")
    _watched.add(app)

    def detach() -> None:
        _watched.discard(app)
        if closed is not None or not is_running(app):  # an app that was started meanwhile takes no more handlers
            registry.closed = closed
        _unhook(app, watcher)
        exchange(app, *former)

    stack.callback(detach)
    return stack


def _own_parts(app: Diator, container: object | None) -> Parts:
    """Return the parts of an app, with the container of the test, if it has one."""
    own = parts_of(app)
    if container is None:
        return own
    if is_running(app):
        text = f"app.testing got a container, but {app!r} runs already, and has opened its own"
        raise ConfigurationError([Problem("session-option", text, "let the session start the app, or use replace=")])
    found = find_container(container)
    return own._replace(container=found, scopes=ContainerScopes(found))


def _exchanged(
    app: Diator, watcher: RecordingHooks, parts: Parts, checked: CheckResult
) -> tuple[Parts, Dispatch | None]:
    hooks = hooks_of(app)
    hooks.add(watcher)
    hooks.add(watcher.activity)
    try:
        return exchange(app, parts, parts.compile(checked, app, app.name))
    except BaseException:
        _unhook(app, watcher)
        raise


def _unhook(app: Diator, watcher: RecordingHooks) -> None:
    hooks_of(app).remove(watcher)
    hooks_of(app).remove(watcher.activity)


async def start(app: Diator, stack: AsyncExitStack) -> None:
    """Have an attached app run, and its broker connected, until the stack is left. One that runs is not ended."""
    broker = messaging_of(app)
    if not is_running(app):
        await stack.enter_async_context(app)
    elif broker is not None:
        await broker.connect(app.name, parts_of(app).container)
        stack.push_async_callback(broker.close)


def _parts(
    app: Diator, own: Parts, watcher: RecordingHooks, stage: SessionOptions, replaced: Mapping[Key, object]
) -> Parts:
    given = None
    if own.container or replaced:
        given = _Replacing(own.container, replaced, registry_of(app).provided)
    resources = ContainerScopes(given)
    resources.threads = own.scopes.threads
    if given:
        resources.resolve = _Resolver(own.scopes, replaced).resolve  # of a container without scopes, or none
    return Parts(given, resources, _twin(app, stage, watcher), own.hooks)


def _twin(app: Diator, stage: SessionOptions, watcher: RecordingHooks) -> SessionMessaging | None:
    own = messaging_of(app)
    if stage.relays:
        _ensure_store(app, own)
    if own is not None:
        return SessionMessaging(own, stage, watcher.activity)
    if stage.broker in (None, "keep") and stage.injection is None:
        return None
    text = f"app.testing got broker={stage.broker!r}, but {app!r} has no message broker that it could replace"
    if stage.injection is not None:
        text = f"app.testing got faults, but {app!r} has no message broker, so it has no deliveries to disturb"
    raise ConfigurationError(
        [Problem("no-broker", text, 'pass one to the app: Diator("meetings", broker="memory://")')]
    )


def _ensure_store(app: Diator, own: Messaging | None) -> None:
    if own is None or own.outbox is None:
        text, fix = f"app.testing got store='keep', but {app!r} has no store", "remove it, or pass a store to the app"
    elif is_running(app):
        text = f"app.testing got store='keep', but {app!r} runs already, and publishes what is stored to its own broker"
        fix = "let the session start it, or remove store='keep'"
    else:
        return
    raise ConfigurationError([Problem("no-store", text, fix)])


def _checked(app: Diator, own: Parts, parts: Parts, replaced: Mapping[Key, object]) -> CheckResult:
    checked = inspect_app(app, parts)
    problems = [_with_advice(problem) for problem in checked.errors]
    problems.extend(_refused(app, own.container, checked, replaced))
    if problems:
        raise ConfigurationError(problems)
    return checked


def _with_advice(problem: Problem) -> Problem:
    if problem.code != "missing-dependency":
        return problem
    return dataclasses.replace(problem, fix=f"{problem.fix}; or replace it for the test: record(replace=...)")


def _refused(
    app: Diator, container: Container | None, checked: CheckResult, replaced: Mapping[Key, object]
) -> Iterator[Problem]:
    """A replacement that no handler would get is an error."""
    wired = (*checked.handlers.values(), *checked.middlewares.values())
    asked = {key for one in wired for key in one.keys} | registry_of(app).provided.keys()
    names = sorted(map(str, asked))
    for key, given in replaced.items():
        if isinstance(given, type) and not _may_be_class(key.hint):
            text = f"the replacement for {key} is the class {given.__qualname__}; expected an object"
            yield Problem("replacement", text, f"give an instance: replace={{{key}: {given.__qualname__}(...)}}")
        if key not in asked:
            text = f"replace has {key}, but no handler and no middleware of {app!r} needs it"
            yield Problem("replacement", text, _instead(container, key, names))


def _may_be_class(hint: Any) -> bool:
    """Whether a class can be what a hint asks for: ``type[Repo]`` or a protocol of something to call, say."""
    cls = class_of(hint)
    return cls is None or is_protocol(cls) or issubclass(cls, type)


def _instead(container: Container | None, key: Key, names: list[str]) -> str:
    if container is not None and container.can_resolve(key):
        how = "register the replacement with a container for the test, or replace what handlers ask for"
        return f"the container uses it itself: {how}: {', '.join(names)}"
    close = get_close_matches(str(key), names, n=1)
    return (
        f"did you mean {close[0]}?" if close else f"they ask for: {', '.join(names) or 'nothing that can be replaced'}"
    )


class _Resolver:
    """Resolves what is replaced itself, and leaves the rest to another."""

    def __init__(self, inner: Resolver | ContainerScopes, replaced: Mapping[Key, object]) -> None:
        self._inner = inner
        self._replaced = replaced

    async def resolve(self, key: Key, /) -> Any:
        return self._replaced[key] if key in self._replaced else await self._inner.resolve(key)


class _Scope:
    """A scope of the app's container, with replacements."""

    def __init__(self, inner: Scope, replaced: Mapping[Key, object]) -> None:
        self._inner = inner
        self._replaced = replaced

    async def __aenter__(self) -> _Resolver:
        return _Resolver(await self._inner.__aenter__(), self._replaced)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)


class _Replacing:
    """The app's container, or none, with replacements for what handlers ask for: a container like any other."""

    def __init__(self, inner: Container | None, replaced: Mapping[Key, object], declared: Collection[Key]) -> None:
        self._inner = inner
        self._replaced = replaced
        self._declared = {key: given for key, given in replaced.items() if key in declared} or NO_VALUES

    @property
    def capabilities(self) -> ContainerCapability:
        return self._inner.capabilities if self._inner else ContainerCapability.REUSABLE

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        return self._inner.qualifier(metadata) if self._inner else None

    def can_resolve(self, key: Key, /) -> bool:
        return key in self._replaced or (self._inner is not None and self._inner.can_resolve(key))

    def lifetime(self, key: Key, /) -> Lifetime:
        if self._inner is None or key in self._replaced:
            return Lifetime.SINGLETON
        return self._inner.lifetime(key)

    def factory_of(self, key: Key, /) -> object | None:
        """Return the factory of a key, if the container knows it."""
        factory_of = getattr(self._inner, "factory_of", None)
        return None if factory_of is None else factory_of(key)

    def reaches(self, keys: Collection[Key], target: Key, /) -> bool:
        """Tell whether building these keys may build another: a replacement builds nothing."""
        own = [key for key in keys if key not in self._replaced]
        reaches: Callable[..., bool] | None = getattr(self._inner, "reaches", None)
        return target in keys or bool(own and (reaches is None or reaches(own, target)))

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        own = [key for key in keys if key not in self._replaced]
        return (
            self._inner.validate(own, {**self._declared, **dict.fromkeys(provided)})
            if self._inner
            else ValidationResult()
        )

    def scope(self, provided: Mapping[Key, object], /) -> _Scope:
        # What `app.provides` declares may reach the container's own factories, as it does when a sender brings it.
        assert self._inner is not None
        return _Scope(self._inner.scope({**self._declared, **provided}), self._replaced)

    async def aclose(self) -> None:
        """The app closes the container that it has."""
