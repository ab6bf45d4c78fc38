"""The outbox in units of work: what is published commits with the data, or is not there."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import punq
import pytest
from dishka import Provider, Scope, provide  # pyright: ignore[reportUnknownVariableType] - dishka's

from diator import (
    BrokerUnavailableError,
    CallNext,
    Command,
    ConfigurationError,
    Diator,
    DiatorError,
    EarlyCommitError,
    LatePublishError,
    NotCommittedError,
    Publish,
)
from diator.brokers import BrokerCapability, MemoryBroker
from diator.testing import record
from tests.stores.shop import Billed, Counted, Order, Ordered, Orders, Sessions, Shop
from tests.stores.sqlite_store import SQLiteSession, SQLiteStore


class BrokenError(Exception):
    pass


@pytest.fixture
async def shop(tmp_path: Path) -> Shop:
    return await Shop(tmp_path, relay=False).create()


def taking_orders(shop: Shop) -> None:
    @shop.app.command
    async def order(command: Order, orders: Orders, publish: Publish[Ordered]) -> str:
        await orders.add(command.number)
        return publish(Ordered(command.number))


async def test_an_event_is_stored_with_the_data_and_its_id_is_returned(shop: Shop) -> None:
    taking_orders(shop)
    async with shop.app:
        message_id = await shop.app.send(Order(7))
        assert (shop.orders, shop.stored) == ([7], [message_id])
        assert shop.published == []


async def test_an_error_of_the_handler_leaves_neither_data_nor_event(shop: Shop) -> None:
    @shop.app.command
    async def order(command: Order, orders: Orders, publish: Publish[Ordered]) -> str:
        await orders.add(command.number)
        publish(Ordered(command.number))
        raise BrokenError

    async with shop.app:
        with pytest.raises(BrokenError):
            await shop.app.send(Order(7))
        assert (shop.orders, shop.stored) == ([], [])


async def test_a_commit_that_fails_leaves_neither_data_nor_event(tmp_path: Path) -> None:
    def commits(session: SQLiteSession) -> None:
        raise BrokenError

    shop = await Shop(tmp_path, commits=commits).create()
    taking_orders(shop)
    async with shop.app:
        with pytest.raises(BrokenError):
            await shop.app.send(Order(7))
        assert (shop.orders, shop.stored) == ([], [])


async def test_events_of_all_handlers_of_a_unit_are_stored_in_the_order_of_publishing(shop: Shop) -> None:
    @shop.app.command
    async def order(command: Order, publish: Publish[Ordered | Counted]) -> str:
        publish(Counted(1))
        return str(publish(Ordered(1)))

    @shop.app.on_event
    async def counted(event: Counted, publish: Publish[Billed]) -> None:
        ids.append(publish(Billed(2)))

    ids: list[str] = []
    async with shop.app:
        first = await shop.app.send(Order())
        assert shop.stored == [first, *ids]


async def test_a_cancel_at_any_moment_leaves_data_and_event_or_neither(tmp_path: Path) -> None:
    class Waiting(Sessions):
        @provide
        async def session(self) -> AsyncGenerator[SQLiteSession, BaseException | None]:
            session = self.store.connect()
            try:
                await asyncio.sleep(0)
                error = yield session
                if error is None:
                    await asyncio.sleep(0)
                    session.commit()
                    await asyncio.sleep(0)
            finally:
                session.close()

    shop = await Shop(tmp_path, provider=Waiting, relay=False).create()

    @shop.app.middleware(inside=True)
    async def wait(message: Command[Any], call_next: CallNext, session: SQLiteSession) -> Any:
        result = await call_next(message)
        await asyncio.sleep(0)
        return result

    @shop.app.command
    async def order(command: Order, orders: Orders, publish: Publish[Ordered]) -> str:
        await orders.add(command.number)
        publish(Ordered(command.number))
        await asyncio.sleep(0)
        return ""

    ended: list[str] = []
    async with shop.app:
        for steps in range(100):
            before = len(shop.orders)
            sending = asyncio.ensure_future(shop.app.send(Order(steps)))
            for _ in range(steps):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait([sending])
            stands = len(shop.orders) > before
            ended.append(
                f"{'cancelled' if sending.cancelled() else 'done'}, {'committed' if stands else 'rolled back'}"
            )
            assert len(shop.orders) == len(shop.stored)
            if not sending.cancelled():
                break
    assert set(ended) == {"cancelled, rolled back", "cancelled, committed", "done, committed"}


async def test_a_handler_without_the_session_stores_its_event(shop: Shop) -> None:
    @shop.app.command
    async def order(command: Order, publish: Publish[Ordered]) -> str:
        return publish(Ordered(command.number))

    async with shop.app:
        assert [await shop.app.send(Order())] == shop.stored


async def test_a_unit_that_may_publish_and_does_not_commits_its_data(shop: Shop) -> None:
    @shop.app.command
    async def order(command: Order, orders: Orders, publish: Publish[Ordered]) -> str:
        await orders.add(command.number)
        return ""

    async with shop.app:
        await shop.app.send(Order(3))
        assert (shop.orders, shop.stored) == ([3], [])


async def test_a_broker_that_is_away_at_the_start_leaves_events_in_the_outbox(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.broker.broken["connect"] = lambda: BrokerUnavailableError("away")
    async with shop.app:
        assert "the app starts without it, and events wait in the outbox until it recovers" in caplog.text


async def test_a_broker_that_is_away_fails_no_command(shop: Shop) -> None:
    shop.broker.broken["publish"] = lambda: BrokerUnavailableError("away")
    taking_orders(shop)
    async with shop.app:
        await shop.app.send(Order(7))
        assert (shop.orders, len(shop.stored)) == ([7], 1)


# ------------------------------------------------------------------------------------------------------------- guards


async def test_a_commit_in_the_handler_raises_in_its_line_and_commits_nothing(shop: Shop) -> None:
    @shop.app.command
    async def order(command: Order, orders: Orders, publish: Publish[Ordered]) -> str:
        await orders.add(command.number)
        publish(Ordered(command.number))
        orders.session.commit()
        raise AssertionError

    async with shop.app:
        with pytest.raises(EarlyCommitError):
            await shop.app.send(Order(7))
        assert (shop.orders, shop.stored) == ([], [])


async def test_a_middleware_inside_commits_data_and_events(tmp_path: Path) -> None:
    shop = await Shop(tmp_path, commits=lambda session: None, relay=False).create()
    taking_orders(shop)

    @shop.app.middleware(inside=True)
    async def commit(message: Command[Any], call_next: CallNext, session: SQLiteSession) -> Any:
        result = await call_next(message)
        session.commit()
        return result

    async with shop.app:
        assert [await shop.app.send(Order(7))] == shop.stored
        assert shop.orders == [7]


async def test_a_unit_that_nobody_commits_is_an_error(tmp_path: Path) -> None:
    shop = await Shop(tmp_path, commits=lambda session: None).create()
    taking_orders(shop)
    async with shop.app:
        with pytest.raises(NotCommittedError, match=r"its SQLiteSession was not committed: its data and 1 event are"):
            await shop.app.send(Order(7))


@pytest.mark.parametrize("fails_after_the_handler", [False, True])
async def test_a_middleware_that_commits_a_failed_unit_is_stopped(
    tmp_path: Path, fails_after_the_handler: bool
) -> None:
    shop = await Shop(tmp_path, commits=lambda session: None).create()

    @shop.app.middleware(inside=True)
    async def commit(message: Command[Any], call_next: CallNext, session: SQLiteSession) -> Any:
        result = await call_next(message)
        session.commit()
        return result

    @shop.app.middleware(inside=True)
    async def swallow(message: Command[Any], call_next: CallNext) -> Any:
        try:
            return await call_next(message)
        except BrokenError:
            return "swallowed"

    @shop.app.middleware(inside=True)
    async def fail(message: Command[Any], call_next: CallNext) -> Any:
        await call_next(message)
        raise BrokenError

    @shop.app.command
    async def order(command: Order, orders: Orders, publish: Publish[Ordered]) -> str:
        await orders.add(command.number)
        publish(Ordered(command.number))
        if not fails_after_the_handler:
            raise BrokenError
        return ""

    async with shop.app:
        with pytest.raises(EarlyCommitError):
            await shop.app.send(Order(7))
        assert (shop.orders, shop.stored) == ([], [])


async def test_a_provider_that_commits_whatever_happens_commits_no_failed_unit(tmp_path: Path) -> None:
    class Careless(Sessions):
        @provide
        async def session(self) -> AsyncGenerator[SQLiteSession, BaseException | None]:
            session = self.store.connect()
            try:
                yield session
                session.commit()
            finally:
                session.close()

    shop = await Shop(tmp_path, provider=Careless).create()

    @shop.app.middleware(inside=True)
    async def fail(message: Command[Any], call_next: CallNext) -> Any:
        await call_next(message)
        raise BrokenError

    taking_orders(shop)
    async with shop.app:
        with pytest.raises(BrokenError) as caught:
            await shop.app.send(Order(7))
        assert isinstance(caught.value.__cause__, EarlyCommitError)
        assert (shop.orders, shop.stored) == ([], [])


async def test_a_session_that_the_sender_provides_commits_with_the_sender(shop: Shop) -> None:
    taking_orders(shop)
    shop.app.provides(SQLiteSession)
    async with shop.app:
        session = shop.store.connect()
        sender = shop.app.using(provide={SQLiteSession: session})
        message_id = await sender.send(Order(7))
        direct = await sender.publish(Billed(1))
        assert (shop.orders, shop.stored) == ([], [])
        session.commit()
        assert (shop.orders, shop.stored) == ([7], [message_id, direct])
        session.close()


async def test_two_objects_in_one_scope_are_an_error(tmp_path: Path) -> None:
    class Transient(Sessions):
        @provide(scope=Scope.REQUEST, cache=False)
        async def session(self) -> AsyncGenerator[SQLiteSession, BaseException | None]:
            session = self.store.connect()
            yield session
            session.close()

    shop = await Shop(tmp_path, provider=Transient).create()
    taking_orders(shop)
    with pytest.raises(ConfigurationError, match="SQLiteSession, which is registered as transient"):
        await shop.app.__aenter__()


async def test_a_session_that_no_provider_gives_is_an_error_at_the_start(tmp_path: Path) -> None:
    shop = await Shop(tmp_path, provider=lambda *_: Provider(scope=Scope.REQUEST)).create()
    with pytest.raises(ConfigurationError, match="writes through SQLiteSession, which the container does not know"):
        await shop.app.__aenter__()


async def test_a_container_without_scopes_is_an_error_at_the_start(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    container = punq.Container()
    container.register(SQLiteSession, factory=store.connect)
    app = Diator("shop", broker="memory://", container=container, store=store)
    (problem,) = app.check()
    assert problem.code == "store-session"
    assert "the container has no scopes: all units of work would share one" in problem.text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"broker": "memory://"}, "no container, which must provide one session to handlers and the store"),
        ({}, "no message broker to publish its events to"),
        ({"broker": "memory://", "container": object(), "store": 5}, "store=5, which is not a store"),
    ],
)
def test_a_store_that_can_not_work_is_rejected_where_the_app_is_made(
    tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    given: dict[str, Any] = {"store": SQLiteStore(tmp_path / "shop.db")} | options
    with pytest.raises(ConfigurationError, match=text):
        Diator("shop", **given)


# ------------------------------------------------------------------------------------------- publishing outside a unit


async def test_direct_publishing_stores_events_in_a_transaction_of_their_own(shop: Shop) -> None:
    async with shop.app:
        first = await shop.app.publish(Ordered(1))
        assert await shop.app.publish(Ordered(2), Ordered(3)) is None
        assert shop.stored[0] == first
        assert len(shop.stored) == 3
        assert shop.published == []


async def test_direct_publishing_with_domain_events_is_one_unit(shop: Shop) -> None:
    @shop.app.on_event
    async def counted(event: Counted, orders: Orders) -> None:
        await orders.add(event.number)
        if event.number == 5:
            raise BrokenError

    async with shop.app:
        await shop.app.publish(Counted(4), Ordered(4))
        assert (shop.orders, len(shop.stored)) == ([4], 1)
        with pytest.raises(BrokenError):
            await shop.app.publish(Counted(5), Ordered(5))
        assert (shop.orders, len(shop.stored)) == ([4], 1)


# -------------------------------------------------------------------------------------------------- delays and cancels


class NoSchedules(MemoryBroker):
    @property
    def capabilities(self) -> BrokerCapability:
        return super().capabilities & ~BrokerCapability.SCHEDULES


@dataclass(frozen=True)
class Cancel(Command[bool]):
    message_id: str
    fails: bool = False


@pytest.mark.parametrize("after", [60, timedelta(minutes=1)])
async def test_any_broker_takes_a_delay_where_there_is_a_store(tmp_path: Path, after: Any) -> None:
    shop = await Shop(tmp_path, broker=NoSchedules(), relay=False).create()
    async with shop.app:
        await shop.app.publish(Ordered(1), after=after)
        assert shop.query("SELECT count(*) FROM diator_outbox WHERE due > written + 59") == [1]


@pytest.mark.parametrize("after", [0, 0.0, timedelta(0)])
async def test_event_with_a_delay_of_nothing_keeps_its_place(tmp_path: Path, after: Any) -> None:
    shop = await Shop(tmp_path, relay=False).create()

    @shop.app.command
    async def order(command: Order, publish: Publish[Ordered]) -> str:
        first = publish(Ordered(command.number), after=after)
        publish(Ordered(command.number))
        return first

    async with shop.app:
        first = await shop.app.send(Order(1))
        assert (shop.stored[0], len(shop.stored)) == (first, 2)
        assert shop.query("SELECT count(*) FROM diator_outbox WHERE due IS NULL") == [2]
        assert not await shop.app.cancel(first)


def cancelling(shop: Shop) -> None:
    @shop.app.command
    async def cancel(command: Cancel, publish: Publish[Ordered]) -> bool:
        done = await publish.cancel(command.message_id)
        if command.fails:
            raise BrokenError
        return done


async def test_a_delayed_event_is_cancelled_in_the_transaction_of_the_unit(shop: Shop) -> None:
    cancelling(shop)
    async with shop.app:
        message_id = await shop.app.publish(Ordered(1), after=60)
        with pytest.raises(BrokenError):
            await shop.app.send(Cancel(message_id, fails=True))
        assert shop.stored == [message_id]
        assert await shop.app.send(Cancel(message_id)) is True
        assert shop.stored == []
        assert await shop.app.send(Cancel(message_id)) is False


async def test_a_delayed_event_is_cancelled_from_outside_and_only_once(shop: Shop) -> None:
    async with shop.app:
        message_id = await shop.app.publish(Ordered(1), after=60)
        assert await shop.app.cancel(message_id) is True
        assert await shop.app.cancel(message_id) is False
        with pytest.raises(ConfigurationError, match="message_id=5"):
            await shop.app.cancel(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


async def test_what_the_unit_itself_has_published_can_be_cancelled(shop: Shop) -> None:
    @shop.app.command
    async def order(command: Order, publish: Publish[Ordered]) -> str:
        first, second = publish(Ordered(1)), publish(Ordered(2))
        assert await publish.cancel(first)
        return second

    async with shop.app:
        assert [await shop.app.send(Order())] == shop.stored


async def test_cancelling_without_a_store_says_what_is_missing() -> None:
    app = Diator("shop", broker="memory://")

    @app.command
    async def cancel(command: Cancel, publish: Publish[Ordered]) -> bool:
        return await publish.cancel(command.message_id)

    async with app:
        with pytest.raises(ConfigurationError, match=r"publish.cancel was called, but the app has no store"):
            await app.send(Cancel("id"))
        with pytest.raises(ConfigurationError, match=r"app.cancel was called, but the app has no store"):
            await app.cancel("id")


# ------------------------------------------------------------------------------------------------------ start and end


async def test_missing_tables_stop_the_start(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with pytest.raises(Exception, match="create them: diator outbox create"):
        await shop.app.__aenter__()
    await shop.create()
    async with shop.app:
        pass


async def test_a_database_that_is_away_at_the_start_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(tmp_path / "missing")
    taking_orders(shop)
    async with shop.app:
        assert "the database of the store can't be reached" in caplog.text
        (tmp_path / "missing").mkdir()
        await shop.create()
        await shop.app.send(Order(7))
        assert shop.orders == [7]
        await shop.app.publish(Ordered(1))
        assert len(shop.stored) == 2


async def test_a_recorded_app_keeps_its_store(shop: Shop) -> None:
    taking_orders(shop)
    async with shop.app:
        with record(shop.app) as journal:
            message_id = await shop.app.send(Order(7))
            assert journal.sent == [Order(7)]
        assert shop.stored == [message_id]
        assert shop.published == []


async def test_direct_publishing_in_a_handler_is_warned_of_once(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    @shop.app.command
    async def order(command: Order, app: Diator, publish: Publish[Billed]) -> str:
        return await app.publish(Ordered(command.number))

    async with shop.app:
        await shop.app.publish(Ordered(1))
        assert caplog.records == []
        await shop.app.send(Order(2))
        await shop.app.send(Order(3))
        assert len(shop.stored) == 3
    (record,) = caplog.records
    assert "app.publish was called for shop.ordered inside a handler" in record.getMessage()


async def test_cancelling_is_for_handlers_that_declare_an_event_that_leaves(shop: Shop) -> None:
    @shop.app.command
    async def cancel(command: Cancel, publish: Publish[Counted]) -> bool:
        return await publish.cancel(command.message_id)

    @shop.app.on_event
    async def counted(event: Counted) -> None: ...

    async with shop.app:
        with pytest.raises(DiatorError, match=r"declares no event that goes over a broker; declare the event that is"):
            await shop.app.send(Cancel("id"))


async def test_cancelling_after_the_handler_has_returned_is_refused(shop: Shop) -> None:
    kept: list[Publish[Ordered]] = []

    @shop.app.command
    async def order(command: Order, publish: Publish[Ordered]) -> str:
        kept.append(publish)
        return ""

    async with shop.app:
        await shop.app.send(Order())
        with pytest.raises(LatePublishError, match=r"publish\.cancel was called after the handler had returned"):
            await kept[0].cancel("id")


async def test_cancelling_with_the_publish_of_an_earlier_handler_of_the_unit_is_refused(shop: Shop) -> None:
    kept: list[Publish[Ordered | Counted]] = []

    @shop.app.command
    async def order(command: Order, publish: Publish[Ordered | Counted]) -> str:
        kept.append(publish)
        publish(Counted(1))
        return ""

    @shop.app.on_event
    async def counted(event: Counted, publish: Publish[Billed]) -> None:
        await kept[0].cancel("id")

    async with shop.app:
        with pytest.raises(LatePublishError, match=r"publish\.cancel was called after the handler had returned"):
            await shop.app.send(Order())
