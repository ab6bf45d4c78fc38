"""The base of hooks. It stands apart from what they are told, which apps without hooks need not import."""

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from diator._places import caller, place_in
from diator.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from diator.hooks import Handled, Parked, Published, Received, Retried, Settled


class Hooks:
    """Override what you want to know, and pass an instance: ``Diator(..., hooks=[MyHooks()])``.

    Each method gets one object with the details and runs where the thing happens, so it must be quick. What it raises
    is logged, and changes nothing.
    """

    def published(self, details: "Published", /) -> None:
        """Events were handed to the broker."""

    def received(self, details: "Received", /) -> None:
        """Messages were taken from the broker."""

    def handled(self, details: "Handled", /) -> None:
        """A handler has ended."""

    def retried(self, details: "Retried", /) -> None:
        """A message will be delivered again."""

    def parked(self, details: "Parked", /) -> None:
        """A message becomes a dead letter."""

    def settled(self, details: "Settled", /) -> None:
        """The broker has taken down an outcome."""


NAMES = ("published", "received", "handled", "retried", "parked", "settled")
"""The methods of a hook."""


def are_hooks(given: Any) -> bool:
    """Return whether these are hooks, each an instance. ``Any``: callers may be unchecked."""
    if not isinstance(given, tuple):
        return False
    hooks = cast("tuple[object, ...]", given)
    return all(isinstance(hook, Hooks) for hook in hooks)


def ensure_plain_hooks(hooks: Iterable[Hooks]) -> None:
    """Raise `ConfigurationError` for a hook with an async method, which would never be awaited."""
    problems = [
        Problem(
            "hooks",
            f"Diator got the hook {hook!r}, whose method {name} is async",
            "make it a plain function: hooks run synchronously",
            place_in(caller()),
        )
        for hook in hooks
        for name in NAMES
        if inspect.iscoroutinefunction(getattr(hook, name))
    ]
    if problems:
        raise ConfigurationError(problems)
