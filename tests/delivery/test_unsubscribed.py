"""Publishing to a topic that has no subscription is warned of once, by every broker that can tell."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pytest

from diator import BrokerError, BrokerUnavailableError, Command, Diator, NotificationEvent, Publish, contract
from diator.brokers import FindsUnsubscribed, MemoryBroker
from tests.brokered import Flaky
from tests.virtual_time import in_virtual_time


@contract("dropped.one")
@dataclass(frozen=True)
class One(NotificationEvent):
    number: int = 1


@contract("dropped.other", key="number")
@dataclass(frozen=True)
class Other(NotificationEvent):
    number: int = 1


@contract("dropped.heard")
@dataclass(frozen=True)
class Heard(NotificationEvent):
    number: int = 1


@dataclass(frozen=True)
class Do(Command[None]):
    pass


class Asked(MemoryBroker):
    """Counts the look-ups, and fails in them when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.fails: Callable[[], BaseException] | None = None
        self.seconds = 0.0

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        self.asked.append(list(topics))
        await asyncio.sleep(self.seconds)
        if self.fails is not None:
            raise self.fails()
        return await super().unsubscribed(topics)


def shop(broker: object) -> Diator:
    app = Diator("shop", broker=broker)
    app.publishes(One, Other)

    @app.command
    async def do(command: Do, publish: Publish[One | Other | Heard]) -> None:
        publish(One())
        publish(Other())
        publish(Heard())

    @app.on_event
    async def heard(event: Heard, publish: Publish[Other]) -> None:
        publish(Other(event.number))

    return app


def dropped(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The topics that were warned of."""
    texts = [one.getMessage() for one in caplog.records if "no subscription" in one.getMessage()]
    assert all("subscriptions apply" in text for text in texts)
    return [text.split("'")[1] for text in texts]


@in_virtual_time
async def test_each_topic_without_a_subscription_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    broker = Asked()
    app = shop(broker)
    async with app, app.worker():
        for _ in range(3):
            await app.publish(One())
            assert dropped(caplog) == ["dropped.one"]
        for _ in range(3):
            await app.send(Do())
            await app.publish(One(), Other(), Heard())
            assert dropped(caplog) == ["dropped.one", "dropped.other"]
    assert broker.asked == [["dropped.one"], ["dropped.other", "dropped.heard"]]


@in_virtual_time
async def test_what_a_handler_publishes_is_looked_at_too(caplog: pytest.LogCaptureFixture) -> None:
    app = shop("memory://")
    async with app, app.worker():
        await app.publish(Heard())
        await asyncio.sleep(1)
    assert dropped(caplog) == ["dropped.other"]


@pytest.mark.parametrize(
    ("fails", "seconds", "told"),
    [
        (lambda: BrokerUnavailableError("away"), 0.0, ""),
        (None, 100.0, ""),
        (lambda: BrokerError("no such right"), 0.0, ""),
        (lambda: ValueError("a mistake"), 0.0, "failed"),
    ],
)
def test_a_look_up_that_fails_does_not_concern_who_publishes(
    fails: Callable[[], BaseException] | None,
    seconds: float,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker = Asked()
        broker.fails, broker.seconds = fails, seconds
        app = shop(broker)
        async with app:
            await asyncio.wait_for(app.publish(One()), 2)
            assert dropped(caplog) == []
            broker.fails, broker.seconds = None, 0.0
            await app.publish(One())
            assert dropped(caplog) == []
            assert broker.asked == [["dropped.one"]]
        texts = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
        assert [told in text for text in texts] == ([True] if told else [])

    scenario()


@in_virtual_time
async def test_a_broker_that_can_not_tell_is_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    broker = Flaky()  # without the optional method
    assert not isinstance(broker, FindsUnsubscribed)
    app = shop(broker)
    async with app:
        await app.publish(One())
    assert dropped(caplog) == []
