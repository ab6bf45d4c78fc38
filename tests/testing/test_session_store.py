"""Sessions of an app with a store: without it, or through its outbox and inbox, with all that is stored waited for."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diator import Command, ConfigurationError, Diator, NotificationEvent, NotPublishedError, Publish, contract
from diator.brokers import MemoryBroker
from diator.brokers.envelope import OutgoingMessage
from diator.errors import BrokerError
from diator.testing import Faults, Session, UnsettledError, minimize, record
from tests.brokered import Flaky
from tests.stores.shop import Billed, Order, Ordered, Orders, Shop


@contract("shop.reminded")
@dataclass(frozen=True)
class Reminded(NotificationEvent):
    number: int


@dataclass(frozen=True)
class Remind(Command[str]):
    number: int


@dataclass(frozen=True)
class Forget(Command[bool]):
    message_id: str


async def made(folder: Path, **options: Any) -> Shop:
    """A shop where orders are billed, once if its inbox is used."""
    shop = await Shop(folder, **options).create()

    @shop.app.command
    async def order(command: Order, orders: Orders, publish: Publish[Ordered]) -> str:
        await orders.add(command.number)
        return publish(Ordered(command.number))

    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders, publish: Publish[Billed]) -> None:
        await orders.add(event.number * 10)
        publish(Billed(event.number))

    return shop


async def test_events_pass_by_the_store_by_default(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    async with shop.app.testing() as session:
        await session.send(Order(1))
        await session.settled()
    assert shop.orders == [1, 10]
    assert session.published == [Ordered(1), Billed(1)]
    assert (shop.stored, shop.inbox) == ([], [])


async def test_settled_waits_until_all_that_is_stored_is_published_and_handled(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    async with shop.app.testing(store="keep") as session:
        for number in range(5):
            await session.send(Order(number))
        await session.settled()
        assert len(shop.inbox) == 5
        assert shop.orders[:5] == list(range(5))
        assert sorted(shop.orders[5:]) == [0, 10, 20, 30, 40]
        # Nobody handles Billed: it is published before `settled` returns all the same.
        assert sorted(event.number for event in session.published.of(Billed)) == list(range(5))
    assert shop.stored == []
    assert session.published.entries[0].context is not None
    assert shop.broker.publications == []  # the app's own


async def test_what_is_published_outside_of_a_unit_is_waited_for(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    async with shop.app.testing(store="keep") as session:
        await session.publish(Ordered(3))
        await session.settled()
    assert shop.orders == [30]
    assert session.published == [Ordered(3), Billed(3)]


async def test_a_relay_that_publishes_what_is_not_reported_as_stored_yet_leaves_nothing_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It happens on a busy machine: the relay sees a commit before the task that has made it goes on."""
    shop = await made(tmp_path)
    write = shop.store.write

    async def slow(messages: Sequence[OutgoingMessage]) -> None:
        await write(messages)
        while shop.orders != [30]:  # noqa: ASYNC110 - the database has no event to wait for
            await asyncio.sleep(0.01)

    monkeypatch.setattr(shop.store, "write", slow)
    async with shop.app.testing(store="keep") as session:
        await session.publish(Ordered(3))
        await session.settled(5)
    assert session.published == [Ordered(3), Billed(3)]


async def test_a_unit_that_fails_stores_nothing_to_wait_for(tmp_path: Path) -> None:
    shop = await Shop(tmp_path).create()

    @shop.app.command
    async def order(command: Order, orders: Orders, publish: Publish[Ordered]) -> str:
        await orders.add(command.number)
        publish(Ordered(command.number))
        raise ValueError("no such number")

    async with shop.app.testing(store="keep") as session:
        with pytest.raises(ValueError, match="no such number"):
            await session.send(Order(1))
        await session.settled()
    assert session.published == []
    assert (shop.orders, shop.stored) == ([], [])


async def test_a_session_relays_for_an_app_that_leaves_that_to_others(tmp_path: Path) -> None:
    shop = await made(tmp_path, relay=False)
    async with shop.app.testing(store="keep") as session:
        await session.send(Order(1))
        await session.settled()
    assert shop.orders == [1, 10]


async def test_rows_wait_for_a_broker_that_is_away_and_are_told_if_they_wait_too_long(tmp_path: Path) -> None:
    shop, broker = await made(tmp_path), Flaky()
    async with shop.app.testing(store="keep", broker=broker) as session:
        broker.break_down("publish")
        await session.send(Order(1))
        with pytest.raises(
            UnsettledError, match=r"Ordered\(number=1\) is in the outbox, and no relay has published it"
        ):
            await session.settled(timeout=0.1)
        broker.mend()
        await session.settled()
    assert session.published == [Ordered(1), Billed(1)]


async def test_a_row_that_the_broker_rejects_is_not_waited_for(tmp_path: Path) -> None:
    shop, broker = await made(tmp_path), Flaky()

    async def reject(messages: Any) -> None:
        raise NotPublishedError((), rejected=messages) from BrokerError("not like that")

    broker.publishing = reject
    async with shop.app.testing(store="keep", broker=broker) as session:
        await session.send(Order(1))
        await session.settled()
    assert session.published == []
    assert isinstance(session.entries[-1].error, NotPublishedError)


