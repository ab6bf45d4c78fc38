"""The base of hooks, and what calls them. Their details stand apart: apps without hooks need not import those."""

import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from diator._headers import sealed_headers
from diator._locations import caller, location_in_frame
from diator.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import diator._hook_details as hooks

logger = logging.getLogger("diator")


class Hooks:
    """Base of hooks: override the methods you need, and pass an instance: ``Diator(..., hooks=[MyHooks()])``.

    Each method receives one object with the details. It runs in the path of the message, so it must be fast. An error
    that it raises is logged, and changes nothing.

    ``sending``, ``handling`` and ``publishing`` return a context manager, which stays open for the duration: write them
    with `contextlib.contextmanager`. It sees the error, if there is one, and cannot suppress it. Return ``None`` to
    wrap nothing. The other methods only observe.
    """

    needs_context: bool = True
    """Whether every message has a `Context` in ``sending``, ``handling`` and ``collected``, even if no handler uses it.
    With ``False``, Diator creates ids only if handlers or middlewares need them.
    """

    def sending(self, details: "hooks.Sending", /) -> "AbstractContextManager[object] | None":
        """Wrap one ``app.send``, ``app.stream`` or ``app.publish``, with its middlewares and its unit of work.

        For a stream it wraps the opening and the rows, but not the block that reads them.
        """

    def handling(self, details: "hooks.Handling", /) -> "AbstractContextManager[object] | None":
        """Wrap one run of a handler; for a brokered event, including its middlewares, unit of work and follow-ups."""

    def publishing(self, details: "hooks.Publishing", /) -> "AbstractContextManager[object] | None":
        """Wrap one attempt to send messages to the broker."""

    def propagate(self, details: "hooks.Collected", /) -> "Mapping[str, str] | None":
        """Return headers to send with a brokered event, such as ``traceparent``.

        Called while the publishing handler runs, so its span is current. Headers that the handler itself sets take
        precedence.
        """

    def collected(self, details: "hooks.Collected", /) -> None:
        """A handler published an event, or ``app.publish`` a brokered one. The unit of work may still fail."""

    def stored(self, details: "hooks.Stored", /) -> None:
        """Events were written to the outbox, and committed with the changes of their unit of work."""

    def relayed(self, details: "hooks.Relayed", /) -> None:
        """The relay of this process published events from the outbox; `published` reports them, too."""

    def published(self, details: "hooks.Published", /) -> None:
        """The broker has stored events."""

    def received(self, details: "hooks.Received", /) -> None:
        """Messages were received from the broker."""

    def handled(self, details: "hooks.Handled", /) -> None:
        """A run of a handler has ended."""

    def retried(self, details: "hooks.Retried", /) -> None:
        """A message will be redelivered after a failure."""

    def dead_lettered(self, details: "hooks.DeadLettered", /) -> None:
        """A message becomes a dead letter."""

    def settled(self, details: "hooks.Settled", /) -> None:
        """The broker has recorded an outcome."""


WRAPS = ("sending", "handling", "publishing")
"""The methods of a hook that return a context manager."""
_IN_CONTEXT = ("sending", "handling", "collected")
"""Those that get a context, also for what stays in the process."""
_IN_PROCESS = (*_IN_CONTEXT, "propagate")
"""Those that are compiled into the plans of an app."""
NAMES = (
    *(*WRAPS, "propagate", "collected", "stored", "relayed", "published"),
    *("received", "handled", "retried", "dead_lettered", "settled"),
)
"""The methods of a hook."""

_FAILED = "the hook %s failed"

H = TypeVar("H", bound=Hooks)
# Any: each method takes details of its own.
Method = Callable[[Any], Any]


