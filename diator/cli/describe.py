"""Describing an app. Runs no handler and no factory, and works for an app that has problems too."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from diator._inspection import inspect_app, messaging_of
from diator.app import Diator
from diator.cli.arguments import exit_usage_error, short_path
from diator.cli.describe_brokered import subscription_of, wire_of
from diator.cli.description import (
    DependencyDescription,
    Description,
    EventDescription,
    HandlerDescription,
    MiddlewareDescription,
    RequestDescription,
    SubscriptionDescription,
)
from diator.cli.names import Names, type_text
from diator.containers.port import ContainerCapability
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.messaging import Messaging
from diator.engine.check import CheckResult
from diator.engine.event_graph import Requirements
from diator.engine.events import is_brokered
from diator.engine.hints import key_of, result_of, split_annotated
from diator.engine.registrations import HandlerKind, MiddlewareRegistration, Registration
from diator.engine.signature import EMPTY, Parameter
from diator.engine.wiring import Argument, Source, WiredCallable
from diator.errors import ConfigurationError
from diator.messages import DomainEvent, ECSTEvent, Event, Message, NotificationEvent


def describe(app: Diator) -> Description:
    """Describe an app, or end with exit code 2 where it is not clear which messages a handler takes."""
    checked = inspect_app(app)
    if checked.registry.unclear:
        exit_usage_error(f"some handlers do not say which messages they handle: {ConfigurationError(checked.errors)}")
    return _Describer(checked, messaging_of(app)).description()


class _Describer:
    def __init__(self, checked: CheckResult, brokerage: Messaging | None) -> None:
        self._registry = checked.registry
        self._container = checked.container
        self._checked = checked
        self._broker = brokerage.broker if brokerage else None
        self._outbox = brokerage.outbox if brokerage else None
        configs = brokerage.catalog.configs if brokerage else ()
        self._configs: Mapping[Registration, ConsumerConfig] = {one.registration: one for one in configs}
        self._names = Names()
        self._handlers = {record: self._handler(record, wired) for record, wired in checked.handlers.items()}
        self._described = {
            id(wired): self._middleware(middleware, wired) for middleware, wired in checked.middlewares.items()
        }
        self._events = self._event_classes()

    def description(self) -> Description:
        checked, container = self._checked, self._container
        return Description(
            container=type(container).__name__ if container else None,
            broker=type(self._broker).__name__ if self._broker else None,
            store=type(self._outbox.store).__name__ if self._outbox else None,
            commands=self._requests(HandlerKind.COMMAND),
            queries=self._requests(HandlerKind.QUERY),
            events=tuple(self._event(cls) for cls in self._events),
            unresolved_handlers=tuple(
                handler for record, handler in self._handlers.items() if not checked.classes[record]
            ),
            problems=checked.problems,
            names=self._names,
        )

    def _requests(self, kind: HandlerKind) -> tuple[RequestDescription, ...]:
        classes = self._checked.classes
        records = [record for record in self._handlers if record.kind is kind and classes[record]]
        return tuple(self._request(record, classes[record][0]) for record in records)

    def _request(self, record: Registration, cls: type[Message]) -> RequestDescription:
        wired, middlewares = self._checked.handlers[record], self._checked.reach.middlewares_for(cls)
        needs = self._needs(wired, middlewares)
        hint = record.message_hint
        return RequestDescription(
            message=self._names.of_message(hint, cls),
            result=_result(hint),
            streams=wired.streams,
            scope=self._opens_scope(needs),
            required_values=tuple(sorted(map(str, needs.required))),
            middlewares=self._middlewares(middlewares, outer=True),
            handler=self._handlers[record],
        )

    def _needs(self, wired: WiredCallable, middlewares: Iterable[WiredCallable]) -> Requirements:
        following = self._checked.reach.reachable_from(wired.publishes)
        needs = Requirements((wired, *middlewares, *following.handlers, *following.middlewares))
        published = (cls for one in (wired, *following.handlers) for cls in one.publishes)
        if self._outbox is not None and self._checked.reach.can_send(published):
            needs.keys |= {self._outbox.session}
        return needs

    def _opens_scope(self, needs: Requirements) -> bool:
        scoped = self._container is not None and ContainerCapability.SCOPED in self._container.capabilities
        return scoped and bool(needs.keys)

    def _event_classes(self) -> list[type[Event]]:
        """The events of the app: published, declared, or handled under their own name."""
        published = [cls for wired in self._checked.handlers.values() for cls in wired.publishes]
        found = dict.fromkeys((*published, *self._registry.declared_events))
        for record, classes in self._checked.classes.items():
            for cls in classes if record.kind is HandlerKind.EVENT else ():
                stands_for_others = cls not in found and any(issubclass(other, cls) for other in found)
                if issubclass(cls, Event) and not stands_for_others:
                    found[cls] = None
        return list(found)

    def _event(self, cls: type[Event]) -> EventDescription:
        checked, middlewares, records = self._checked, self._checked.reach.middlewares_for(cls), self._handling(cls)
        family = checked.reach.with_subclasses(cls)
        return EventDescription(
            event=self._names.of(cls),
            kind=_kind(cls),
            published_by=tuple(
                self._handlers[record].name for record, wired in checked.handlers.items() if cls in wired.publishes
            ),
            declared=cls in self._registry.declared_events,
            subclasses=tuple(map(self._names.of, self._nearest_subclasses(cls))),
            contract=wire_of(cls),
            middlewares=self._middlewares(middlewares, outer=is_brokered(cls)),
            handlers=tuple(self._handlers[record] for record in records),
            subscriptions=tuple(
                self._subscription(record, middlewares) for record in records if record in self._configs
            ),
            handled=any(map(self._handling, family)),
        )

    def _handling(self, cls: type[Event]) -> list[Registration]:
        classes = self._checked.classes.items()
        return [record for record, own in classes if record.kind is HandlerKind.EVENT and issubclass(cls, own)]

    def _subscription(self, record: Registration, middlewares: Iterable[WiredCallable]) -> SubscriptionDescription:
        needs, config = self._needs(self._checked.handlers[record], middlewares), self._configs[record]
        scope = config.once or self._opens_scope(needs)
        return subscription_of(config, handler=self._handlers[record].name, scope=scope)

    def _nearest_subclasses(self, cls: type[Event]) -> list[type[Event]]:
        below = [other for other in self._events if other is not cls and issubclass(other, cls)]
        return [other for other in below if not any(issubclass(other, mid) for mid in below if mid is not other)]

    def _middlewares(self, middlewares: Iterable[WiredCallable], *, outer: bool) -> tuple[MiddlewareDescription, ...]:
        """Those of a message from the outside in; those of a domain event all run inside the unit of work."""
        found = [self._described[id(middleware)] for middleware in middlewares]
        if not outer:
            return tuple(replace(middleware, position="inside") for middleware in found)
        return tuple(sorted(found, key=lambda middleware: middleware.position == "inside"))

    def _middleware(self, middleware: MiddlewareRegistration, wired: WiredCallable) -> MiddlewareDescription:
        parameters = middleware.signature.parameters[2:]
        dependencies = tuple(self._dependency(p, wired.arguments) for p in parameters)
        return MiddlewareDescription(
            name=self._names.of(middleware.target),
            file=short_path(middleware.location.file),
            line=middleware.location.line,
            position="outside" if wired.is_outer else "inside",
            dependencies=dependencies,
        )

    def _handler(self, record: Registration, wired: WiredCallable) -> HandlerDescription:
        signature = record.signature
        constructor = () if wired.key else signature.constructor
        return HandlerDescription(
            name=self._names.of(record.target),
            file=short_path(record.location.file),
            line=record.location.line,
            call_kind="thread" if wired.thread else wired.call_kind,
            timeout=wired.timeout,
            from_container=wired.key is not None,
            dependencies=(
                *(self._dependency(p, wired.constructor) for p in constructor),
                *(self._dependency(p, wired.arguments) for p in signature.parameters[1:]),
            ),
            publishes=tuple(map(self._names.of, wired.publishes)),
        )

    def _dependency(self, parameter: Parameter, arguments: Iterable[Argument]) -> DependencyDescription:
        argument = next((argument for argument in arguments if argument.name == parameter.name), None)
        source = _source(parameter, argument)
        key = (argument and argument.key) or key_of(parameter.hint, self._container)
        lifetime = self._container.lifetime(key) if self._container and source == "container" else None
        return DependencyDescription(
            parameter=parameter.name,
            type=type_text(split_annotated(parameter.hint)[0]),
            qualifier=None if key.qualifier is None else str(key.qualifier),
            source=source,
            lifetime=lifetime.value if lifetime else None,
        )


_SOURCES: Mapping[Source, str] = {
    Source.CONTAINER: "container",
    Source.SENDER: "sender",
    Source.PUBLISH: "diator",
    Source.CONTEXT: "diator",
    Source.APP: "diator",
}


def _source(parameter: Parameter, argument: Argument | None) -> str:
    if argument is not None and argument.source in _SOURCES:
        return _SOURCES[argument.source]
    return "missing" if parameter.default is EMPTY else "default"


def _kind(cls: type[Event]) -> str:
    if issubclass(cls, DomainEvent):
        return "domain"
    if issubclass(cls, NotificationEvent):
        return "notification"
    return "ecst" if issubclass(cls, ECSTEvent) else "event"


def _result(hint: Any) -> str:
    try:
        return type_text(result_of(hint))
    except NameError:
        return "?"  # a string in Command["..."] that only a type checker can resolve