async def reminding(folder: Path) -> Shop:
    shop = await Shop(folder).create()

    @shop.app.command
    async def remind(command: Remind, publish: Publish[Reminded]) -> str:
        return publish(Reminded(command.number), after=60.0)

    @shop.app.command
    async def forget(command: Forget, publish: Publish[Reminded]) -> bool:
        return await publish.cancel(command.message_id)

    @shop.app.on_event
    async def note(event: Reminded, orders: Orders) -> None:
        await orders.add(event.number)

    return shop


@pytest.mark.parametrize("keep", [True, False])
async def test_delayed_events_are_delivered_at_once(tmp_path: Path, keep: bool) -> None:
    shop = await reminding(tmp_path)
    async with shop.app.testing(store="keep" if keep else None) as session:
        await session.send(Remind(1))
        await session.settled()
    assert shop.orders == [1]


async def in_a_command(shop: Shop, message_id: str) -> bool:
    return await shop.app.send(Forget(message_id))


async def outside(shop: Shop, message_id: str) -> bool:
    return await shop.app.cancel(message_id)


@pytest.mark.parametrize("cancel", [in_a_command, outside])
async def test_a_delayed_event_that_is_cancelled_is_not_waited_for(
    tmp_path: Path, cancel: Callable[[Shop, str], Any]
) -> None:
    shop = await reminding(tmp_path)
    async with shop.app.testing(store="keep", delays=True) as session:
        message_id = await session.send(Remind(1))
        assert await cancel(shop, message_id) is True
        assert await cancel(shop, message_id) is False
        await session.settled(timeout=5.0)
    assert shop.orders == []


# Faults


def orders_are_billed_once(shop: Shop, **options: Any) -> Callable[[Faults], Any]:
    async def test(faults: Faults) -> None:
        before = len(shop.orders)
        async with shop.app.testing(faults=faults, **options) as session:
            for number in range(3):
                await session.send(Order(number))
            await session.settled()
        assert sorted(shop.orders[before:]) == [0, 0, 1, 2, 10, 20]

    return test


async def test_with_the_inbox_no_fault_runs_a_handler_twice(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    await minimize(orders_are_billed_once(shop, store="keep"), runs=10)
    await orders_are_billed_once(shop, store="keep")(Faults(duplicates=1.0, crashes=1.0))
    with pytest.raises(AssertionError, match="test fails with 1 of"):
        await minimize(orders_are_billed_once(shop))


async def test_outages_delay_what_is_stored_and_fail_no_command(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    plan = [f"outage: shop.ordered #{number}" for number in (1, 2, 3)]
    await orders_are_billed_once(shop, store="keep")(Faults(plan=plan))


async def test_an_outage_for_each_event_of_a_unit_ends_soon(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    async with shop.app.testing(store="keep", faults=Faults(broker_outages=1.0)) as session:
        await session.publish(*map(Ordered, range(20)))
        await session.settled()
    assert len(shop.orders) == 20


async def test_the_same_faults_are_injected_through_a_store(tmp_path: Path) -> None:
    async def play(shop: Shop) -> Session:
        async with shop.app.testing(store="keep", faults=Faults(seed=2, duplicates=0.5)) as session:
            for number in range(5):
                await session.send(Order(number))
            await session.settled()
        return session

    shop = await made(tmp_path)
    first = (await play(shop)).faults
    assert first
    assert sorted((await play(shop)).faults) == sorted(first)


# Records


async def test_a_record_keeps_the_store(tmp_path: Path) -> None:
    shop = await made(tmp_path, relay=False)
    async with record(shop.app) as seen:
        await shop.app.send(Order(1))
    assert len(shop.stored) == 1
    assert seen.handled == [Order(1)]
    assert seen.published == []  # a relay has it to come
    async with shop.app:
        async with record(shop.app):
            await shop.app.send(Order(2))
        await shop.app.send(Order(3))
    assert len(shop.stored) == 3
    assert shop.broker.publications == []


async def test_a_record_shows_what_the_relay_publishes(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    async with record(shop.app) as seen:
        await shop.app.send(Order(1))
        await shop.until(lambda: shop.stored == [])
    assert seen.published == [Ordered(1)]
    assert len(shop.published) == 1


# Bad input


async def test_a_store_that_is_not_there_can_not_be_kept() -> None:
    with pytest.raises(ConfigurationError, match=r"got store='keep', but <Diator 'shop'> has no store"):
        async with Diator("shop", broker="memory://").testing(store="keep"):
            pass
    with pytest.raises(ConfigurationError, match=r"got store='sqlite'; expected one of 'keep', or None"):
        Diator("shop", broker="memory://").testing(store="sqlite")  # type: ignore[arg-type]  # wrong on purpose


async def test_an_app_that_relays_already_keeps_its_store_to_itself(tmp_path: Path) -> None:
    shop = await made(tmp_path, broker=MemoryBroker())
    async with shop.app:
        with pytest.raises(ConfigurationError, match="runs already, and publishes what is stored to its own broker"):
            async with shop.app.testing(store="keep"):
                pass
        async with shop.app.testing() as session:
            await session.send(Order(1))
            await session.settled()
    assert shop.orders == [1, 10]
