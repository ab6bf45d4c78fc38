"""Which messages a middleware wraps, and what is wrong with a middleware by itself."""

from collections.abc import Iterator
from typing import Any, cast

from diator.engine.arguments import UNSAID, say, spelled_out
from diator.engine.decorator_checks import ADD
from diator.engine.hints import class_of, format_hint, is_publish, split_annotated, union_members
from diator.engine.registrations import MiddlewareRegistration
from diator.engine.signature import EMPTY, Unresolved
from diator.errors import Problem
from diator.messages import DomainEvent, Message

_WRITE = "write: async def m(message: Message, call_next: CallNext) -> Any"


def is_clear(middleware: MiddlewareRegistration) -> bool:
    """Whether it can be told what a middleware takes."""
    return _shape(middleware) is None and not isinstance(middleware.signature.parameters[0].hint, Unresolved)


def wrapped(middleware: MiddlewareRegistration) -> tuple[Any, ...]:
    """The hints of the messages that a clear middleware wraps; none if its first parameter is not a message."""
    hint = middleware.signature.parameters[0].hint
    if hint is EMPTY or hint is Any or hint is object:
        return (Message,)
    hints = union_members(split_annotated(hint)[0])
    classes = [class_of(one) for one in hints]
    return hints if all(cls is not None and issubclass(cls, Message) for cls in classes) else ()


def middleware_problems(middleware: MiddlewareRegistration) -> Iterator[Problem]:
    """What is wrong with a middleware, as far as its hints are resolved."""
    shape = _shape(middleware)
    if shape is not None:
        yield shape
        return
    if any(is_publish(parameter.hint) for parameter in middleware.signature.parameters):
        text = f"{middleware.title} needs Publish, but a middleware publishes no events"
        yield middleware.problem("middleware", text, "publish from a handler")
    first = middleware.signature.parameters[0]
    if first.name == "call_next" and first.hint is EMPTY:
        text = f"{middleware.title} takes call_next as its first parameter; expected the message"
        yield middleware.problem("middleware", text, _WRITE)
    if isinstance(first.hint, Unresolved):
        return  # reported where it was read
    if not wrapped(middleware):
        text = f"{middleware.title} takes {first} as its first parameter, which is not a message"
        fix = "annotate it with Message, Command[Any], Query[Any], an event or one of your messages"
        yield middleware.problem("middleware", text, fix)
    for cls, hint in spelled_out(first.hint).items():
        if issubclass(cls, DomainEvent):
            text = f"{middleware.title} takes {format_hint(hint)}, but {UNSAID}"
            yield middleware.problem("type-arguments", text, say(hint))


def _shape(middleware: MiddlewareRegistration) -> Problem | None:
    """Why it can't be told what it takes, if so."""
    if isinstance(middleware.target, type):
        name = format_hint(cast("type[object]", middleware.target))
        fix = f"pass an instance: app.add_middleware({name}(...))"
        if issubclass(middleware.target, Message):
            fix = f"write @app.middleware alone, and annotate its first parameter: message: {name}"
        text = f"@app.middleware got the class {name}, but expects a function or an instance that can be called"
        return middleware.problem("middleware", text, fix)
    if middleware.is_unbound:
        return middleware.unbound_problem("middleware", ADD["middleware"])
    positional = [p for p in middleware.signature.parameters if not p.keyword]
    if len(positional) < 2 or not callable(middleware.target):
        return middleware.problem("middleware", f"{middleware.title} does not take a message and call_next", _WRITE)
    if middleware.signature.call_kind != "async":
        text = f"{middleware.title} is {middleware.signature.call_kind}, so it can't await call_next"
        return middleware.problem("middleware", text, "write it with `async def`, and `await call_next(message)`")
    return None
