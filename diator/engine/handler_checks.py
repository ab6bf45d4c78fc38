"""Which messages a handler takes, and what is wrong with a handler by itself."""

import inspect
from collections.abc import Iterator, Mapping, MutableSequence, MutableSet
from typing import Any, get_args

from diator.engine.arguments import UNSAID, say, spelled_out
from diator.engine.decorator_checks import ADD
from diator.engine.hints import classes_in, format_hint, generic_origin, result_of, union_members
from diator.engine.registrations import DeliveryGuarantee, HandlerKind, Registration
from diator.engine.returns import awaited_type, is_assignable, is_never_awaitable, row_of
from diator.engine.signature import EMPTY, Unresolved, is_wrapped
from diator.errors import Problem
from diator.messages import BROKERED_KINDS, Command, DomainEvent, Event, Message, Query
from diator.options import COUNT, FLAG, NAME, POSITIVE, one_of, option_problems, optional
from diator.retry import RETRY

_KINDS: tuple[tuple[type[Message], str], ...] = ((Command, "a command"), (Query, "a query"), (Event, "an event"))


def unclear(registration: Registration) -> Problem | None:
    """Why it can't be told which messages a handler takes, if so."""
    return _shape(registration) or _message(registration)


def handler_problems(registration: Registration) -> Iterator[Problem]:
    """What is wrong with a handler that is clear, as far as its hints are resolved."""
    yield from _arguments_said(registration)
    yield from _way_of_running(registration)
    yield from _events_readable(registration)
    yield from _consuming_fits(registration, registration.message_types)
    if not isinstance(registration.signature.parameters[0].hint, Unresolved):
        yield from _parameter_fits(registration)
        yield from _result_fits(registration)


def _shape(registration: Registration) -> Problem | None:
    signature = registration.signature
    example = f"{registration.kind.value}: My{registration.kind.value.title()}"
    if not callable(registration.target):
        text = f"{registration.kind.decorator} got {registration.target!r}, which can't be called"
        return registration.problem(
            "invalid-handler", text, "register a function, a class with `handle`, or a bound method"
        )
    if isinstance(registration.target, type) and not callable(getattr(registration.target, "handle", None)):
        fix = f"derive it from {format_hint(registration.kind.base)} if it is meant to be the {registration.kind.value}"
        fix = f"{fix}; a handler needs: async def handle(self, {example})"
        return registration.problem("invalid-handler", f"{registration.title} has no method `handle`", fix)
    if not signature.parameters or signature.parameters[0].keyword:
        text = f"{registration.title} has no positional parameter for the message"
        return registration.problem("message-hint", text, f"make it the first one: ({example}, ...)")
    return None


def _message(registration: Registration) -> Problem | None:
    first = registration.signature.parameters[0]
    classes = registration.message_types
    if classes is None:
        return None  # not resolved yet; the start tries again, and reports it
    kind = registration.kind
    if registration.is_unbound:
        return registration.unbound_problem("invalid-handler", ADD[kind.decorator.removeprefix("@app.")])
    if registration.declared is None and first.hint is EMPTY:
        text = f"{registration.title} takes {first.name!r}, which has no type hint"
        how = f"{first.name}: My{kind.value.title()}"
        if registration.name == "<lambda>":  # which can't have hints
            how = f"{kind.decorator.lstrip('@')}(My{kind.value.title()})(lambda ...)"
        return registration.problem("message-hint", text, f"say which {kind.value} it takes: {how}")
    hint = registration.message_hint
    if len(classes) < len(union_members(hint)):
        source = f"takes {first}" if registration.declared is None else f"is registered for {hint!r}"
        article = "an" if kind is HandlerKind.EVENT else "a"
        text = f"{registration.title} {source}, which is not {article} {kind.value} class"
        return registration.problem("message-hint", text, f"annotate the message: {first.name}: My{kind.value.title()}")
    if len(classes) != 1 and kind is not HandlerKind.EVENT:
        text = f"{registration.title} takes {first}; expected one class of {kind.value}"
        return registration.problem("message-hint", text, "write a handler for each")
    wrong = next((cls for cls in classes if not issubclass(cls, kind.base)), None)
    return _base_or_mixed(registration, classes) if wrong is None else _wrong_kind(registration, wrong, first.name)


def _wrong_kind(registration: Registration, got: type, parameter: str) -> Problem:
    kind = registration.kind
    real = next((name for base, name in _KINDS if issubclass(got, base)), None)
    text = (
        f"{kind.decorator} handler {registration.name} takes {parameter}: {format_hint(got)}, which is "
        f"{real or 'not a message'}"
    )
    decorators = {"a command": "@app.command", "a query": "@app.query", "an event": "@app.on_event"}
    fix = (
        f"use {decorators[real]}"
        if real
        else f"derive {format_hint(got)} from {format_hint(kind.base)}, or annotate the first parameter with one"
    )
    return registration.problem("message-kind", text, fix)


def _base_or_mixed(registration: Registration, classes: tuple[type[Message], ...]) -> Problem | None:
    if registration.kind is not HandlerKind.EVENT:
        if classes[0].__module__ == Message.__module__:
            text = f"{registration.title} takes {format_hint(classes[0])} itself"
            return registration.problem(
                "message-kind", text, f"annotate it with the class of one {registration.kind.value}"
            )
        return None
    in_process = [issubclass(cls, DomainEvent) for cls in classes]
    brokered = [issubclass(cls, BROKERED_KINDS) for cls in classes]
    if (all(in_process) and not any(brokered)) or (all(brokered) and not any(in_process)):
        return None
    names = ", ".join(map(format_hint, classes))
    text = f"{registration.title} takes {names}: domain events run in process, the others come over a broker"
    return registration.problem("message-kind", text, "take only domain events, or only notification and ECST events")


