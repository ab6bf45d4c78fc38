"""Every public option, given something of a wrong type or out of its range, is refused at the call with its name.

Signatures are read, so that an option that is added without a rule here fails these tests.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import pytest
from diator_azure_servicebus import ServiceBusBroker
from diator_redis import RedisBroker, RedisPubSubBroker
from hypothesis import given, settings, strategies

import diator
from diator import (
    Command,
    ConfigurationError,
    Diator,
    Hooks,
    InvalidMessageError,
    LoggingMiddleware,
    NotificationEvent,
    Query,
    Retry,
    Router,
    TimeoutMiddleware,
    contract,
)
from diator.brokers import MemoryBroker
from diator.testing import Session

NAN, INFINITE = float("nan"), float("inf")
TEXTS = ["", "3", "long"]
THINGS: list[object] = [None, [], {}, object(), 1j, b"1", Retry]
NO_NUMBERS: list[object] = [True, False, *TEXTS, *THINGS]
NO_SECONDS: list[object] = [-1, -0.5, NAN, INFINITE, -INFINITE, 10**400, 1e300, *NO_NUMBERS]
NO_COUNTS: list[object] = [0, -1, 1.0, 2.5, NAN, INFINITE, *NO_NUMBERS]
UNREADABLE: list[object] = ["\ud800", "a\nb", "\x00", "\x7f"]
NO_TEXTS: list[object] = [5, 1.5, True, [], object(), b"a"]
NO_NAMES: list[object] = ["", "a b", "a\tb", *UNREADABLE, *NO_TEXTS]
NO_FLAGS: list[object] = [0, 1, 1.0, *TEXTS, *THINGS]


def without_none(values: list[object]) -> list[object]:
    return [value for value in values if value is not None]


SECONDS, POSITIVE = NO_SECONDS, [0, 0.0, *NO_SECONDS]
OPTIONAL_SECONDS, OPTIONAL_COUNT = without_none(POSITIVE), without_none(NO_COUNTS)
POLICIES: list[object] = [5, True, "5", Retry, {}, object()]
DELIVERIES: list[object] = ["twice", "", 1, True, []]


@dataclass(frozen=True)
class Join(Command[None]):
    name: str = ""


@dataclass(frozen=True)
class Joined(NotificationEvent):
    name: str = ""


@dataclass(frozen=True)
class Find(Query[int]): ...


async def join(command: Join) -> None: ...


async def find(query: Find) -> int:
    return 1


async def greet(event: Joined) -> None: ...


async def around(message: Join, call_next: Any) -> None: ...


class AsyncHooks(Hooks):
    async def handled(self, details: object, /) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # odd on purpose
        ...


def brokered() -> Diator:
    return Diator("shop", broker="memory://")


async def a_worker(**options: Any) -> None:
    async with brokered() as app:
        app.worker(**options)


async def settling(**options: Any) -> None:
    async with brokered().testing() as session:
        await session.settled(**options)


async def publishing(**options: Any) -> None:
    app = brokered()
    app.publishes(Joined)
    async with app:
        await app.publish(Joined(), **options)


def registering(add: Callable[..., None], handler: Any) -> Callable[..., None]:
    """Register a handler; what is wrong with it is told at the start, with all else."""

    def make(**options: Any) -> None:
        app = Diator("shop", broker="memory://")
        add(app, handler, **options)
        problems = app.check()
        if problems:
            raise ConfigurationError(problems)

    return make


def calling(make: Callable[..., Any], **always: Any) -> Callable[..., Any]:
    """Call something with options, and with what it needs besides."""

    def call(**options: Any) -> Any:
        return make(**{**always, **options})

    return call


def including(**options: Any) -> None:
    Router().include(Router(), **options)


def adding_a_middleware(**options: Any) -> None:
    Router().add_middleware(around, **options)


def session_of(**options: Any) -> Session:
    return brokered().testing(**options)


def using(**options: Any) -> object:
    return brokered().using(**options)


def using_session(**options: Any) -> object:
    return brokered().testing().using(**options)


def signing(**options: Any) -> object:
    return contract("shop.joined", **options)(Joined)


async def no_lifespan(app: Diator) -> AsyncIterator[None]:
    yield


HANDLERS: dict[str, list[object]] = {"timeout": OPTIONAL_SECONDS, "thread": NO_FLAGS}
WRONG: Mapping[str, tuple[Any, Callable[..., Any], Mapping[str, list[object]]]] = {
    "Diator": (
        Diator,
        Diator,
        {
            "name": NO_NAMES,
            "container": [5, "punq", object()],
            "broker": [5, "", "nothing", object()],
            "retry": POLICIES,
            "concurrency": NO_COUNTS,
            "event_timeout": POSITIVE,
            "max_deliveries": NO_COUNTS,
            "publish_timeout": POSITIVE,
            "hooks": [3, True, None, [3], [Hooks], Hooks(), [AsyncHooks()], "hooks"],
            "store": [5, "sqlite", object()],
            "relay": NO_FLAGS,
            "lifespan": [5, "x", (), no_lifespan],
        },
    ),
    "Diator with a broker": (
        Diator,
        calling(Diator, name="shop", broker="memory://"),
        {
            "name": NO_NAMES,
            "container": [5],
            "broker": [5],
            "retry": POLICIES,
            "concurrency": NO_COUNTS,
            "event_timeout": POSITIVE,
            "max_deliveries": NO_COUNTS,
            "publish_timeout": POSITIVE,
            "hooks": [3, [Hooks]],
            "store": [5],
            "relay": NO_FLAGS,
            "lifespan": [5, "x", (), no_lifespan],
        },
    ),
    "Retry": (
        Retry,
        Retry,
        {
            "attempts": NO_COUNTS,
            "delay": NO_SECONDS,
            "factor": [0, 0.5, *(value for value in NO_SECONDS if value not in (10**400, 1e300))],
            "max_delay": NO_SECONDS,
            "jitter": [1.5, 2, *NO_SECONDS],
            "never": [5, ValueError, (3,), (ValueError(),), "ValueError", None],
        },
    ),
    "worker": (
        Diator.worker,
        a_worker,
        {
            "subscriptions": [5, True, [5], object()],
            "concurrency": OPTIONAL_COUNT,
            "grace": SECONDS,
        },
    ),
    "testing": (
        Diator.testing,
        session_of,
        {
            "broker": [],
            "container": [],
            "replace": [5, "x", [1]],
            "delays": NO_FLAGS,
            "faults": [5, "x", True],
            "store": [5, "drop"],
        },
    ),
    "readiness": (
        Diator.readiness,
        calling(Diator().readiness),
        {"check": [], "name": without_none(NO_NAMES), "pauses": NO_FLAGS},
    ),
    "using": (
        Diator.using,
        using,
        {
            "provide": [5, "x", [1]],
            "headers": [5, "x", [1], {"a": 5}, {5: "a"}, {"": "a"}, {"a": "\ud800"}, {"a\n": "b"}, {"a": "b\x00"}],
            "correlation_id": ["", "x" * 1001, *UNREADABLE, *NO_TEXTS],
        },
    ),
    "Session.using": (
        Session.using,
        using_session,
        {"provide": [5], "headers": [5, {"a": 5}], "correlation_id": [5, "", "\ud800"]},
    ),
    "add_middleware": (
        Router.add_middleware,
        adding_a_middleware,
        {"inside": NO_FLAGS},
    ),
    "publish": (Diator.publish, publishing, {"after": without_none([*SECONDS, timedelta(seconds=-1)])}),
    "settled": (Session.settled, settling, {"timeout": SECONDS, "allow_failures": NO_FLAGS}),
    "add_command": (Router.add_command, registering(Router.add_command, join), HANDLERS),
    "add_query": (
        Router.add_query,
        registering(Router.add_query, find),
        HANDLERS,
    ),
    "add_event_handler": (
        Router.add_event_handler,
        registering(Router.add_event_handler, greet),
        {
            **HANDLERS,
            "subscription": without_none(NO_NAMES),
            "retry": POLICIES,
            "concurrency": OPTIONAL_COUNT,
            "ordered": without_none(NO_FLAGS),
            "delivery": DELIVERIES,
            "once": without_none(NO_FLAGS),
        },
    ),
    "include": (
        Router.include,
        including,
        {"prefix": without_none(["a b", "\n", *UNREADABLE, *NO_TEXTS])},
    ),
    "contract": (
        contract,
        signing,
        {
            "version": NO_COUNTS,
            "key": [5, True, "age"],
            "aliases": [5, "x", [5], [""], ["a b"]],
            "topic": [5, "", "a b"],
        },
    ),
    "LoggingMiddleware": (
        LoggingMiddleware,
        LoggingMiddleware,
        {
            "logger": ["diator", 5, logging],
            "level": [True, "INFO", 1.5, None],
            "payload": NO_FLAGS,
            "expected": [None, "x", int, [ValueError], (5,)],
        },
    ),
    "TimeoutMiddleware": (TimeoutMiddleware, TimeoutMiddleware, {"seconds": POSITIVE}),
    "MemoryBroker": (
        MemoryBroker,
        MemoryBroker,
        {"capacity": NO_COUNTS, "lease": POSITIVE, "duplicate_window": SECONDS},
    ),
    "RedisBroker": (
        RedisBroker,
        RedisBroker,
        {
            "url_or_client": [5, None, object(), "", "http://localhost", "redis:/host", "redis://host/abc"],
            "prefix": [*UNREADABLE, *NO_TEXTS],
            "lease": POSITIVE,
            "max_length": OPTIONAL_COUNT,
            "max_age": OPTIONAL_SECONDS,
            "abandoned_after": POSITIVE,
            "timeout": POSITIVE,
        },
    ),
    "RedisPubSubBroker": (
        RedisPubSubBroker,
        RedisPubSubBroker,
        {
            "url_or_client": [5, None, object(), "", "http://localhost", "redis:/host", "redis://host/abc"],
            "prefix": [*UNREADABLE, *NO_TEXTS],
            "wire": ["old", "", 5, None, []],
            "channel_prefix": [*UNREADABLE, *NO_TEXTS],
            "timeout": POSITIVE,
        },
    ),
    "ServiceBusBroker": (
        ServiceBusBroker,
        calling(ServiceBusBroker, namespace="shop"),
        {
            "namespace": [5, None, "", "a b", "a/b", "a:1", "user@shop"],
            "layout": ["stars", "", 5, None, []],
            "prefix": [*UNREADABLE, *NO_TEXTS],
            "lease": [301, *POSITIVE],
            "sessions": NO_FLAGS,
            "max_sessions": NO_COUNTS,
            "max_session_hold": SECONDS,
            "duplicate_window": SECONDS,
            "max_message_bytes": [1, 65_535, *NO_COUNTS],
            "manage": NO_FLAGS,
        },
    ),
}
FREE = {
    ("ServiceBusBroker", "credential"): "any object that the SDK takes for one",
    ("ServiceBusBroker", "topology"): "a port, for tests",
    ("readiness", "check"): "a function: see test_lifespan.py",
    ("testing", "broker"): "looked at when the session is entered, as is the app",
    ("testing", "container"): "looked at when the session is entered, as is the app",
}
CASES = [
    pytest.param(make, option, value, id=f"{name}-{option}-{number}")
    for name, (_, make, options) in WRONG.items()
    for option, values in options.items()
    for number, value in enumerate(values)
]


@pytest.mark.parametrize(("make", "option", "value"), CASES)
async def test_a_wrong_option_is_refused_with_its_name(make: Callable[..., Any], option: str, value: object) -> None:
    with pytest.raises((ConfigurationError, InvalidMessageError, TypeError)) as caught:
        made = make(**{option: value})
        if inspect.iscoroutine(made):
            await made
    assert "unexpected keyword" not in str(caught.value)
    if option not in ("url_or_client", "namespace", "broker", "container", "hooks", "key", "aliases", "topic"):
        assert option.rstrip("s") in str(caught.value)


@pytest.mark.parametrize("name", WRONG)
def test_every_option_has_values_that_are_tried(name: str) -> None:
    target, _, options = WRONG[name]
    parameters = inspect.signature(target).parameters.values()
    names = {p.name for p in parameters if p.name != "self" and p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)}
    assert names - {option for of, option in FREE if of == name} == {key for key in options if options[key]}


NOT_OPTIONS = {
    "Context": "made by Diator",
    "EventMap": "made by Diator",
    "RequestMap": "made by Diator",
    "Rows": "made by Diator",
    "Sender": "made by Diator",
    "Stream": "made by Diator",
    "CallNext": "a protocol",
    "Publish": "a protocol",
    "Named": "any hashable tells two apart",
    "SourceLocation": "what is told of a problem",
    "Problem": "what is told of a problem",
    "Reject": "raised",
    "RetryLater": "raised; what a handler asks for is looked at when it failed",
}


def test_everything_public_is_tried() -> None:
    """What is new in `diator` is tried above, or says why not."""
    public = {name: getattr(diator, name) for name in diator.__all__}
    configurable = {
        name
        for name, value in public.items()
        if callable(value) and not (inspect.isclass(value) and issubclass(value, Exception)) and _has_options(value)
    }
    assert configurable - {name.partition(" ")[0] for name in WRONG} - NOT_OPTIONS.keys() == set()
    verbs = {name for cls in (Diator, Router, Session) for name in dir(cls) if not name.startswith("_")}
    with_options = {
        name
        for name in verbs
        for cls in (Diator, Router, Session)
        if callable(method := getattr(cls, name, None)) and _has_options(method)
    }
    # The decorators hand their options on to `add_...`.
    assert with_options - WRONG.keys() - {"command", "query", "on_event", "middleware"} == set()


def _has_options(value: Any) -> bool:
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    return any(p.name != "self" and p.kind not in kinds for p in parameters)


@given(strategies.floats() | strategies.integers() | strategies.booleans() | strategies.text(max_size=3))
@settings(deadline=None, max_examples=300)
def test_what_is_taken_as_seconds_is_a_number_that_a_clock_can_count(value: Any) -> None:
    fits = type(value) in (int, float) and 0 < value <= 1e9
    for make in (
        lambda: Diator(event_timeout=value),
        lambda: Diator(publish_timeout=value),
        lambda: TimeoutMiddleware(value),
        lambda: MemoryBroker(lease=value),
        lambda: RedisBroker(timeout=value),
        lambda: registering(Router.add_command, join)(timeout=value),
        lambda: registering(Router.add_event_handler, greet)(timeout=value),
    ):
        if fits:
            make()
        else:
            with pytest.raises(ConfigurationError):
                make()


def test_a_policy_is_data() -> None:
    policy = Retry(attempts=3, never=[ValueError])
    assert policy == Retry(3, never=(ValueError,))
    assert policy.never == (ValueError,)
    with pytest.raises(AttributeError):
        policy.delay = -1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # wrong on purpose


async def test_a_session_keeps_all_of_a_policy_but_its_delay() -> None:
    policy = Retry(attempts=3, delay=2.0, factor=3.0, max_delay=20.0, jitter=0.5, never=(ValueError,))
    app = Diator("shop", broker="memory://", retry=policy)
    app.add_event_handler(greet)
    async with app.testing(), app.worker() as worker:
        (config,) = worker.configs
    kept = {field.name: getattr(config.retry, field.name) for field in fields(Retry)}
    assert kept == {**{field.name: getattr(policy, field.name) for field in fields(Retry)}, "delay": 0.0}


async def test_headers_are_those_that_were_given_and_no_error_shows_their_values() -> None:
    app, given_headers, seen = Diator(), {"X-Tenant": "acme"}, list[Mapping[str, str]]()

    @app.command
    async def join(command: Join, context: diator.Context) -> None:
        seen.append(context.headers)

    async with app:
        sender = app.using(headers=given_headers, correlation_id="x" * 1_000)
        given_headers["X-Tenant"] = "other"
        await sender.send(Join())
        assert seen == [{"X-Tenant": "acme"}]
        for bad in ({"Authorization": "SECRET\n"}, {"Authorization": b"SECRET"}, {"Authorization": "SECRET" * 10_000}):
            headers: Any = bad
            with pytest.raises(ConfigurationError, match=r"app\.using got") as caught:
                app.using(headers=headers)
            assert "SECRET" not in str(caught.value)
