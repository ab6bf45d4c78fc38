"""What Diator itself injects: the context of the message that is being handled, and the way to publish events."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, TypeVar

E_contra = TypeVar("E_contra", contravariant=True)

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Ids and headers of the message that is being handled. Handlers and middlewares get it by asking for it.

    A domain event has the context of the command that raised it.
    """

    message_id: str
    """Identifies this message."""
    correlation_id: str
    """The same for everything that one outer message caused."""
    causation_id: str | None = None
    """The id of the message whose handling sent this one; none for the outermost."""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    """What the sender attached with ``app.using(headers=...)``."""


class Publish(Protocol[E_contra]):
    """Collects the events of a handler that declares them: ``publish: Publish[UserJoined | UserWarned]``.

    They are handled after the handler has returned. In a test any callable fits, such as a list's ``append``.
    """

    def __call__(self, event: E_contra, /) -> None:
        """Collect an event.

        Raises `~diator.UndeclaredEventError` for an event that the hint does not name, and
        `~diator.LatePublishError` after the handler has returned.
        """
        ...


current: ContextVar[Context | None] = ContextVar("diator.context", default=None)
"""The context of the message that is being handled here, where its plan needed one."""


def next_context(headers: Mapping[str, str] | None = None, correlation_id: str | None = None) -> Context:
    """Make the context of a message that is sent now, caused by the one being handled, if there is one."""
    from uuid import uuid4  # noqa: PLC0415 - slow to import, and not needed by apps without contexts

    cause = current.get()
    message_id = str(uuid4())
    correlation = correlation_id or (cause.correlation_id if cause else message_id)
    return Context(
        message_id=message_id,
        correlation_id=correlation,
        causation_id=cause.message_id if cause else None,
        headers=MappingProxyType(dict(headers)) if headers else NO_HEADERS,
    )
