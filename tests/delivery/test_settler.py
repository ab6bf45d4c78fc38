"""Outcomes that can't be recorded take no others with them, and end no consumer."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from diator import BrokerError, BrokerUnavailableError, Diator, NotificationEvent, Reject, RetryLater, contract
from diator.brokers import (
    Ack,
    Delivery,
    MoveToDeadLetters,
    Outcome,
    Receiver,
    Release,
    RetryAfter,
    Settlement,
    Subscription,
)
from tests.brokered import Flaky, FlakyReceiver, Watch, letters
from tests.virtual_time import in_virtual_time


@contract("meetings.joined", key="room")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    number: int
    room: str | None = None


class Picky(Flaky):
    """A broker that can't record some outcomes."""

    def __init__(self, refuses: Callable[[Outcome, bytes], BaseException | None]) -> None:
        super().__init__()
        self.refuses = refuses

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        receiver = PickyReceiver(self, await self.inner.subscribe(subscription))
        self.receivers.append(receiver)
        return receiver


class PickyReceiver(FlakyReceiver):
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        assert isinstance(self.broker, Picky)
        for delivery, outcome in settlements:
            error = self.broker.refuses(outcome, delivery.body)
            if error is not None:
                raise error
        return await super().settle(settlements)


def an_app(broker: Flaky, watch: Watch, **options: Any) -> Diator:
    app = Diator("meetings", broker=broker, hooks=[watch], concurrency=5, **options)

    @app.on_event
    async def joined(event: Joined) -> None:
        if event.number == 3:
            raise Reject("no third one")
        if event.number == 4:
            raise RetryLater(30)

    return app


def nothing(outcome: Outcome, body: bytes) -> None:
    """Refuse nothing."""


def of(number: int) -> bytes:
    return f'"number":{number},'.encode()


def unless_it_says_little(outcome: Outcome) -> bool:
    return isinstance(outcome, MoveToDeadLetters) and "could not be recorded" not in outcome.reason