def _arguments_said(registration: Registration) -> Iterator[Problem]:
    """A domain event is handled as the object that it is; one from a broker is read as the hint says."""
    for cls, hint in spelled_out(registration.message_hint).items():
        if issubclass(cls, DomainEvent):
            text = f"{registration.title} takes {format_hint(hint)}, but {UNSAID}"
            yield registration.problem("type-arguments", text, say(hint))


def _way_of_running(registration: Registration) -> Iterator[Problem]:
    signature = registration.signature
    if signature.call_kind == "generator":
        yield registration.problem(
            "invalid-handler",
            f"{registration.title} is a generator function",
            "make it `async def` with `yield`, for app.stream",
        )
    if registration.kind is not HandlerKind.QUERY and signature.is_stream:
        text = f"{registration.title} yields its result in parts, but only a query can be streamed"
        yield registration.problem("invalid-handler", text, "return the result, or make it a query")
    if registration.thread and signature.call_kind != "sync":
        text = f"{registration.title} is an {signature.call_kind} function, but thread=True is for sync functions"
        yield registration.problem("invalid-handler", text, "drop thread=True, or write it with plain `def`")
    if registration.timeout is not None and _blocks(registration):
        text = f"{registration.title} has a timeout, but blocks the event loop, so it can't be interrupted"
        yield registration.problem("invalid-handler", text, "write it with `async def`, or add thread=True")
    if registration.timeout is not None and signature.is_stream:
        yield registration.problem(
            "invalid-handler",
            f"{registration.title} has a timeout, but is streamed",
            "limit the time around the block that reads it",
        )


def _consuming_fits(registration: Registration, classes: tuple[type[Message], ...] | None) -> Iterator[Problem]:
    given = {name: value for name, value in registration.options._asdict().items() if value is not None}
    if not given:
        return
    if classes and not all(issubclass(cls, BROKERED_KINDS) for cls in classes):
        text = f"{registration.title} has {', '.join(given)}, but handles domain events, in process"
        yield registration.problem(
            "subscription-option", text, "drop it, or make the event a NotificationEvent or ECSTEvent"
        )


_OPTIONS = {"timeout": optional(POSITIVE), "thread": FLAG}
_CONSUMING = {
    "subscription": optional(NAME),
    "retry": optional(RETRY),
    "concurrency": optional(COUNT),
    "ordered": optional(FLAG),
    "delivery": optional(one_of(*get_args(DeliveryGuarantee))),
    "once": optional(FLAG),
}


def options_fit(registration: Registration) -> Iterator[Problem]:
    """What is wrong with the options that a handler was registered with."""
    who = registration.title
    given = {"timeout": registration.timeout, "thread": registration.thread}
    yield from option_problems(who, _OPTIONS, given, "invalid-handler", registration.location)
    yield from option_problems(
        who, _CONSUMING, registration.options._asdict(), "subscription-option", registration.location
    )


def _events_readable(registration: Registration) -> Iterator[Problem]:
    if not isinstance(registration.target, type):
        return
    events = getattr(registration.target, "events", None)
    if inspect.isfunction(events):
        text = f"{registration.name}.events is a method; expected a property or an attribute"
        yield registration.problem("invalid-handler", text, "put @property above it")
    elif isinstance(events, (MutableSequence, MutableSet, Mapping)):
        text = f"{registration.name}.events is one object that all messages would share"
        yield registration.problem(
            "shared-events", text, "declare it only, `events: list[MyEvent]`, and set it in __init__"
        )


def _parameter_fits(registration: Registration) -> Iterator[Problem]:
    first = registration.signature.parameters[0]
    accepted = classes_in(first.hint)
    if registration.declared is None or not accepted or first.hint in (EMPTY, Any):
        return
    for cls in classes_in(registration.declared):
        if not issubclass(cls, accepted):
            text = f"{registration.name} is registered for {format_hint(cls)}, but takes {first}"
            yield registration.problem("message-hint", text, f"annotate the first parameter with {format_hint(cls)}")


def _result_fits(registration: Registration) -> Iterator[Problem]:
    signature = registration.signature
    returns = row_of(signature.returns) if signature.is_stream else awaited_type(signature.returns)
    if returns is EMPTY or returns is None:
        return
    expected: Any = type(None)
    if registration.kind is not HandlerKind.EVENT:
        try:
            expected = result_of(registration.message_hint)
        except Exception:  # noqa: BLE001 - a string in Command["..."] is code of the user's: anything may come out
            return  # only a type checker can resolve it
    if not is_assignable(returns, expected):
        yield _wrong_result(registration, format_hint(returns), format_hint(expected))


def _wrong_result(registration: Registration, returned: str, expected: str) -> Problem:
    message, base = format_hint(registration.message_hint), registration.kind.base.__name__
    if registration.kind is HandlerKind.EVENT:
        declared, fix = "an event handler returns None", "annotate it with -> None, and return nothing"
    else:
        declared = f"{message} declares the result {expected}"
        fix = f"return {expected}, or declare the other result: class {message}({base}[{returned}])"
    return registration.problem("return-type", f"{registration.name} returns {returned}, but {declared}", fix)


def _blocks(registration: Registration) -> bool:
    signature = registration.signature
    in_place = signature.call_kind == "sync" and not registration.thread
    return in_place and not is_wrapped(registration.target) and is_never_awaitable(signature.returns)


def same_request(first: type, second: type) -> bool:
    """Whether two classes of requests are one generic class: pydantic makes ``G[X]`` a class of its own."""
    return first is second or generic_origin(first) is second
