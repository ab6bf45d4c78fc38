"""The inbox: a message that a handler has handled is acknowledged without running it again."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from diator import CallNext, Diator, NotificationEvent, Publish, Reject, Retry, StoreUnavailableError
from diator._inspection import inspect_app, messaging_of
from diator.brokers import Envelope, MemoryBroker, OutgoingMessage
from tests.brokered import Flaky
from tests.stores.shop import Billed, Counted, Ordered, Orders, Shop
from tests.stores.sqlite_store import SQLiteSession, SQLiteTransaction


class BrokenError(Exception):
    pass


def no_commit(session: SQLiteSession) -> None: ...


AT_ONCE = Retry(attempts=3, delay=0.01, jitter=0)


@pytest.fixture
async def shop(tmp_path: Path) -> Shop:
    return await made(tmp_path)


async def made(folder: Path, **options: Any) -> Shop:
    broker = Flaky(MemoryBroker(duplicate_window=0))
    return await Shop(folder, broker=broker, relay=False, retry=AT_ONCE, **options).create()


@asynccontextmanager
async def working(shop: Shop) -> AsyncGenerator["Other", None]:
    """Run the app with a worker, beside another app that publishes directly."""
    other = Diator("other", broker=shop.broker)
    async with shop.app, shop.app.worker(), other:
        yield Other(shop, other)


class Other:
    """Publishes to the broker, without a store."""

    def __init__(self, shop: Shop, app: Diator) -> None:
        self.shop = shop
        self.app = app

    async def publish(self, event: NotificationEvent) -> str:
        """Publish, and wait until it is settled."""
        before = len(outcomes(self.shop))
        message_id = await self.app.publish(event)
        await self.settled(before + 1)
        return message_id

    async def again(self, message: OutgoingMessage | None = None) -> None:
        """Deliver the last message a second time."""
        before = len(outcomes(self.shop))
        await self.shop.broker.publish([message or self.shop.published[-1]], timeout=5)
        await self.settled(before + 1)

    async def settled(self, count: int) -> None:
        """Wait until so many deliveries are settled."""
        await self.shop.watch.until(lambda: len(outcomes(self.shop)) >= count)


def outcomes(shop: Shop) -> list[str]:
    """The outcomes of deliveries, without those that were released because a retry of their key came first."""
    return [one for one in shop.watch.outcomes() if one != "Release"]


async def test_a_message_that_comes_again_is_acknowledged_without_a_run(shop: Shop) -> None:
    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)

    async with working(shop) as other:
        message_id = await other.publish(Ordered(7))
        assert shop.inbox == [message_id]
        await other.again()
        assert shop.orders == [7]
        assert outcomes(shop) == ["Ack", "Ack"]
        assert [details.repeated for details in shop.watch.of("handled")] == [False, True]
        await other.publish(Ordered(8))
        assert shop.orders == [7, 8]


async def test_messages_of_one_id_from_two_sources_are_two_messages(shop: Shop) -> None:
    """Ids of CloudEvents are unique for their source only; other programs may count from 1."""

    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)

    async with working(shop) as other:
        for number, source in enumerate(("/billing", "/crm", "/billing"), 1):
            data = msgspec.Raw(msgspec.json.encode({"number": number}))
            envelope = Envelope(specversion="1.0", id="17", source=source, type="shop.ordered", data=data)
            await shop.broker.publish([OutgoingMessage("shop.ordered", envelope)], timeout=1.0)
            await other.settled(number)
    assert shop.orders == [1, 2]


async def test_each_subscription_has_its_own_inbox(shop: Shop) -> None:
    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)

    @shop.app.on_event
    async def count(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number * 10)

    async with working(shop) as other:
        await other.app.publish(Ordered(7))
        await other.settled(2)
        assert sorted(shop.orders) == [7, 70]


async def test_a_run_that_failed_leaves_no_trace_and_is_repeated(shop: Shop) -> None:
    runs: list[int] = []

    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)
        runs.append(event.number)
        if len(runs) < 3:
            raise BrokenError

    async with working(shop) as other:
        message_id = await other.publish(Ordered(7))
        await other.settled(3)
        assert (runs, shop.orders, shop.inbox) == ([7, 7, 7], [7], [message_id])


async def test_an_outer_middleware_that_fails_after_the_commit_does_not_repeat_the_effect(shop: Shop) -> None:
    runs: list[int] = []

    @shop.app.middleware
    async def fails(message: Ordered, call_next: CallNext) -> Any:
        await call_next(message)
        runs.append(message.number)
        if len(runs) == 1:
            raise BrokenError

    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)

    async with working(shop) as other:
        await other.publish(Ordered(7))
        await other.settled(2)
        assert (runs, shop.orders) == ([7, 7], [7])
        assert outcomes(shop) == ["RetryAfter", "Ack"]


async def test_a_rollback_in_the_handler_does_not_undo_that_the_message_was_handled(shop: Shop) -> None:
    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(1)
        orders.session.rollback()
        await orders.add(2)

    async with working(shop) as other:
        message_id = await other.publish(Ordered(7))
        assert (shop.orders, shop.inbox) == ([2], [message_id])
        await other.again()
        assert shop.orders == [2]


async def test_a_handler_that_nobody_commits_fails(tmp_path: Path) -> None:
    shop = await made(tmp_path, commits=no_commit)

    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)

    async with working(shop) as other:
        await other.publish(Ordered(7))
        await other.settled(3)
        assert outcomes(shop) == ["RetryAfter", "RetryAfter", "MoveToDeadLetters"]
        error = shop.watch.of("handled")[0].error
        assert "of shop.bill ended without an error, but its SQLiteSession was not committed" in str(error)


async def test_a_commit_in_the_handler_fails_it_in_its_line(shop: Shop) -> None:
    @shop.app.on_event(retry=Retry(attempts=1))
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)
        orders.session.commit()

    async with working(shop) as other:
        await other.publish(Ordered(7))
        assert shop.orders == []
        assert [type(details.error).__name__ for details in shop.watch.of("handled")] == ["EarlyCommitError"]


async def test_follow_ups_are_stored_in_the_transaction_of_the_handler_with_derived_ids(shop: Shop) -> None:
    runs: list[str] = []

    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders, publish: Publish[Billed]) -> None:
        await orders.add(event.number)
        runs.append(publish(Billed(event.number)))
        if len(runs) == 1:
            raise BrokenError

    async with working(shop) as other:
        await other.publish(Ordered(7))
        await other.settled(2)
        assert runs[0] == runs[1]
        assert (shop.orders, shop.stored) == ([7], [runs[0]])
        assert outcomes(shop) == ["RetryAfter", "Ack"]


async def test_follow_ups_do_not_wait_for_a_broker_that_is_away(shop: Shop) -> None:
    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders, publish: Publish[Billed]) -> None:
        shop.broker.broken["publish"] = BrokenError
        publish(Billed(event.number))

    async with working(shop) as other:
        await other.publish(Ordered(7))
        assert outcomes(shop) == ["Ack"]
        assert len(shop.stored) == 1


async def test_a_dead_letter_that_is_replayed_runs_and_one_that_was_handled_does_not(shop: Shop) -> None:
    runs: list[int] = []

    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders) -> None:
        runs.append(event.number)
        await orders.add(event.number)
        if len(runs) == 1:
            raise Reject("no")

    async with working(shop) as other, shop.app.operations() as operations:
        message_id = await other.publish(Ordered(7))
        assert (shop.orders, shop.inbox) == ([], [])
        (letter,) = [one async for one in operations.dead_letters()]
        assert await operations.replay(letter)
        await other.settled(2)
        assert (runs, shop.orders, shop.inbox) == ([7, 7], [7], [message_id])
        await other.again()
        assert runs == [7, 7]


async def test_what_is_delivered_to_two_workers_at_once_takes_effect_once(shop: Shop) -> None:
    began = asyncio.Event()

    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)
        began.set()
        await asyncio.sleep(0.05)

    @dataclass(frozen=True)
    class Unused(NotificationEvent): ...

    async with working(shop) as other:
        await other.app.publish(Ordered(7))
        await began.wait()
        await shop.broker.publish([unkeyed(shop.published[-1])], timeout=5)
        await other.settled(2)
        assert shop.orders == [7]
        assert sorted(details.repeated for details in shop.watch.of("handled")) == [False, True]


def unkeyed(message: OutgoingMessage) -> OutgoingMessage:
    """The same message without its key, which would have it wait for the first to end."""
    body = message.structured.replace(b'"partitionkey":"7",', b"")
    return OutgoingMessage.from_bytes(message.topic, body)


# ---------------------------------------------------------------------------------------------------- where it is used


def once_by_subscription(shop: Shop) -> dict[str, bool]:
    inspect_app(shop.app)
    messaging = messaging_of(shop.app)
    assert messaging is not None
    return {config.name: config.once for config in messaging.catalog.configs}


async def test_it_is_on_where_the_dependencies_reach_the_session_and_once_decides_by_hand(shop: Shop) -> None:
    @shop.app.on_event
    async def direct(event: Ordered, session: SQLiteSession) -> None: ...

    @shop.app.on_event
    async def below(event: Ordered, orders: Orders) -> None: ...

    @shop.app.on_event
    async def none(event: Ordered) -> None: ...

    @shop.app.on_event(once=True)
    async def by_hand(event: Ordered) -> None: ...

    @shop.app.on_event(once=False)
    async def never(event: Ordered, orders: Orders) -> None: ...

    @shop.app.on_event
    async def by_event(event: Ordered, publish: Publish[Counted]) -> None: ...

    @shop.app.on_event
    async def counted(event: Counted, orders: Orders) -> None: ...

    assert once_by_subscription(shop) == {
        "shop.direct": True,
        "shop.below": True,
        "shop.none": False,
        "shop.by_hand": True,
        "shop.never": False,
        "shop.by_event": True,
    }


async def test_a_handler_without_an_inbox_runs_again(shop: Shop) -> None:
    runs: list[int] = []

    @shop.app.on_event(once=False)
    async def bill(event: Ordered, orders: Orders, publish: Publish[Billed]) -> None:
        runs.append(event.number)
        await orders.add(event.number)
        publish(Billed(event.number))

    async with working(shop) as other:
        await other.publish(Ordered(7))
        await other.again(shop.published[0])
        assert (runs, shop.orders, shop.inbox) == ([7, 7], [7, 7], [])
        assert len(shop.stored) == 2


async def test_a_middleware_inside_that_uses_the_session_gives_the_handler_an_inbox(shop: Shop) -> None:
    @shop.app.middleware(inside=True)
    async def audit(message: Ordered, call_next: CallNext, orders: Orders) -> Any:
        return await call_next(message)

    @shop.app.on_event
    async def bill(event: Ordered) -> None: ...

    assert once_by_subscription(shop) == {"shop.bill": True}


def test_once_without_a_store_is_a_problem() -> None:
    app = Diator("shop", broker="memory://")

    @app.on_event(once=True)
    async def bill(event: Ordered) -> None: ...

    (problem,) = app.check()
    assert problem.code == "no-store"
    assert "bill sets once=True, but the app has no store" in problem.text


def test_once_of_a_handler_of_domain_events_is_a_problem() -> None:
    app = Diator("shop", broker="memory://")

    @app.on_event(once=True)
    async def bill(event: Counted) -> None: ...

    (problem,) = app.check()
    assert problem.code == "subscription-option"


async def test_an_inbox_that_can_not_be_used_now_counts_no_failure(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, tries = SQLiteTransaction.record_handled, list[str]()

    async def unavailable(self: SQLiteTransaction, subscription: str, message_id: str, /) -> bool:
        tries.append(message_id)
        if len(tries) < 3:
            raise StoreUnavailableError("another transaction was in the way")
        return await record(self, subscription, message_id)

    monkeypatch.setattr(SQLiteTransaction, "record_handled", unavailable)
    monkeypatch.setattr("diator.delivery.store_sender._PAUSE", 0.01)

    @shop.app.on_event(retry=Retry(attempts=1))
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)

    async with working(shop) as other:
        await other.publish(Ordered(7))
        assert shop.orders == [7]
        assert (len(tries), outcomes(shop)) == (3, ["Ack"])
    assert caplog.text.count("retrying until it can") == 1


async def test_a_session_that_can_not_be_opened_now_counts_no_failure(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that provides it may connect at once."""
    connect, tries = shop.store.connect, list[int]()

    def unavailable() -> SQLiteSession:
        tries.append(1)
        if len(tries) < 3:
            raise sqlite3.OperationalError("unable to open database file")
        return connect()

    monkeypatch.setattr("diator.delivery.store_sender._PAUSE", 0.01)

    @shop.app.on_event(retry=Retry(attempts=1))
    async def bill(event: Ordered, orders: Orders) -> None:
        await orders.add(event.number)

    async with working(shop) as other:
        monkeypatch.setattr(shop.store, "connect", unavailable)
        await other.publish(Ordered(7))
        assert shop.orders == [7]
        assert (len(tries), outcomes(shop)) == (3, ["Ack"])
    assert caplog.text.count("its session can't be opened: OperationalError: unable to open") == 1


async def test_outage_in_a_handler_without_an_inbox_counts_a_failure(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statements may fail after it has done other things, so its retry policy decides."""

    @shop.app.on_event(once=False, retry=Retry(attempts=2, delay=0))
    async def bill(event: Ordered, orders: Orders) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    async with working(shop) as other:
        await other.publish(Ordered(7))
        await other.settled(2)
        assert outcomes(shop) == ["RetryAfter", "MoveToDeadLetters"]


async def test_a_session_whose_provider_is_broken_counts_a_failure(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> SQLiteSession:
        raise BrokenError

    @shop.app.on_event(retry=Retry(attempts=1))
    async def bill(event: Ordered, orders: Orders) -> None: ...

    async with working(shop) as other:
        monkeypatch.setattr(shop.store, "connect", broken)
        await other.publish(Ordered(7))
        assert outcomes(shop) == ["MoveToDeadLetters"]
