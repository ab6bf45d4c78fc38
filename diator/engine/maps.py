"""Read-only views of the registrations, for the engine and for tools."""

from collections.abc import Iterable, Iterator, Mapping

from diator.engine.registrations import Registration
from diator.messages import Event, Request


class RequestMap(Mapping[type[Request[object]], Registration]):
    """The handler of each command and query."""

    def __init__(self, handlers: Mapping[type[Request[object]], Registration]) -> None:
        self._handlers = handlers

    def __getitem__(self, request: type[Request[object]]) -> Registration:
        return self._handlers[request]

    def __iter__(self) -> Iterator[type[Request[object]]]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)

    def __repr__(self) -> str:
        return f"RequestMap({dict(self._handlers)!r})"


class EventMap(Mapping[type[Event], tuple[Registration, ...]]):
    """The handlers of each event, in the order of registration, including those of its base classes.

    Iterating returns the classes that handlers name; ``events[SomeEvent]`` also works for their subclasses.
    """

    def __init__(self, handlers: Iterable[tuple[Registration, tuple[type[Event], ...]]]) -> None:
        self._handlers = tuple(handlers)

    def __getitem__(self, event: type[Event]) -> tuple[Registration, ...]:
        is_class = isinstance(event, type)  # pyright: ignore[reportUnnecessaryIsInstance]  # `in` takes anything
        found = tuple(handler for handler, classes in self._handlers if is_class and issubclass(event, classes))
        if not found:
            raise KeyError(event)
        return found

    def __iter__(self) -> Iterator[type[Event]]:
        return iter(dict.fromkeys(cls for _, classes in self._handlers for cls in classes))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"EventMap({dict(self)!r})"