@pytest.mark.parametrize("error", [BrokerError("can't write that"), UnicodeEncodeError("utf-8", "\udce9", 0, 1, "no")])
@pytest.mark.parametrize("key", [None, "a"])
def test_a_dead_letter_that_can_not_be_recorded_says_less_and_takes_no_other_with_it(
    error: Exception, key: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Picky(lambda outcome, _: error if unless_it_says_little(outcome) else None), Watch()
        app = an_app(broker, watch)
        async with app, app.worker() as worker:
            await app.publish(*(Joined(number, key) for number in (0, 1, 2, 3, 5, 6)))
            await watch.settle(6)
            assert worker.is_ready
            (letter,) = await letters(broker)
            assert of(3) in letter.body
            assert letter.failure == MoveToDeadLetters(
                f"its outcome could not be recorded ({type(error).__name__}); the log of the worker says more",
                attempts=1,
            )
            assert sorted(watch.outcomes()) == ["Ack"] * 5 + ["MoveToDeadLetters"]
            assert len(watch.of("handled")) == 6
            assert len(broker.receivers) == 1
            (status,) = await broker.status([one.subscription for one in worker.configs])
            assert (status.backlog, status.dead_letters) == (0, 1)

    scenario()
    (record,) = [record for record in caplog.records if "can't record MoveToDeadLetters" in record.getMessage()]
    assert record.levelname == "ERROR"
    assert "no third one" in record.getMessage()


@in_virtual_time
async def test_a_retry_that_can_not_be_recorded_is_a_dead_letter() -> None:
    broker = Picky(lambda outcome, _: ValueError("odd") if isinstance(outcome, RetryAfter) else None)
    watch = Watch()
    app = an_app(broker, watch)
    async with app, app.worker():
        await app.publish(*(Joined(number) for number in (0, 4, 5)))
        await watch.settle(3)
        (letter,) = await letters(broker)
        assert of(4) in letter.body
        assert len(watch.of("handled")) == 3


@pytest.mark.parametrize("refused", [Ack, Release])
@pytest.mark.parametrize("error", [BrokerError("not that one"), ValueError("odd")], ids=repr)
def test_what_can_not_be_recorded_in_any_words_is_delivered_again_up_to_its_limit_and_others_go_on(
    refused: type[Outcome], error: Exception
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker = Picky(lambda outcome, body: error if isinstance(outcome, refused) and of(7) in body else None)
        watch = Watch()
        app = an_app(broker, watch, max_deliveries=3)
        async with app, app.worker() as worker:
            await app.publish(*(Joined(number) for number in (0, 1, 7, 2, 5)))
            await watch.settle(5)
            for number in range(8, 90):
                await app.publish(Joined(number))
                await asyncio.sleep(2)
            await asyncio.sleep(900)
            assert worker.is_ready
            assert {details.event.number for details in watch.of("handled")} == {0, 1, 2, 5, 7, *range(8, 90)}
            assert watch.outcomes().count("Ack") >= 4 + 82
            (status,) = await broker.status([one.subscription for one in worker.configs])
            assert status.backlog == 0
            assert status.dead_letters == (1 if refused is Ack else 0)

    scenario()


@in_virtual_time
async def test_an_outage_while_one_is_settled_alone_loses_nothing() -> None:
    odd = True

    def refuses(outcome: Outcome, body: bytes) -> BaseException | None:
        if isinstance(outcome, MoveToDeadLetters) and odd:
            return ValueError("odd")
        return BrokerUnavailableError("away") if of(5) in body and odd else None

    broker, watch = Picky(refuses), Watch()
    app = an_app(broker, watch)
    async with app, app.worker():
        await app.publish(*(Joined(number) for number in (0, 1, 2, 3, 5, 6)))
        await asyncio.sleep(20)
        odd = False
        await watch.settle(6)
        await asyncio.sleep(100)
        settled = watch.of("settled")
        assert not any(details.lease_lost for details in settled)
        assert len(watch.of("handled")) == 6
        assert watch.outcomes().count("Ack") == 5
        (letter,) = await letters(broker)
        assert letter.failure.reason == "rejected: no third one"


@in_virtual_time
async def test_a_broker_that_can_record_nothing_is_tried_again_until_it_can() -> None:
    broker, watch = Picky(lambda _, __: BrokerError("not allowed")), Watch()
    app = an_app(broker, watch)
    async with app, app.worker() as worker:
        await app.publish(*(Joined(number) for number in (0, 3, 4)))
        await asyncio.sleep(60)
        assert not worker.is_ready
        broker.refuses = nothing
        await watch.settle(3)
        assert sorted(watch.outcomes()) == ["Ack", "MoveToDeadLetters", "RetryAfter"]
        assert len(watch.of("handled")) == 3
        assert worker.is_ready


@in_virtual_time
async def test_an_outcome_waits_only_a_moment_though_every_handler_is_busy() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], concurrency=2)

    @app.on_event
    async def joined(event: Joined) -> None:
        await asyncio.sleep(0.001 if event.number < 50 else 5)

    async with app, app.worker(grace=0):
        await app.publish(*(Joined(number) for number in range(50)))
        await watch.settle(50)  # by now it takes several ahead, so no handler waits for the next
        await app.publish(*(Joined(number) for number in range(50, 60)))
        await asyncio.sleep(5.2)
        assert watch.outcomes() == ["Ack"] * 52


@in_virtual_time
async def test_nothing_of_a_key_is_settled_before_an_earlier_one_that_can_not_be_recorded() -> None:
    odd = True
    settled: list[bytes] = []

    def refuses(outcome: Outcome, body: bytes) -> BaseException | None:
        if odd and of(4) in body:
            return ValueError("odd")
        settled.append(body)
        return None

    broker, watch = Picky(refuses), Watch()
    app = an_app(broker, watch)
    async with app, app.worker():
        await app.publish(Joined(4, "a"), Joined(5, "a"), Joined(6, "b"))
        await asyncio.sleep(20)
        assert settled
        assert all(of(6) in body for body in settled)
        odd = False
        await watch.until(lambda: bool(watch.of("dead_lettered")), within=1000)
        await watch.until(lambda: watch.outcomes().count("Ack") == 2, within=100)
    assert [details.event.number for details in watch.of("handled") if details.event.room == "a"][-1] == 5


@in_virtual_time
async def test_outcome_is_settled_at_once_if_nothing_else_is_to_be_handled() -> None:
    """In an ordered subscription the next message of its key may wait for it at the broker."""
    watch = Watch()
    app = an_app(Flaky(), watch)
    async with app, app.worker():
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        await app.publish(Joined(1))
        await watch.settle(1)
        assert asyncio.get_running_loop().time() == began
