"""Plans: one callable for each message, compiled when the app starts.

A plan is made of the parts that its message uses, and of no others. From the outside in:

1. the context is set, if anything in reach asks for it;
2. middlewares that ask the container for nothing, linked once;
3. the unit of work, in a scope of the container if anything in reach resolves from it (`ContainerScopes`);
4. middlewares that do ask it for something (`compile_inner`);
5. the handler (`compile_call`), and its domain events, first in first out (`with_events`).

A handler that needs none of this is its own plan: ``send`` then returns the coroutine of the handler itself. One that
only publishes needs no unit of work either, if no handler of its events does (`publish_then_handle`).
"""

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from diator._coroutines import as_coroutine_function
from diator._keys import Key
from diator.context import child_context, current_context
from diator.engine.calls import (
    Call,
    Wrapper,
    awaited_function,
    compile_call,
    compile_direct,
    compile_inner,
    compile_outer,
)
from diator.engine.event_graph import EventGraph, Reachable, Requirements
from diator.engine.events import (
    CompiledHandler,
    DomainEventTable,
    collect_events,
    only_events,
    publish_then_handle,
    suppressed_failure,
    with_events,
)
from diator.engine.immediate import compile_immediate_unit
from diator.engine.outbound import (
    EventPublisher,
    EventSender,
    Take,
    ask_before,
    compile_sending_unit,
    hand_over_after,
    take_brokered,
)
from diator.engine.provided_values import ensure_provided, name_missing_value
from diator.engine.publish import PublishGuard
from diator.engine.registrations import Registration
from diator.engine.resources import ContainerScopes
from diator.engine.unit import NO_VALUES, Delay, UnitCall, UnitOfWork, opening
from diator.engine.wiring import Source, WiredCallable
from diator.messages import DomainEvent, Event, Message
from diator.middleware import TimeoutMiddleware

