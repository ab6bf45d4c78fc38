"""What a process publishes waits until its workers have created their subscriptions: before, it would be dropped."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest

from diator import (
    BrokerError,
    Command,
    Diator,
    NotificationEvent,
    Publish,
    PublishError,
    contract,
)
from diator.delivery.subscription_creation import group_created
from tests.brokered import Flaky
from tests.virtual_time import in_virtual_time


@contract("creation.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    number: int = 1


@contract("creation.greeted")
@dataclass(frozen=True)
class Greeted(NotificationEvent):
    number: int = 1


@dataclass(frozen=True)
class Join(Command[None]):
    number: int


class Shop:
    """Two subscriptions, one of which publishes to the other."""

    def __init__(self, broker: Flaky | None = None, **options: Any) -> None:
        self.broker = broker or Flaky()
        self.app = Diator("shop", broker=self.broker, **options)
        self.joined: list[int] = []
        self.greeted: list[int] = []

        @self.app.command
        async def join(command: Join, publish: Publish[Joined]) -> None:
            publish(Joined(command.number))

        @self.app.on_event(subscription="joined")
        async def joined(event: Joined, publish: Publish[Greeted]) -> None:
            self.joined.append(event.number)
            publish(Greeted(event.number))

        @self.app.on_event(subscription="greeted")
        async def greeted(event: Greeted) -> None:
            self.greeted.append(event.number)

    async def handle(self, numbers: list[int]) -> None:
        await asyncio.sleep(5)
        assert sorted(self.joined) == numbers
        assert sorted(self.greeted) == numbers


@pytest.mark.parametrize("seconds", [0.0, 0.05, 1.0, 7.0])
@pytest.mark.parametrize("operations", [("apply",), ()])
def test_what_is_published_before_the_subscriptions_exist_is_handled(
    seconds: float, operations: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        shop = Shop()
        shop.broker.break_down(*operations)
        async with shop.app, shop.app.worker():
            first = asyncio.ensure_future(shop.app.publish(Joined(1), Joined(2)))
            second = asyncio.ensure_future(shop.app.send(Join(3)))
            await asyncio.sleep(seconds)
            assert not first.done()
            assert not second.done()
            shop.broker.mend()
            await asyncio.wait_for(asyncio.gather(first, second), 1.3)
            await shop.handle([1, 2, 3])
        assert "nothing is lost" not in caplog.text

    scenario()


@in_virtual_time
async def test_what_waits_too_long_is_unsent_with_the_reason() -> None:
    shop = Shop(publish_timeout=3)
    shop.broker.break_down("apply")
    async with shop.app, shop.app.worker():
        began = asyncio.get_running_loop().time()
        with pytest.raises(PublishError, match=r"do not exist after 3 s: .*create subscriptions.*away") as raised:
            await shop.app.publish(Joined(1))
        assert asyncio.get_running_loop().time() - began == pytest.approx(3)
        assert raised.value.unsent == (Joined(1),)
        assert raised.value.unknown == ()
        assert not raised.value.permanent
        assert shop.broker.publications == []
        shop.broker.mend()
        await shop.app.publish(Joined(2))
        await shop.handle([2])


@in_virtual_time
async def test_waiting_is_a_part_of_the_publish_timeout() -> None:
    shop = Shop(publish_timeout=10)
    shop.broker.break_down("apply")
    async with shop.app, shop.app.worker():
        publishing = asyncio.ensure_future(shop.app.publish(Joined(1)))
        await asyncio.sleep(6)
        shop.broker.mend()
        await publishing
        _, timeout, wait_for_room = shop.broker.publications[0]
        assert 2.5 < timeout < 4.1
        assert wait_for_room


@in_virtual_time
async def test_a_worker_that_starts_late_holds_back_what_is_published_from_then_on() -> None:
    shop = Shop()
    async with shop.app:
        await shop.app.publish(Joined(1))  # nobody has asked for it
        shop.broker.break_down("apply")
        shop.broker.slow["apply"] = 2.0
        late = shop.app.worker()
        starting = asyncio.ensure_future(late.__aenter__())
        await asyncio.sleep(1)
        publishing = asyncio.ensure_future(shop.app.publish(Joined(2)))
        await starting
        assert not publishing.done()
        shop.broker.mend()
        await publishing
        await shop.handle([2])
        await late.__aexit__(None, None, None)


@in_virtual_time
async def test_what_another_app_of_the_process_publishes_waits_too() -> None:
    shop = Shop()
    office = Diator("office", broker=shop.broker)
    office.publishes(Joined)
    shop.broker.break_down("apply")
    async with office, shop.app, shop.app.worker():
        publishing = asyncio.ensure_future(office.publish(Joined(1)))
        await asyncio.sleep(5)
        assert not publishing.done()
        shop.broker.mend()
        await publishing
        await shop.handle([1])


class Unhashable(Flaky):
    """As a dataclass is."""

    __hash__: Any = None


@in_virtual_time
async def test_any_class_may_be_a_broker() -> None:
    shop = Shop(Unhashable())
    shop.broker.break_down("apply")
    async with shop.app, shop.app.worker():
        publishing = asyncio.ensure_future(shop.app.publish(Joined(1)))
        await asyncio.sleep(5)
        shop.broker.mend()
        await publishing
        await shop.handle([1])


@in_virtual_time
async def test_follow_ups_wait_for_another_worker_of_the_process_and_keep_their_message() -> None:
    shop = Shop()
    async with shop.app, shop.app.worker(subscriptions=["joined"]):
        shop.broker.break_down("apply")
        async with shop.app.worker(subscriptions=["greeted"]):
            await shop.app.publish(Joined(1))  # nobody creates what it goes to
            await asyncio.sleep(120)
            assert shop.joined == [1]
            assert shop.greeted == []
            shop.broker.mend()
            await asyncio.sleep(10)
            await shop.handle([1])


@in_virtual_time
async def test_what_waits_for_a_worker_that_ends_is_unsent_and_later_events_go() -> None:
    shop = Shop()
    shop.broker.break_down("apply")
    async with shop.app:
        async with shop.app.worker():
            publishing = asyncio.ensure_future(shop.app.publish(Joined(1)))
            await asyncio.sleep(1)
        with pytest.raises(PublishError, match="before their worker ended") as raised:
            await publishing
        assert raised.value.unsent == (Joined(1),)
        await asyncio.wait_for(shop.app.publish(Joined(2)), 0.1)


@pytest.mark.parametrize("error", [BrokerError, ValueError, asyncio.CancelledError])
@in_virtual_time
async def test_a_worker_that_can_not_start_holds_nothing_back(error: type[BaseException]) -> None:
    shop = Shop()
    shop.broker.break_down("apply", error=error)
    shop.broker.slow["apply"] = 1.0
    async with shop.app:
        starting = asyncio.ensure_future(shop.app.worker().__aenter__())
        await asyncio.sleep(0.5)
        publishing = asyncio.ensure_future(shop.app.publish(Joined(1)))
        with pytest.raises(error):
            await starting
        with pytest.raises(PublishError):
            await publishing
        await asyncio.wait_for(shop.app.publish(Joined(2)), 0.1)


@in_virtual_time
async def test_a_cancel_does_not_take_away_what_waits() -> None:
    """The unit of work of its command has committed."""
    shop = Shop()
    shop.broker.break_down("apply")
    async with shop.app, shop.app.worker():
        sending = asyncio.ensure_future(shop.app.send(Join(1)))
        await asyncio.sleep(1)
        sending.cancel()
        await asyncio.sleep(1)
        assert not sending.done()
        shop.broker.mend()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await shop.handle([1])


@pytest.mark.parametrize("error", [lambda: BrokerError("no such right"), lambda: ValueError("a mistake")])
@in_virtual_time
async def test_what_is_no_outage_is_told_as_an_error_and_tried_again(
    error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop()
    shop.broker.break_down("apply")
    async with shop.app, shop.app.worker() as worker:
        shop.broker.break_down("apply", error=error)
        await asyncio.sleep(30)
        assert not worker.is_ready
        (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
        assert str(error()) in record.getMessage()
        assert (record.exc_info is not None) is isinstance(error(), ValueError)
        assert str(error()) in worker.not_ready_reasons[0]
        shop.broker.mend()
        await shop.app.publish(Joined(1))
        await shop.handle([1])


class Slow(Flaky):
    """A broker that does not answer for a while."""

    async def apply(self, subscriptions: Any, topics: Any = (), /) -> Any:
        if self.times["apply"] == 1:
            self.times["apply"] += 1
            await asyncio.sleep(1000)
        return await super().apply(subscriptions, topics)


@in_virtual_time
async def test_an_attempt_that_is_not_answered_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(Slow(), publish_timeout=2)
    shop.broker.break_down("apply")
    async with shop.app, shop.app.worker():
        shop.broker.mend()
        await asyncio.sleep(3)
        assert "no answer within 2 s" in caplog.text
        await shop.app.publish(Joined(1))
        await shop.handle([1])


async def test_each_subscription_that_is_created_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "diator")
    shop = Shop()
    async with shop.app, shop.app.worker():
        pass
    lines = [message for message in caplog.messages if message.startswith("created")]
    assert lines == ["created subscription joined", "created subscription greeted"]


def test_what_is_created_counts_for_the_subscription_with_the_longest_name() -> None:
    created = ["queue shop.bill", "queue shop.billing", "topic joined", "joined -> shop.billing"]
    assert group_created(created, ["shop.bill", "shop.billing"]) == {
        "subscription shop.bill": ["queue shop.bill"],
        "subscription shop.billing": ["queue shop.billing", "joined -> shop.billing"],
        "topic joined": [],
    }
