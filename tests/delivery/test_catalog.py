"""What of brokered events is rejected at startup, all at once, each with location and fix."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from diator import (
    Command,
    ConfigurationError,
    Diator,
    DomainEvent,
    ECSTEvent,
    Event,
    NotificationEvent,
    Problem,
    Publish,
    Retry,
    Router,
    contract,
)
from diator.brokers import BrokerCapability, MemoryBroker, ValidationIssue
from tests.brokered import Flaky, Watch, subscriptions_of
from tests.journal import Journal
from tests.virtual_time import in_virtual_time


@dataclass(frozen=True)
class Joined(NotificationEvent):
    meeting: int = 1


@contract("meetings.keyed", key="meeting", aliases=("keyed", "key"))
@dataclass(frozen=True)
class Keyed(ECSTEvent):
    meeting: int = 1


@dataclass(frozen=True)
class Noted(DomainEvent):
    pass


@dataclass(frozen=True)
class Join(Command[None]):
    pass


class Request:
    """Something that a sender brings."""


class Strange:
    """Something that no codec knows."""


@dataclass(frozen=True)
class HasStrange(NotificationEvent):
    inner: list[Strange]


class NoData(NotificationEvent):
    def __init__(self) -> None: ...


def errors(app: Diator) -> list[Problem]:
    found = [problem for problem in app.check() if problem.severity == "error"]
    for problem in found:
        assert problem.text
        assert problem.fix
        assert problem.location is not None, problem
        assert problem.location.file.endswith("test_catalog.py")
    return found


def only(app: Diator, code: str) -> Problem:
    (problem,) = errors(app)
    assert problem.code == code
    return problem


def test_two_handlers_with_one_subscription_are_refused_naming_both_places() -> None:
    app = Diator("meetings", broker=Flaky())

    @app.on_event(subscription="same")
    async def first(event: Joined) -> None: ...

    @app.on_event(subscription="same")
    async def second(event: Keyed) -> None: ...

    problem = only(app, "duplicate-subscription")
    assert "second and first" in problem.text
    assert "test_catalog.py" in problem.text
    assert "'same'" in problem.text


def test_two_handlers_of_one_name_are_refused() -> None:
    app = Diator("meetings", broker=Flaky())

    def register() -> None:
        @app.on_event
        async def handler(event: Joined) -> None: ...

    register()
    register()
    only(app, "duplicate-subscription")


def test_an_app_without_a_name_is_refused_unless_each_subscription_has_one() -> None:
    app = Diator(broker=Flaky())

    @app.on_event(subscription="named")
    async def named(event: Joined) -> None: ...

    assert not errors(app)

    @app.on_event
    async def nameless(event: Joined) -> None: ...

    assert "nameless" in only(app, "unnamed-app").text


def test_a_handler_of_no_class_that_is_defined_is_refused() -> None:
    class Base(NotificationEvent):
        pass

    app = Diator("meetings", broker=Flaky())

    @app.on_event
    async def nothing(event: Base) -> None: ...

    found = errors(app)
    assert found
    assert all("Base" in problem.text for problem in found)


def test_one_wire_name_for_two_classes_is_refused() -> None:
    @contract("meetings.twin")
    @dataclass(frozen=True)
    class First(NotificationEvent):
        pass

    @contract("meetings.other", aliases=("meetings.twin",))
    @dataclass(frozen=True)
    class Second(NotificationEvent):
        pass

    app = Diator("meetings", broker=Flaky())
    app.publishes(First)

    @app.on_event
    async def second(event: Second) -> None: ...

    found = [problem for problem in app.check() if problem.severity == "error"]
    assert [problem.code for problem in found] == ["wire-name"]
    assert "First" in found[0].text
    assert "Second" in found[0].text
    assert "'meetings.twin'" in found[0].text


def test_order_without_a_key_is_refused() -> None:
    app = Diator("meetings", broker=Flaky())

    @app.on_event(ordered=True)
    async def joined(event: Joined) -> None: ...

    assert "none of its events has a key" in only(app, "missing-key").text


def test_what_only_a_sender_brings_is_refused() -> None:
    app = Diator("meetings", broker=Flaky(), container=Journal())
    app.provides(Request)

    @app.on_event
    async def joined(event: Joined, request: Request) -> None: ...

    assert "a brokered event has no sender" in only(app, "missing-dependency").text


@pytest.mark.parametrize("event", [HasStrange, NoData])
@pytest.mark.parametrize("how", ["handled", "published by a handler", "declared"])
def test_events_that_can_not_be_serialized_are_refused_with_the_line(event: Any, how: str) -> None:
    app = Diator("meetings", broker=Flaky())
    if how == "handled":

        async def handler(event: Any) -> None: ...

        app.add_event_handler(handler, event)

    elif how == "published by a handler":

        async def join(command: Join, publish: Any) -> None: ...

        join.__annotations__["publish"] = Publish[event]
        app.add_command(join)
    else:
        app.publishes(event)
    problem = only(app, "not-serializable")
    assert event.__name__ in problem.text
    if event is HasStrange:
        assert "HasStrange.inner" in problem.text
        assert "Strange" in problem.text


def test_every_problem_comes_at_once() -> None:
    app = Diator(broker=Flaky())
    app.publishes(HasStrange)

    @app.on_event(ordered=True)
    async def joined(event: Joined) -> None: ...

    @app.on_event(subscription="a")
    async def keyed(event: Keyed) -> None: ...

    @app.on_event(subscription="a")
    async def again(event: Keyed) -> None: ...

    assert sorted(problem.code for problem in errors(app)) == [
        "duplicate-subscription",
        "missing-key",
        "not-serializable",
        "unnamed-app",
    ]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"subscription": ""}, "without white space"),
        ({"subscription": "a b"}, "without white space"),
        ({"subscription": 7}, "without white space"),
        ({"retry": 3}, "Retry"),
        ({"retry": Retry}, "Retry"),
        ({"concurrency": 0}, "from 1 up"),
        ({"concurrency": True}, "from 1 up"),
        ({"concurrency": 1.5}, "from 1 up"),
        ({"timeout": 0}, "seconds"),
        ({"timeout": -1}, "seconds"),
        ({"timeout": "5"}, "seconds"),
        ({"ordered": "yes"}, "True or False"),
        ({"delivery": "exactly-once"}, "at-most-once"),
    ],
)
def test_options_with_wrong_values_are_refused_at_their_line(options: dict[str, Any], wanted: str) -> None:
    app = Diator("meetings", broker=Flaky())

    async def joined(event: Joined) -> None: ...

    with pytest.raises(ConfigurationError, match=wanted) as caught:
        app.add_event_handler(joined, **options)
    assert caught.value.problems[0].location is not None


@pytest.mark.parametrize(
    "options",
    [
        {"subscription": "x"},
        {"retry": Retry()},
        {"concurrency": 2},
        {"ordered": False},
        {"delivery": "at-least-once"},
    ],
)
def test_options_of_brokered_events_are_refused_for_domain_events(options: dict[str, Any]) -> None:
    app = Diator("meetings", broker=Flaky())

    async def noted(event: Noted) -> None: ...

    app.add_event_handler(noted, **options)
    assert "handles domain events" in only(app, "subscription-option").text


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": 2.5},
        {"concurrency": "many"},
        {"concurrency": float("inf")},
        {"event_timeout": 0},
        {"event_timeout": None},
        {"event_timeout": float("nan")},
        {"max_deliveries": 0},
        {"max_deliveries": None},
        {"publish_timeout": -1},
        {"publish_timeout": "5"},
        {"retry": 3},
        {"hooks": [object()]},
        {"hooks": [Watch]},
    ],
)
def test_options_of_the_app_with_wrong_values_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Diator("meetings", broker=Flaky(), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"attempts": True},
        {"delay": -1},
        {"delay": float("nan")},
        {"factor": 0.5},
        {"max_delay": -1},
        {"max_delay": "long"},
        {"jitter": 2},
        {"never": (3,)},
        {"never": (ValueError(),)},
        {"never": ValueError},
        {"delay": float("inf"), "max_delay": float("inf")},
    ],
)
def test_policies_that_make_no_sense_are_refused_at_their_line(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="Retry got") as caught:
        Retry(**options)
    location = caught.value.problems[0].location
    assert location is not None
    assert location.file.endswith("test_catalog.py")


def test_what_a_broker_refuses_is_told_with_the_handler_it_concerns() -> None:
    broker = Flaky()
    broker.refusals = [ValidationIssue("it can't keep order", "give up the order: ordered=False", "meetings.keyed")]
    app = Diator("meetings", broker=broker)

    @app.on_event
    async def keyed(event: Keyed) -> None: ...

    problem = only(app, "broker")
    assert problem.text == "keyed: it can't keep order"
    assert problem.fix == "give up the order: ordered=False"


def test_at_most_once_is_a_warning_on_a_broker_that_can_do_better() -> None:
    app = Diator("meetings", broker=Flaky())

    @app.on_event(delivery="at-most-once")
    async def joined(event: Joined) -> None: ...

    (problem,) = app.check()
    assert problem.severity == "warning"
    assert not Diator("meetings", broker=Flaky(without=BrokerCapability.ACKNOWLEDGED)).check()


def test_the_broker_is_told_what_is_consumed_and_what_is_published() -> None:
    broker = Flaky()
    app = Diator("meetings", broker=broker, max_deliveries=7, retry=Retry(attempts=3, delay=2, jitter=0))
    app.publishes(Joined)

    @app.on_event(subscription="all", delivery="at-least-once")
    async def both(event: Joined | Keyed) -> None: ...

    assert not app.check()
    ((subscription,), topics) = broker.validated[-1]
    assert subscription.name == "all"
    assert [topic.name for topic in subscription.topics] == ["Joined", "meetings.keyed", "keyed", "key"]
    assert (subscription.ordered, subscription.max_delay, subscription.max_deliveries) == (True, 4.0, 7)
    assert [(topic.name, topic.types) for topic in topics] == [("Joined", ("Joined",))]


def test_the_prefix_of_a_router_stands_in_the_names_of_its_subscriptions() -> None:
    inner, outer, broker = Router(), Router(), Flaky()

    @inner.on_event
    async def joined(event: Joined) -> None: ...

    @inner.on_event(subscription="given")
    async def keyed(event: Keyed) -> None: ...

    @outer.on_event(subscription="outer")
    async def other(event: Keyed) -> None: ...

    outer.include(inner, prefix="inner.")
    app = Diator("meetings", broker=broker)
    app.include(outer, prefix="billing.")
    assert not app.check()
    assert {one.name for one in subscriptions_of(broker)} == {
        "meetings.billing.inner.joined",
        "billing.inner.given",
        "billing.outer",
    }


def test_one_router_in_two_apps_has_two_subscriptions() -> None:
    router, brokers = Router(), [Flaky(), Flaky()]

    @router.on_event
    async def joined(event: Joined) -> None: ...

    for name, broker in zip(("first", "second"), brokers, strict=True):
        app = Diator(name, broker=broker)
        app.include(router)
        assert not app.check()
    assert [subscriptions_of(broker)[0].name for broker in brokers] == ["first.joined", "second.joined"]


def test_a_handler_of_mixed_kinds_is_refused() -> None:
    app = Diator("meetings", broker=Flaky())

    async def mixed(event: Noted | Joined) -> None: ...

    app.add_event_handler(mixed)
    assert "domain events run in process" in only(app, "message-kind").text


@pytest.mark.parametrize("register", ["on_event", "publishes", "publish"])
def test_without_a_broker_the_start_fails_and_names_the_choices(register: str) -> None:
    app = Diator("meetings")
    if register == "on_event":

        @app.on_event
        async def joined(event: Joined) -> None: ...

    elif register == "publishes":
        app.publishes(Joined)
    else:

        @app.command
        async def join(command: Join, publish: Publish[Joined]) -> None: ...

    problem = only(app, "no-broker")
    assert "redis://" in problem.fix
    assert "memory://" in problem.fix


@pytest.mark.parametrize("given", [7, MemoryBroker, "kafka://x", "nonsense", ""])
def test_what_is_no_broker_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError):
        Diator("meetings", broker=given)


def test_an_address_that_can_not_be_read_is_refused_and_does_not_tell_its_password() -> None:
    with pytest.raises(ConfigurationError, match="can't be read") as found:
        Diator("meetings", broker="redis://user:secret@[::1")
    assert "secret" not in str(found.value)


def test_brokers_are_found_by_their_address() -> None:
    assert not Diator("meetings", broker="memory://?capacity=5&lease=3").check()


@in_virtual_time
async def test_a_class_defined_after_the_start_is_judged_when_it_is_published() -> None:
    broker = Flaky()
    app = Diator("meetings", broker=broker)

    @app.command
    async def join(command: Join, publish: Publish[Event]) -> None:
        publish(late())

    late: Callable[[], Any]
    async with app:

        @dataclass(frozen=True)
        class Late(NotificationEvent):
            pass

        @dataclass(frozen=True)
        class LateAndStrange(NotificationEvent):
            inner: Strange

        late = Late
        await app.send(Join())
        late = partial(LateAndStrange, Strange())
        with pytest.raises(ConfigurationError, match="LateAndStrange"):
            await app.send(Join())
    assert [message.envelope.type for message in broker.publications[0][0]] == ["Late"]