class Wrap:
    """The context managers of several hooks around one thing, entered in order and left in reverse.

    No generator: `contextlib` sets the traceback of what passes through one, which not every error allows.
    """

    __slots__ = ("_details", "_entered", "_methods")

    def __init__(self, methods: Iterable[Method], details: object) -> None:
        self._methods = methods
        self._details = details
        self._entered: list[tuple[Method, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for method in self._methods:
            try:
                manager = method(self._details)
                if manager is not None:
                    manager.__enter__()
                    self._entered.append((method, manager))
            except KeyboardInterrupt:
                self.__exit__(*sys.exc_info())
                raise
            except BaseException:  # a hook must not affect what it wraps
                logger.exception(_FAILED, _name_of(method))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._entered:
            method, manager = self._entered.pop()
            try:
                manager.__exit__(kind, error, traceback)
            except KeyboardInterrupt:
                raise
            except BaseException as raised:
                if raised is not error:
                    logger.exception(_FAILED, _name_of(method))
        del error, traceback  # an error must not hold the frames that hold it


class HookDispatcher:
    """The hooks of one app, by method. A method that no hook overrides costs one look-up."""

    def __init__(self, hooks: Iterable[Hooks] = ()) -> None:
        self._hooks: list[Hooks] = []
        self._methods: dict[str, list[Method]] = {name: [] for name in NAMES}
        for hook in hooks:
            self.add(hook)

    def add(self, hook: Hooks) -> None:
        """Add one. Plans that were compiled before know nothing of it."""
        self._hooks.append(hook)
        for name, methods in self._methods.items():
            if _overrides(hook, name):
                methods.append(getattr(hook, name))

    def remove(self, hook: Hooks) -> None:
        """Remove one."""
        self._hooks.remove(hook)
        for name, methods in self._methods.items():
            self._methods[name] = [method for method in methods if getattr(method, "__self__", None) is not hook]

    def find(self, cls: type[H]) -> H | None:
        """Return the first hook that is of a class."""
        return next((hook for hook in self._hooks if isinstance(hook, cls)), None)

    @property
    def is_compiled(self) -> bool:
        """Whether plans have to know of a hook."""
        return any(map(self.has_listener, _IN_PROCESS))

    @property
    def needs_context(self) -> bool:
        """Whether a hook reads the context of messages that would have none otherwise."""
        return any(hook.needs_context and any(_overrides(hook, name) for name in _IN_CONTEXT) for hook in self._hooks)

    def has_listener(self, name: str) -> bool:
        """Whether a hook has a method of that name, so that details are made only if one does."""
        return bool(self._methods[name])

    def methods(self, name: str) -> tuple[Method, ...]:
        """The methods of that name of all hooks that have it, in order."""
        return tuple(self._methods[name])

    def wrap(self, name: str, details: object) -> Wrap:
        """Make what wraps one thing that happens now."""
        return Wrap(self.methods(name), details)

    def emit(self, name: str, details: object) -> None:
        """Call the methods of that name."""
        for method in self._methods[name]:
            try:
                method(details)
            except KeyboardInterrupt:
                raise
            except BaseException:  # a hook must not affect a message, nor cancel its publisher
                logger.exception(_FAILED, _name_of(method))

    def headers(self, details: object) -> dict[str, str]:
        """Gather the headers that hooks add to a message."""
        found: dict[str, str] = {}
        for method in self._methods["propagate"]:
            try:
                found.update(sealed_headers(method(details) or {}, f"the hook {_name_of(method)}"))
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception(_FAILED, _name_of(method))
        return found


def _overrides(hook: Hooks, name: str) -> bool:
    return getattr(type(hook), name) is not getattr(Hooks, name)


def _name_of(method: Any) -> str:
    """The name of a method and its class. ``Any``: a hook may have any callable in its place."""
    owner = type(getattr(method, "__self__", method)).__name__
    return f"{getattr(method, '__name__', 'of unknown name')} of {owner}"


def are_hooks(given: Any) -> bool:
    """Return whether these are hooks, each an instance. ``Any``: callers may be unchecked."""
    if not isinstance(given, tuple):
        return False
    hooks = cast("tuple[object, ...]", given)
    return all(isinstance(hook, Hooks) for hook in hooks)


def ensure_plain_hooks(hooks: Iterable[Hooks]) -> None:
    """Raise `ConfigurationError` for a hook that could never work: one that is async, or a generator."""
    problems = [
        Problem(
            "hooks", f"Diator got the hook {hook!r}, whose method {name} is {what}", fix, location_in_frame(caller())
        )
        for hook in hooks
        for name in NAMES
        for what, fix in _unusable(getattr(hook, name))
    ]
    if problems:
        raise ConfigurationError(problems)


def _unusable(method: Method) -> Iterable[tuple[str, str]]:
    written = inspect.unwrap(method)
    if inspect.iscoroutinefunction(written) or inspect.isasyncgenfunction(written):
        yield "async", "make it a plain function: hooks run synchronously"
    elif inspect.isgeneratorfunction(method):
        yield "a generator", "decorate it with contextlib.contextmanager"
