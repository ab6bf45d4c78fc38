"""An app with a store as a whole: its relay, its worker, its end, and its tests."""

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from diator import BrokerUnavailableError, Command, Hooks, Publish
from diator._inspection import hooks_of
from diator.hooks import Relayed, Stored
from diator.testing import record
from tests.stores.shop import Billed, Order, Ordered, Orders, Shop
from tests.stores.sqlite_store import SQLiteStore


class Lines(Hooks):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def stored(self, details: Stored, /) -> None:
        self.lines.append(f"stored {len(details.messages)}")

    def relayed(self, details: Relayed, /) -> None:
        self.lines.append(f"relayed {len(details.rows)}")


async def made(folder: Path, **options: Any) -> Shop:
    shop = await Shop(folder, **options).create()

    @shop.app.command
    async def order(command: Order, orders: Orders, publish: Publish[Ordered]) -> str:
        await orders.add(command.number)
        return publish(Ordered(command.number))

    return shop


async def test_what_is_stored_is_published_and_handled_with_its_follow_ups(tmp_path: Path) -> None:
    shop, lines = await made(tmp_path), Lines()
    billed: list[int] = []

    @shop.app.on_event
    async def bill(event: Ordered, orders: Orders, publish: Publish[Billed]) -> None:
        await orders.add(event.number * 10)
        publish(Billed(event.number))

    @shop.app.on_event
    async def note(event: Billed) -> None:
        billed.append(event.number)

    hooks_of(shop.app).add(lines)
    async with shop.app, shop.app.worker():
        message_id = await shop.app.send(Order(7))
        await shop.until(lambda: billed == [7])
        await shop.until(lambda: shop.stored == [])
        assert shop.orders == [7, 70]
        assert shop.published[0].id == message_id
    assert sorted(lines.lines) == ["relayed 1", "relayed 1", "stored 1", "stored 1"]


async def test_events_wait_for_a_broker_that_is_away(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    shop.broker.broken["publish"] = lambda: BrokerUnavailableError("away")
    async with shop.app:
        for number in range(3):
            await shop.app.send(Order(number))
        await asyncio.sleep(0.05)
        assert (shop.orders, len(shop.stored)) == ([0, 1, 2], 3)
        shop.broker.broken.clear()
        await shop.until(lambda: shop.stored == [])
    assert [message.key for message in shop.published if message.topic == "shop.ordered"][-3:] == ["0", "1", "2"]


async def test_the_end_publishes_what_is_stored_before_the_container_and_the_broker_close(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    async with shop.app:
        for number in range(20):
            await shop.app.send(Order(number))
    assert shop.stored == []
    assert len(shop.published) == 20
    assert shop.query("SELECT count(*) FROM diator_partitions WHERE holder IS NOT NULL") == [0]


async def test_the_end_waits_for_units_of_work_and_relays_what_they_store(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    begun, may_end = asyncio.Event(), asyncio.Event()

    class Slow(Command[None]): ...

    @shop.app.command
    async def slow(command: Slow, orders: Orders, publish: Publish[Billed]) -> None:
        begun.set()
        await may_end.wait()
        await orders.add(1)
        publish(Billed(1))

    async with shop.app:
        sending = asyncio.ensure_future(shop.app.send(Slow()))
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, may_end.set)
    await sending
    assert (shop.orders, shop.stored) == ([1], [])
    assert [message.topic for message in shop.published] == ["shop.billed"]


async def test_an_app_that_does_not_relay_leaves_its_rows_to_others(tmp_path: Path) -> None:
    shop = await made(tmp_path, relay=False)
    async with shop.app:
        await shop.app.send(Order(7))
    assert len(shop.stored) == 1
    other = Shop(tmp_path)
    async with other.app:
        await other.until(lambda: other.stored == [])
    assert len(other.published) == 1


async def test_a_record_of_a_running_app_sees_what_its_relay_publishes(tmp_path: Path) -> None:
    shop = await made(tmp_path)
    async with shop.app:
        with record(shop.app) as journal:
            await shop.app.send(Order(7))
            await shop.until(lambda: shop.stored == [])
            assert journal.published == [Ordered(7)]


async def test_a_session_goes_without_the_store_and_delivers_at_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "missing")
    billed: list[int] = []

    @shop.app.command
    async def order(command: Order, publish: Publish[Ordered]) -> str:
        first, second = publish(Ordered(command.number), after=60), publish(Ordered(2))
        assert await publish.cancel(second)
        return first

    @shop.app.on_event
    async def bill(event: Ordered, publish: Publish[Billed]) -> None:
        assert await publish.cancel(publish(Billed(event.number)))
        billed.append(event.number)

    async with shop.app.testing() as session:
        message_id = await session.send(Order(7))
        await session.settled()
        assert billed == [7]
        assert await session.cancel(message_id) is False


async def test_a_worker_in_this_process_has_its_relay_share_the_partitions(tmp_path: Path) -> None:
    shop = await made(tmp_path)

    @shop.app.on_event
    async def bill(event: Ordered) -> None: ...

    ranks = "SELECT rank FROM diator_relays"
    async with shop.app:
        await shop.until(lambda: shop.query(ranks) == [1])
        async with shop.app.worker():
            await shop.until(lambda: shop.query(ranks) == [0])
        await shop.until(lambda: shop.query(ranks) == [1])


@pytest.mark.parametrize("fails", [False, True])
async def test_a_store_that_does_not_close_keeps_neither_the_end_nor_the_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    async def aclose(self: SQLiteStore) -> None:
        if fails:
            raise RuntimeError
        await asyncio.sleep(60)

    shop = await made(tmp_path, publish_timeout=0.1)
    with monkeypatch.context() as patched:
        await shop.app.__aenter__()
        patched.setattr(SQLiteStore, "aclose", aclose)
        with pytest.raises(RuntimeError) if fails else nullcontext():
            await shop.app.__aexit__(None, None, None)
    await shop.store.aclose()
    assert shop.broker.times["aclose"] == 1
    assert fails or "the store did not close its connection within 0.1 s" in caplog.text