if TYPE_CHECKING:
    from diator._hook_details import Verb
    from diator.engine.wrapping import Wrapping


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
        self.call: Call = self.bind()
        """What ``app.send`` calls."""

    def bind(
        self,
        provided: Mapping[Key, object] = NO_VALUES,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        *,
        after: Delay | None = None,
    ) -> Call:
        """Give the call that brings these values and sets this context.

        ``after`` delays the events of a plan that publishes some.
        """
        if not self.needs.required <= provided.keys():
            return partial(self.ensure_provided, provided)
        unit = partial(self.unit, provided=provided) if provided and self.work else self.unit
        unit = unit if after is None else partial(unit, after=after)
        call = self.wrap(unit, provided)
        if self.needs.context or headers or correlation_id:
            return partial(_in_context, call, headers, correlation_id)
        return call

    def ensure_provided(self, provided: Mapping[Key, object], message: object, *, streams: bool = False) -> Any:
        """Raise `NotProvidedError` where the sender does not bring what something in reach needs."""
        ensure_provided(self.needs.required - provided.keys(), message, streams=streams)

    def wrap(self, call: Call, provided: Mapping[Key, object] = NO_VALUES) -> Call:
        """Put the middlewares around a unit of work."""
        for link in self.links:
            call = link(call, provided)
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
        self._provided = provided
        self._reach = reach
        self._resources = resources
        self._app = app
        self._table = DomainEventTable(lambda cls, work: self._inside(reach.middlewares_for(cls), work), sender)

    def event_handler(
        self, registration: Registration, wired: WiredCallable, classes: tuple[type[Message], ...]
    ) -> None:
        """Compile a handler of domain events; before every plan that may reach it."""
        direct = None if self._sees_handlers else compile_direct(wired, self._resources.threads)
        self._table.handlers.append(CompiledHandler(classes, self._handler(registration, wired), direct))

    def compile_request(self, registration: Registration, wired: WiredCallable, cls: type[Message]) -> Plan:
        """Compile the plan of a command or query."""
        limit = [] if wired.timeout is None else [self._link(WiredCallable(TimeoutMiddleware(wired.timeout), "async"))]
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
        middlewares = self._reach.middlewares_for(cls)
        inner = [middleware for middleware in middlewares if not middleware.is_outer]
        needs = self._needs((wired, *middlewares, *following.handlers, *following.middlewares))
        links += [self._link(middleware) for middleware in reversed(middlewares) if middleware.is_outer]
        if self._wrapping and not delivered:
            links.append(partial(_wrapped, self._wrapping, "stream" if wired.streams else "send"))
        sends = sender is not None and ((delivered and sender.sees_deliveries) or self._sends(wired, following))
        direct = None if inner or self._sees_handlers or sends else self._without_unit(registration, wired, following)
        if direct:
            return Plan(None, direct, links, needs)
        call = self._call(registration, wired, delivered=delivered)
        if sender is not None and sends:
            call = hand_over_after(call, sender)
        work = self._inside(inner, opening(call) if wired.streams else call)
        work = self._naming_missing_value(work, needs)
        if delivered and inner:
            work = _reraise_suppressed(work)
        if sender is not None and sends:
            return self._sending_plan(work, links, needs, sender)
        unit = (
            None if inner or self._sees_handlers or self._provided else compile_immediate_unit(wired, self._resources)
        )
        return Plan(work, unit or self._resources.unit(work, bool(needs.keys)), links, needs)

    def _without_unit(self, registration: Registration, wired: WiredCallable, following: Reachable) -> Call | None:
        """Compile the plan of a handler that needs no unit of work; none for others."""
        threads = self._resources.threads
        only_publishes = [argument.source for argument in wired.arguments] == [Source.PUBLISH]
        if not only_publishes or isinstance(wired.target, type) or wired.streams:
            return compile_direct(wired, threads)
        stays = not following.middlewares and all(issubclass(cls, DomainEvent) for cls in wired.publishes)
        if not stays or not all(compile_direct(handler, threads) for handler in following.handlers):
            return None
        guard = PublishGuard(registration, wired.publishes, self._table, self._collected, without_unit=True)
        return publish_then_handle(awaited_function(wired, threads), guard, self._table)

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
        needs = self._needs((*following.handlers, *following.middlewares))
        around = (partial(_wrapped, self._wrapping, "publish"),) if self._wrapping else ()
        published = [*classes, *(cls for handler in following.handlers for cls in handler.publishes)]
        if not any(self._table.steps.get(cls, ((), True))[1] for cls in classes):
            return Plan(None, only_events(self._table), around, needs)
        if self._sender is not None and self._sender.begin is not None and self._table.brokered.issuperset(classes):
            return self._storing_plan(needs, self._sender, around)
        work = self._naming_missing_value(with_events(collect_events(self._table), self._table.steps), needs)
        if self._sender is not None and self._reach.can_send(published):
            work = hand_over_after(work, self._sender)
            return self._sending_plan(work, around, needs, self._sender, self._take(self._sender))
        return Plan(work, self._resources.unit(work, bool(needs.keys)), around, needs)

    def _storing_plan(self, needs: Requirements, sender: EventPublisher, around: Iterable[Wrapper]) -> Plan:
        """Compile the plan of events that all go to a store, which has a transaction of its own for them."""
        needs.context = True

        async def run(_events: Any, *rest: Any) -> None:
            await sender.hand_over(rest[-1])  # the unit of work

        return Plan(run, compile_sending_unit(run, sender, self._resources, self._take(sender)), around, needs)

    def _take(self, sender: EventPublisher) -> Take:
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

    def _call(self, registration: Registration, wired: WiredCallable, *, delivered: bool) -> UnitCall:
        call = self._handler(registration, wired, delivered=delivered)
        return with_events(call, self._table.steps) if wired.publishes_events else call

    def _handler(self, registration: Registration, wired: WiredCallable, *, delivered: bool = False) -> UnitCall:
        rule = None
        if wired.publishes_events:
            rule = PublishGuard(registration, wired.publishes, self._table, self._collected)
        work = compile_call(wired, rule, self._app, self._resources.threads, self._resources.immediate)
        if self._wrapping and not delivered:  # of a delivery the worker wraps the whole
            work = self._wrapping.handler(registration, work, streams=wired.streams)
        return work

    def _naming_missing_value(self, work: UnitCall, needs: Requirements) -> UnitCall:
        return name_missing_value(work, self._provided) if self._provided and needs.keys else work

    def _inside(self, middlewares: Iterable[WiredCallable], work: UnitCall) -> UnitCall:
        for middleware in reversed(tuple(middlewares)):
            work = compile_inner(middleware, work, self._app, self._resources.singleton, self._resources.immediate)
        return work

    def _link(self, middleware: WiredCallable) -> Wrapper:
        return compile_outer(middleware, self._app, self._resources.singleton)


def _wrapped(wrapping: "Wrapping", verb: "Verb", call: Call, _: Mapping[Key, object]) -> Call:
    return wrapping.sent(call, verb)


def _reraise_suppressed(work: UnitCall) -> UnitCall:
    """Fail where a middleware of events has put a result in the place of an error: who delivers must know of it."""

    async def unforgiving(event: Event, unit: UnitOfWork) -> Any:
        result = await work(event, unit)
        if unit.failure is not None:
            raise suppressed_failure(event, unit.failure)
        return result

    return unforgiving


async def _in_context(call: Call, headers: Mapping[str, str] | None, correlation_id: str | None, message: Any) -> Any:
    token = current_context.set(child_context(headers, correlation_id))
    try:
        return await call(message)
    finally:
        current_context.reset(token)
