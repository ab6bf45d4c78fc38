"""The plans of a running app, looked up by the class of a message, and the errors of a look-up that fails."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from diator.engine.calls import Call
from diator.engine.check import CheckResult
from diator.engine.events import is_brokered
from diator.engine.hints import format_hint, generic_origin
from diator.engine.outbound import EventPublisher, EventSender
from diator.engine.plan import Compiler, Plan
from diator.engine.registrations import HandlerKind, Registration
from diator.engine.resources import ContainerScopes
from diator.engine.wiring import WiredCallable
from diator.errors import HandlerNotFoundError, InvalidMessageError
from diator.messages import Event, Message, Query, Request

if TYPE_CHECKING:
    from diator.engine.wrapping import Wrapping

# Any: handlers of all results meet here.
EventKey = type | frozenset[type]
"""The class of one event, or the classes of several that are published together."""
EventCall = Callable[[tuple[Event, ...]], Coroutine[Any, Any, Any]]


_MAX_EVENT_PLANS = 1_000
"""Classes of events meet in a publish in more ways than are worth keeping."""


class Dispatch:
    """Everything that was compiled for one app."""

    def __init__(
        self,
        checked: CheckResult,
        resources: ContainerScopes,
        app: object,
        sender: EventPublisher | None = None,
        wrapping: "Wrapping | None" = None,
    ) -> None:
        self.resources = resources
        self.plans: dict[type, Plan] = {}
        self.streams: dict[type, Plan] = {}
        self.event_plans: dict[EventKey, Plan] = {}
        self.calls: dict[type, Call] = {}
        """What ``app.send`` looks up: nothing but the call."""
        self.event_calls: dict[EventKey, EventCall] = {}
        self._reach = checked.reach
        self._compiler = Compiler(checked.reach, resources, app, sender, checked.registry.provided, wrapping)
        self._compile(checked)

    def _compile(self, checked: CheckResult) -> None:
        for registration, wired in checked.handlers.items():
            if registration.kind is HandlerKind.EVENT and not any(map(is_brokered, checked.classes[registration])):
                self._compiler.event_handler(registration, wired, checked.classes[registration])
        for registration, wired in checked.handlers.items():
            if registration.kind is not HandlerKind.EVENT:
                for cls in checked.classes[registration]:
                    self._keep(cls, self._compiler.compile_request(registration, wired, cls), wired.streams)

    def _keep(self, cls: type, plan: Plan, streams: bool) -> None:
        if streams:
            self.streams[cls] = plan
        else:
            self.plans[cls] = plan
            self.calls[cls] = plan.call

    def is_outdated(self) -> bool:
        """Whether an app that starts has to be compiled again: events were defined that no plan of it knows."""
        return self._reach.is_outdated()

    def delivered(
        self, registration: Registration, wired: WiredCallable, cls: type[Event], sender: EventSender
    ) -> Call:
        """Compile what a worker calls for a brokered event; it sets the context itself."""
        plan = self._compiler.compile_delivery(registration, wired, cls, sender)
        return plan.wrap(plan.unit)

    def plan_of(self, request: object) -> Plan:
        """Give the plan of a command or query. Raises `InvalidMessageError` or `HandlerNotFoundError`."""
        cls = type(request)
        if cls in self.plans:
            return self.plans[cls]
        _ensure_request(request, "app.send")
        if self._known(self.streams, cls):
            text = (
                f"{format_hint(cls)} is answered row by row; read it: async with "
                f"app.stream({format_hint(cls)}(...)) as rows"
            )
            raise InvalidMessageError(text)
        known = self._known(self.plans, cls)
        if known is None:
            raise self._unknown(cls)
        self._keep(cls, known, streams=False)
        return known

    def stream_of(self, query: object) -> Plan:
        """Give the plan of a streaming query. Raises `InvalidMessageError` or `HandlerNotFoundError`."""
        cls = type(query)
        known = self._known(self.streams, cls)
        if known is not None:
            return known
        _ensure_request(query, "app.stream")
        if self._known(self.plans, cls):
            verb = "query" if issubclass(cls, Query) else "command"
            raise InvalidMessageError(
                f"the {verb} {format_hint(cls)} has one result: await app.send({format_hint(cls)}(...))"
            )
        raise self._unknown(cls)

    def plan_of_events(self, events: tuple[object, ...]) -> Plan:
        """Give the plan of events that are published together. Raises `InvalidMessageError` or `ConfigurationError`."""
        for event in events:
            _ensure_event(event)
        classes: frozenset[type[Any]] = frozenset(map(type, events))
        key: EventKey = next(iter(classes)) if len(classes) == 1 else classes
        if key in self.event_plans:
            return self.event_plans[key]
        plan = self._compiler.compile_publish(classes)
        if len(self.event_plans) < _MAX_EVENT_PLANS:
            self.event_plans[key], self.event_calls[key] = plan, plan.call
        return plan

    @staticmethod
    def _known(plans: dict[type, Plan], cls: type) -> Plan | None:
        """The plan of a class, or of the generic class that pydantic has made ``G[X]`` from."""
        return plans.get(cls) or plans.get(generic_origin(cls) or cls)

    def _unknown(self, cls: type[Any]) -> HandlerNotFoundError:
        from difflib import get_close_matches  # noqa: PLC0415 - slow to import, and needed for an error only

        known = {format_hint(other): other for other in (*self.plans, *self.streams)}
        base = next((other for other in cls.__mro__[1:] if other in known.values()), None)
        if base is not None:
            text = (
                f"{format_hint(cls)} has no handler; its base {format_hint(base)} has one, but requests match "
                f"their exact class"
            )
            return HandlerNotFoundError(f"{text}; register a handler for {format_hint(cls)}")
        decorator = "@app.query" if issubclass(cls, Query) else "@app.command"
        close = get_close_matches(format_hint(cls), known, n=1)
        guess = f"; did you mean {close[0]}?" if close else ""
        text = f"no handler for {format_hint(cls)} of {cls.__module__}{guess}"
        return HandlerNotFoundError(
            f"{text}; register one with {decorator}, or include its router before the app starts"
        )


def _ensure_request(message: object, verb: str) -> None:
    if not isinstance(message, Request):
        fix = "expected a command or a query: an instance of a class that derives from Command[...] or Query[...]"
        raise InvalidMessageError(f"{verb} got {_misplaced(message) or f'{message!r}; {fix}'}")


def _ensure_event(event: object) -> None:
    if not isinstance(event, Event):
        several = isinstance(event, (list, tuple, set, frozenset))
        fix = (
            "expected events; write app.publish(*events)"
            if several
            else "expected events, such as instances of DomainEvent"
        )
        raise InvalidMessageError(f"app.publish got {_misplaced(event) or f'{event!r}; {fix}'}")


def _misplaced(message: object) -> str | None:
    """What is wrong with a class, or with a message of the other kind, and the fix; none for other things."""
    kind: type[object] = type(message)
    if isinstance(message, type) and issubclass(message, Message):
        return f"the class {format_hint(message)}; give it an instance: {format_hint(message)}(...)"
    name = format_hint(kind)
    if isinstance(message, Event):
        return f"the event {name}; publish it: await app.publish({name}(...))"
    return f"the request {name}; send it: await app.send({name}(...))" if isinstance(message, Request) else None
