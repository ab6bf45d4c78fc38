"""Plans: one callable for each message, compiled when the app starts.

A plan is made of the parts that its message uses, and of no others. From the outside in:

1. the context is set, if anything in reach asks for it;
2. middlewares that ask the container for nothing, linked once;
3. the unit of work, in a scope of the container if anything in reach resolves from it (`Resources`);
4. middlewares that do ask it for something (`compile_layer`);
5. the handler (`compile_call`), and its domain events, first in first out (`_with_events`).

A handler that needs none of this is its own plan: ``send`` then returns the coroutine of the handler itself.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from diator._coroutines import as_coroutine_function, marked
from diator._keys import Key
from diator.context import child_context, current_context
from diator.engine.calls import awaited_function, compile_call, compile_direct, compile_layer, compile_outer
from diator.engine.event_graph import EventGraph, Reachable, Requirements
from diator.engine.events import CompiledHandler, DomainEventTable, Plain, PublishGuard
from diator.engine.immediate import compile_immediate_unit
from diator.engine.outbound import (
    EventPublisher,
    EventSender,
    SendingUnit,
    Take,
    ask_before,
    compile_sending_unit,
    hand_over_after,
    take_brokered,
)
from diator.engine.provided_values import name_missing_value
from diator.engine.registrations import Registration
from diator.engine.resources import ContainerScopes
from diator.engine.unit import CLOSED, NO_VALUES, Delay, PublishBuffer, UnitCall, UnitOfWork, opening
from diator.engine.wiring import Source, WiredCallable
from diator.errors import DiatorError, NotProvidedError
from diator.messages import Event, Message
from diator.middleware import TimeoutMiddleware

if TYPE_CHECKING:
    from diator._hook_details import Verb
    from diator.engine.wrapping import Wrapping

# Any: handlers of all signatures and results meet here.
Call = Callable[[Any], Coroutine[Any, Any, Any]]
Wrapper = Callable[[Call, Mapping[Key, object]], Call]
"""Puts something around a call, for a sender that provides these values."""


class Plan:
    """Everything around the handling of one class of messages."""

    __slots__ = ("call", "links", "needs", "unit", "work")

    def __init__(
        self,
        work: UnitCall | None,
        unit: Callable[..., Coroutine[Any, Any, Any]],
        links: Iterable[Wrapper],
        needs: Requirements,
    ) -> None:
        self.work = work
        """What runs inside the unit of work; none for a plan that has no such thing."""
        self.links = tuple(links)
        self.unit = as_coroutine_function(unit) if self.links else unit  # a middleware gets it as its call_next
        self.needs = needs
        self.call: Call = self.bind(specialise=True)
        """What ``app.send`` calls."""

    def bind(
        self,
        provided: Mapping[Key, object] = NO_VALUES,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        *,
        after: Delay | None = None,
        specialise: bool = False,
    ) -> Call:
        """Give the call that brings these values and sets this context; ``specialise`` one that is used often.

        ``after`` delays the events of a plan that publishes some.
        """
        if not self.needs.required <= provided.keys():
            return partial(self.refuse_missing, provided)
        unit = partial(self.unit, provided=provided) if provided and self.work else self.unit
        unit = unit if after is None else partial(unit, after=after)
        call = self.wrap(unit, provided, specialise=specialise)
        if self.needs.context or headers or correlation_id:
            return partial(_in_context, call, headers, correlation_id)
        return call

    def refuse_missing(self, provided: Mapping[Key, object], message: object, *, streams: bool = False) -> Any:
        """Raise `NotProvidedError` where the sender does not bring what something in reach needs."""
        missing = sorted(map(str, self.needs.required - provided.keys()))
        if missing:
            values = ", ".join(f"{key}: ..." for key in missing)
            name, how = _sent(message, f"app.using(provide={{{values}}})", streams=streams)
            raise NotProvidedError(f"{name} needs {', '.join(missing)} from its sender: {how}")

    def wrap(self, call: Call, provided: Mapping[Key, object] = NO_VALUES, *, specialise: bool = False) -> Call:
        """Put the middlewares around a unit of work.

        The interpreter keeps what it learns about a call with the code, and links that share their code call different
        functions from one place. With code of their own, three middlewares take a tenth less time.
        """
        for link in self.links:
            call = link(call, provided)
            if specialise and isinstance(call, FunctionType):
                call.__code__ = call.__code__.replace()
        return call


class Compiler:
    """Compiles the plans of one app."""

    def __init__(
        self,
        reach: EventGraph,
        resources: ContainerScopes,
        app: object,
        sender: EventPublisher | None = None,
        provided: Collection[Key] = (),
        wrapping: "Wrapping | None" = None,
    ) -> None:
        self._wrapping = wrapping
        self._collected = wrapping.collected if wrapping and wrapping.collects else None
        self._sender = sender
        self._brought = provided
        self._reach = reach
        self._resources = resources
        self._app = app
        self._table = DomainEventTable(self._around_event, sender)

    def event_handler(
        self, registration: Registration, wired: WiredCallable, classes: tuple[type[Message], ...]
    ) -> None:
        """Compile a handler of domain events; before every plan that may reach it."""
        rule = self._rule(registration, wired, plain=False) if wired.publishes_events else None
        plain = None if self._sees_handlers else compile_direct(wired, self._resources.threads)
        self._table.steps.append(CompiledHandler(classes, self._handler(registration, wired, rule), plain))

    def compile_request(self, registration: Registration, wired: WiredCallable, cls: type[Message]) -> Plan:
        """Compile the plan of a command or query."""
        limit = [] if wired.timeout is None else [_linked(TimeoutMiddleware(wired.timeout))]
        return self._around_handler(registration, wired, cls, limit, self._sender)

    def compile_delivery(
        self, registration: Registration, wired: WiredCallable, cls: type[Event], sender: EventSender
    ) -> Plan:
        """Compile the plan of a brokered event for one of its handlers; the worker limits its time."""
        return self._around_handler(registration, wired, cls, [], sender, delivered=True)

    def _around_handler(
        self,
        registration: Registration,
        wired: WiredCallable,
        cls: type[Message],
        links: list[Wrapper],
        sender: EventSender | None,
        *,
        delivered: bool = False,
    ) -> Plan:
        following = self._reach.reachable_from(wired.publishes)
        layers = self._reach.middlewares_for(cls)
        inner = [layer for layer in layers if not layer.is_outer]
        needs = self._needs((wired, *layers, *following.handlers, *following.layers))
        links += [self._link(layer) for layer in reversed(layers) if layer.is_outer]
        if self._wrapping and not delivered:
            links.append(partial(_wrapped, self._wrapping, "stream" if wired.streams else "send"))
        begins = delivered and sender is not None and sender.begin is not None
        sends = sender is not None and (begins or self._sends(wired, following))
        direct = None if inner or self._sees_handlers or sends else self._direct(registration, wired, following)
        if direct:
            return Plan(None, direct, links, needs)
        call = self._call(registration, wired, delivered=delivered)
        if sender is not None and sends:
            call = hand_over_after(call, sender)
        work = self._inside(inner, opening(call) if wired.streams else call)
        work = self._telling(work, needs)
        if delivered and inner:
            work = _reraise_suppressed(work)
        if sender is not None and sends:
            return self._sending_plan(work, links, needs, sender)
        only_resolves = None if inner or self._sees_handlers or self._brought else self._only_resolving(wired)
        return Plan(work, only_resolves or self._resources.unit(work, bool(needs.keys)), links, needs)

    def _only_resolving(self, wired: WiredCallable) -> Call | None:
        function = awaited_function(wired, self._resources.threads)
        return compile_immediate_unit(wired, function, self._resources)

    def _sends(self, wired: WiredCallable, following: Reachable) -> bool:
        """Whether brokered events may leave because of a handler; `Event` itself means any."""
        return self._reach.can_send(cls for member in (wired, *following.handlers) for cls in member.publishes)

    def _sending_plan(
        self,
        work: UnitCall,
        links: Iterable[Wrapper],
        needs: Requirements,
        sender: EventSender,
        take: Take | None = None,
    ) -> Plan:
        needs.context = True  # an outbound event names what caused it
        needs.keys |= frozenset(sender.keys)
        if sender.begin is not None:
            work = ask_before(work, sender.begin)
        run = self._resources.unit(work, bool(needs.keys))
        return Plan(work, compile_sending_unit(run, sender, self._resources, take), links, needs)

    def compile_publish(self, classes: Iterable[type[Event]]) -> Plan:
        """Compile the plan of events that no command raised. It is called with all of them.

        Raises `ConfigurationError` for events that need a broker.
        """
        classes = tuple(classes)
        for cls in classes:
            self._table.prepare(cls)
        following = self._reach.reachable_from(classes)
        needs = self._needs((*following.handlers, *following.layers))
        around = (partial(_wrapped, self._wrapping, "publish"),) if self._wrapping else ()
        published = [*classes, *(cls for handler in following.handlers for cls in handler.publishes)]
        if self._sender is not None and self._table.brokered.issuperset(classes) and not self._sender.keys:
            return self._leaving_plan(needs, self._sender, around)
        if self._sender is not None and self._reach.can_send(published):
            work = hand_over_after(self._telling(_all_events(self._table.work), needs), self._sender)
            return self._sending_plan(work, around, needs, self._sender, self._taking(self._sender))
        if all(cls in self._table.plain for cls in classes):
            return Plan(None, _plain_events(self._table.plain), around, needs)
        work = self._telling(_all_events(self._table.work), needs)
        return Plan(work, self._resources.unit(work, bool(needs.keys)), around, needs)

    def _leaving_plan(self, needs: Requirements, sender: EventPublisher, around: Iterable[Wrapper]) -> Plan:
        """Compile the plan of events that all leave: their unit has nothing to do but to hand them over."""
        needs.context = True

        def run(_events: Any, _provided: Any, unit: SendingUnit) -> Coroutine[Any, Any, None]:
            return sender.hand_over(unit)

        take = self._wrapping.taking(sender.collect_published) if self._wrapping else sender.collect_published
        return Plan(None, compile_sending_unit(run, sender, self._resources, take), around, needs)

    def _taking(self, sender: EventPublisher) -> Take:
        take = take_brokered(self._table.brokered, sender)
        return self._wrapping.taking(take) if self._wrapping else take

    def _needs(self, wired: Iterable[WiredCallable]) -> Requirements:
        needs = Requirements(wired)
        needs.context = needs.context or (self._wrapping is not None and self._wrapping.needs_context)
        return needs

    @property
    def _sees_handlers(self) -> bool:
        """Whether something goes around each handler, so that none can be called directly."""
        return self._wrapping is not None and self._wrapping.handles

    def _direct(self, registration: Registration, wired: WiredCallable, following: Reachable) -> Plain | None:
        """A plan that needs no unit of work; none where one is needed."""
        if not wired.publishes_events:
            return compile_direct(wired, self._resources.threads)
        only_publishes = [argument.source for argument in wired.arguments] == [Source.PUBLISH]
        is_function = not isinstance(wired.target, type) and wired.call_kind == "async"
        handlers_are_plain = not following.layers and all(
            compile_direct(handler, self._resources.threads) for handler in following.handlers
        )
        if only_publishes and is_function and handlers_are_plain and not wired.arguments[0].keyword:
            rule = self._rule(registration, wired, plain=True)
            return _publishing(wired.target, rule, self._table.plain)
        return None

    def _call(self, registration: Registration, wired: WiredCallable, *, delivered: bool) -> UnitCall:
        if not wired.publishes_events:
            return self._handler(registration, wired, None, delivered=delivered)
        rule = self._rule(registration, wired, plain=False)
        return _with_events(self._handler(registration, wired, rule, delivered=delivered), self._table.work)

    def _handler(
        self, registration: Registration, wired: WiredCallable, rule: PublishGuard | None, *, delivered: bool = False
    ) -> UnitCall:
        work = compile_call(wired, rule, self._app, self._resources.threads, self._resources.immediate)
        if self._wrapping and not delivered:  # of a delivery the worker wraps the whole
            work = self._wrapping.handler(registration, work, streams=wired.streams)
        return work

    def _rule(self, registration: Registration, wired: WiredCallable, *, plain: bool) -> PublishGuard:
        return PublishGuard(registration, wired.publishes, self._table, plain, self._collected)

    def _telling(self, work: UnitCall, needs: Requirements) -> UnitCall:
        return name_missing_value(work, self._brought) if self._brought and needs.keys else work

    def _inside(self, layers: Iterable[WiredCallable], work: UnitCall) -> UnitCall:
        for layer in reversed(tuple(layers)):
            work = compile_layer(layer, work, self._app, self._resources.singleton, self._resources.immediate)
        return work

    def _link(self, layer: WiredCallable) -> Wrapper:
        if not layer.arguments:
            return _linked(layer.target)
        app, singleton = self._app, self._resources.singleton
        return lambda call, provided: compile_outer(layer, app, singleton, call, provided)

    def _around_event(self, cls: type[Event], work: UnitCall) -> UnitCall:
        return self._inside(self._reach.middlewares_for(cls), work)


def _sent(message: Any, sender: str, *, streams: bool) -> tuple[str, str]:
    """The name of what is sent or, from ``publish``, of the events, and how to send it."""
    if streams:
        return type(message).__qualname__, f"async with {sender}.stream(...) as rows"
    if isinstance(message, Message):
        return type(message).__qualname__, f"await {sender}.send(...)"
    names = dict.fromkeys(type(event).__qualname__ for event in message)
    return ", ".join(names), f"await {sender}.publish(...)"


def _linked(target: Callable[..., Coroutine[Any, Any, Any]]) -> Wrapper:
    # The method itself: calling the object looks up __call__ each time.
    plain = hasattr(target, "__code__") or hasattr(target, "__func__")
    function: Callable[..., Coroutine[Any, Any, Any]] = target if plain else target.__call__  # type: ignore[operator]
    return lambda call, _: marked(lambda message: function(message, call))


def _wrapped(wrapping: "Wrapping", verb: "Verb", call: Call, _: Mapping[Key, object]) -> Call:
    return wrapping.sent(call, verb)


def _publishing(
    handler: Callable[..., Coroutine[Any, Any, Any]], rule: PublishGuard, steps: Mapping[type, tuple[Plain, ...]]
) -> Plain:
    """The plan of a handler that asks for `Publish` alone, and whose event handlers need nothing but the event."""
    publish = rule.publish

    async def plan(message: Any) -> Any:
        events = PublishBuffer()
        events.allowed = rule.allowed
        try:
            result = await handler(message, MethodType(publish, events))
        finally:
            events.allowed = CLOSED
        for event in events:
            for step in steps[type(event)]:
                await step(event)
        return result

    return plan


def _with_events(call: UnitCall, steps: Mapping[type, tuple[UnitCall, ...]]) -> UnitCall:
    async def work(message: Any, unit: UnitOfWork) -> Any:
        result = await call(message, unit)
        if unit.events:
            await _handle_events(unit, steps)
        return result

    return work


async def _handle_events(unit: UnitOfWork, steps: Mapping[type, tuple[UnitCall, ...]]) -> None:
    for event in unit.events:  # the list grows: what these handlers publish joins its end
        for step in steps[type(event)]:
            await step(event, unit)
            if unit.failure is not None:  # a middleware of events can't undo that one has failed
                raise _suppressed_failure(event, unit.failure)


def _reraise_suppressed(work: UnitCall) -> UnitCall:
    """Fail where a middleware of events has put a result in the place of an error: who delivers must know of it."""

    async def unforgiving(event: Event, unit: UnitOfWork) -> Any:
        result = await work(event, unit)
        if unit.failure is not None:
            raise _suppressed_failure(event, unit.failure)
        return result

    return unforgiving


def _suppressed_failure(event: Event, failure: BaseException) -> BaseException:
    if not issubclass(type(failure), asyncio.CancelledError):
        return failure
    # Raised again it would pass for a cancellation of the caller's task, which was never requested.
    text = f"a handler of {type(event).__qualname__} was cancelled, and a middleware of events went on without it"
    error = DiatorError(f"{text}; what fails inside a unit of work fails it as a whole")
    error.__cause__ = failure
    return error


def _all_events(steps: Mapping[type, tuple[UnitCall, ...]]) -> UnitCall:
    async def work(events: Iterable[Event], unit: UnitOfWork) -> None:
        unit.events.extend(event for event in events if type(event) in steps)  # the others leave over the broker
        await _handle_events(unit, steps)

    return work


def _plain_events(steps: Mapping[type, tuple[Plain, ...]]) -> Callable[[Iterable[Event]], Coroutine[Any, Any, None]]:
    async def plan(events: Iterable[Event]) -> None:
        for event in events:
            for step in steps[type(event)]:
                await step(event)

    return plan


async def _in_context(call: Call, headers: Mapping[str, str] | None, correlation_id: str | None, message: Any) -> Any:
    token = current_context.set(child_context(headers, correlation_id))
    try:
        return await call(message)
    finally:
        current_context.reset(token)
