"""The relay, with the store on sqlite3, a publisher that fails when told to, and virtual time."""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from diator import BrokerError, BrokerUnavailableError, Hooks, NotPublishedError, StoreError, StoreUnavailableError
from diator._hooks import HookDispatcher
from diator.brokers import Envelope, OutgoingMessage
from diator.delivery.relay import LEASE, Relay
from diator.hooks import Relayed
from diator.stores import StoredMessage
from tests.stores.sqlite_store import SQLiteStore
from tests.virtual_time import run

numbers = itertools.count()


def message(key: str | None = None, *, topic: str = "orders", number: int | None = None) -> OutgoingMessage:
    found = next(numbers) if number is None else number
    envelope = Envelope(
        specversion="1.0", id=f"{found}", source="shop", type="placed", partitionkey=key, data=msgspec.Raw(b"{}")
    )
    return OutgoingMessage(topic, envelope)


class FaultyStore(SQLiteStore):
    """Fails, or hangs, where it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, partitions=4, clock=lambda: asyncio.get_running_loop().time())
        self.broken: dict[str, BaseException] = {}
        self.hanging: set[str] = set()
        self.slow: dict[str, float] = {}
        self.calls: list[str] = []

    async def _maybe(self, call: str) -> None:
        self.calls.append(call)
        await asyncio.sleep(self.slow.get(call, 0.0))
        if call in self.hanging or "all" in self.hanging:
            await asyncio.get_running_loop().create_future()
        error = self.broken.get(call) or self.broken.get("all")
        if error is not None:
            raise error

    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        await self._maybe("lease")
        return await super().lease(relay, seconds=seconds, rank=rank)

    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        await self._maybe("read")
        return await super().read(held, limit, without=without)

    async def delete(self, held: Mapping[int, int], rows: Sequence[StoredMessage], /) -> int:
        await self._maybe("delete")
        return await super().delete(held, rows)

    async def release(self, relay: str, /) -> None:
        await self._maybe("release")
        await super().release(relay)


class Bench:
    def __init__(self, path: Path) -> None:
        self.store = FaultyStore(path)
        self.published: list[OutgoingMessage] = []
        self.attempts = 0
        self.fails: Callable[[OutgoingMessage], str | None] = lambda _: None
        """Says for a message whether it is unsent, unknown or rejected."""
        self.cause: BaseException = BrokerUnavailableError("away")
        self.slow = 0.0

    async def publish(self, messages: Sequence[OutgoingMessage], timeout: float) -> None:
        self.attempts += 1
        await asyncio.sleep(self.slow)
        found: dict[str, list[OutgoingMessage]] = {"unsent": [], "unknown": [], "rejected": []}
        waiting = set[tuple[str, str | None]]()
        for one in messages:
            how = self.fails(one)
            if how is None and one.key is not None and (one.topic, one.key) in waiting:
                how = "unsent"
            if how is None:
                self.published.append(one)
            else:
                found[how].append(one)
                if how != "rejected":
                    waiting.add((one.topic, one.key))
        if any(found.values()):
            raise NotPublishedError(**found) from self.cause

    def relay(self, *hooks: Hooks, workers: int = 0) -> Relay:
        relay = Relay(self.store, self.publish, HookDispatcher(hooks), 10.0)
        for _ in range(workers):
            relay.enter_worker()
        return relay

    @asynccontextmanager
    async def relaying(self, *hooks: Hooks, workers: int = 0) -> AsyncGenerator[Relay, None]:
        relay = self.relay(*hooks, workers=workers)
        await relay.start()
        try:
            await asyncio.sleep(0.01)
            yield relay
        finally:
            await relay.stop()

    @property
    def ids(self) -> list[int]:
        return [int(one.id) for one in self.published]

    async def left(self) -> int:
        return sum(one.waiting for one in (await self.store.status()).partitions)

    async def until(self, met: Callable[[], bool], within: float = 60.0) -> float:
        """Wait until a condition is met; return the seconds that it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not met():
            assert loop.time() - began < within, "it did not come"
            await asyncio.sleep(0.001)
        return loop.time() - began


def with_bench(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    async def main(path: Path) -> None:
        bench = Bench(path)
        await bench.store.create("shop")
        await bench.store.open("shop")
        try:
            await test(bench)
        finally:
            await bench.store.aclose()

    def play(tmp_path: Path) -> None:
        run(main(tmp_path / "shop.db"))

    play.__name__ = test.__name__
    return play


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


all_partitions = range(4)


# What is there, and wake-ups


@with_bench
async def test_rows_are_published_in_order_and_deleted(bench: Bench) -> None:
    written = [message(f"{number % 7}") for number in range(1200)]
    await bench.store.write(written)
    async with bench.relaying():
        await bench.until(lambda: len(bench.published) == 1200, within=0.1)
    for key in range(7):
        assert [one.id for one in bench.published if one.key == f"{key}"] == [
            one.id for one in written if one.key == f"{key}"
        ]
    assert await bench.left() == 0
    assert [one.structured for one in sorted(bench.published, key=lambda one: int(one.id))] == [
        one.structured for one in written
    ]


@with_bench
async def test_a_wake_up_has_rows_published_at_once(bench: Bench) -> None:
    async with bench.relaying() as relay:
        await asyncio.sleep(0.3)
        await bench.store.write([message("a")])
        relay.notify(all_partitions)
        assert await bench.until(lambda: bool(bench.published)) <= 0.002


@with_bench
async def test_rows_without_a_wake_up_are_found_within_a_second(bench: Bench) -> None:
    async with bench.relaying():
        await asyncio.sleep(0.3)
        for _ in range(3):
            await bench.store.write([message("a")])
            count = len(bench.published)
            assert await bench.until(lambda count=count: len(bench.published) > count) <= 1.05  # type: ignore[misc]  # mypy knows no type of such a default


@with_bench
async def test_many_commits_share_rounds(bench: Bench) -> None:
    async with bench.relaying() as relay:
        await asyncio.sleep(0.3)
        before = bench.store.calls.count("read")
        for _ in range(100):
            await bench.store.write([message("a")])
            relay.notify(all_partitions)
            await asyncio.sleep(0.001)
        await bench.until(lambda: len(bench.published) == 100)
        assert bench.store.calls.count("read") - before < 10


@with_bench
async def test_wake_ups_for_partitions_of_others_cost_nothing(bench: Bench) -> None:
    async with bench.relaying(), bench.relaying() as second:
        await asyncio.sleep(6)
        await bench.until(lambda: bool(second.held))
        await asyncio.sleep(0.5)
        calls = len(bench.store.calls)
        second.notify(set(all_partitions) - set(second.held))
        await asyncio.sleep(0.01)
        assert len(bench.store.calls) == calls


@with_bench
async def test_what_is_written_while_a_batch_is_published_is_not_forgotten(bench: Bench) -> None:
    bench.slow = 0.1
    async with bench.relaying() as relay:
        await bench.store.write([message("a")])
        relay.notify(all_partitions)
        await asyncio.sleep(0.05)  # it is publishing now
        await bench.store.write([message("a")])
        relay.notify(all_partitions)
        assert await bench.until(lambda: len(bench.published) == 2) < 0.3


# Delayed rows


@with_bench
async def test_delayed_rows_leave_when_they_are_due_in_the_order_of_their_times(bench: Bench) -> None:
    now = asyncio.get_running_loop().time()
    times = (7.25, 3.5, 3.25)
    messages = [message("a", number=number) for number in range(3)]
    for one, seconds in zip(messages, times, strict=True):
        one.due = datetime.fromtimestamp(now + seconds, timezone.utc)
    await bench.store.write(messages)
    async with bench.relaying():
        await bench.until(lambda: bench.ids == [2])
        assert 3.25 <= asyncio.get_running_loop().time() - now < 3.3
        await bench.until(lambda: bench.ids == [2, 1])
        await bench.until(lambda: bench.ids == [2, 1, 0])
        assert 7.25 <= asyncio.get_running_loop().time() - now < 7.3


# The broker


def test_an_outage_is_logged_once_and_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @with_bench
    async def outage(bench: Bench) -> None:
        written = [message(f"{number % 5}" if number % 2 else None) for number in range(900)]
        await bench.store.write(written)
        bench.fails = lambda _: "unsent"
        async with bench.relaying() as relay:
            await asyncio.sleep(60)
            assert not bench.published
            assert bench.attempts < 60  # with a backoff
            assert relay.failures == ["the relay can't publish (BrokerUnavailableError: away)"]
            bench.fails = lambda _: None
            assert await bench.until(lambda: len(bench.published) == 900) < 7
            await asyncio.sleep(0.1)
            assert relay.failures == []
        assert not (await bench.store.status()).dead_letters
        for key in range(5):
            ids = [int(one.id) for one in bench.published if one.key == f"{key}"]
            assert ids == sorted(ids)

    outage(tmp_path)
    first, second = logged(caplog)
    assert "can't publish (BrokerUnavailableError: away); events wait in the outbox" in first
    assert "the relay can publish again, after 6" in second


def test_a_permanent_error_that_names_no_message_is_an_outage_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @with_bench
    async def refused(bench: Bench) -> None:
        await bench.store.write([message("a"), message()])
        bench.fails, bench.cause = lambda _: "unsent", BrokerError("access denied")
        async with bench.relaying():
            await asyncio.sleep(600)
            bench.fails = lambda _: None
            await bench.until(lambda: len(bench.published) == 2)
        assert not (await bench.store.status()).dead_letters

    refused(tmp_path)
    assert len(logged(caplog, logging.ERROR)) == 1


@with_bench
async def test_a_key_that_fails_waits_in_order_and_others_go_on(bench: Bench) -> None:
    await bench.store.write([message("a" if number % 2 else "b", number=number) for number in range(10)])
    bench.fails = lambda one: "unknown" if one.id == "3" else None
    async with bench.relaying() as relay:
        await bench.until(lambda: len(bench.ids) == 6)  # 1 of "a", 5 of "b"
        await bench.store.write([message("a", number=11), message("b", number=12)])
        relay.notify(all_partitions)
        assert await bench.until(lambda: 12 in bench.ids) < 0.1
        await asyncio.sleep(20)
        assert [one for one in bench.ids if one % 2] == [1]
        bench.fails = lambda _: None
        await bench.until(lambda: len(bench.ids) == 12, within=7)
        assert [one for one in bench.ids if one % 2] == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize("key", ["a", None])
def test_rows_that_wait_do_not_starve_those_behind_them(tmp_path: Path, key: str | None) -> None:
    @with_bench
    async def starving(bench: Bench) -> None:
        await bench.store.write([message(key, topic="gone") for _ in range(1300)])
        await bench.store.write([message("b"), message()])
        bench.fails = lambda one: "unsent" if one.topic == "gone" else None
        async with bench.relaying() as relay:
            assert await bench.until(lambda: len(bench.published) == 2) < 1
            await asyncio.sleep(30)
            await bench.store.write([message("b"), message()])
            relay.notify(all_partitions)
            assert await bench.until(lambda: len(bench.published) == 4) < 1

    starving(tmp_path)


@pytest.mark.once
@with_bench
async def test_more_keys_that_fail_than_one_read_can_leave_out(bench: Bench) -> None:
    await bench.store.write([message(f"{number}") for number in range(7000)])
    bench.fails = lambda _: "unsent"
    async with bench.relaying():
        await asyncio.sleep(20)
        bench.fails = lambda _: None
        await bench.until(lambda: len(bench.published) == 7000, within=10)


def test_what_the_broker_rejects_for_what_it_is_becomes_a_dead_letter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @with_bench
    async def rejected(bench: Bench) -> None:
        await bench.store.write([message("a", number=number) for number in range(5)])
        bench.fails = lambda one: {"1": "rejected", "3": "rejected"}.get(one.id)
        bench.cause = BrokerError("too large")
        async with bench.relaying():
            assert await bench.until(lambda: bench.ids == [0, 2, 4]) < 0.1
            await asyncio.sleep(0.1)
        letters = await bench.store.dead_letters()
        assert [(one.id, one.error) for one in letters] == [
            ("1", "BrokerError: too large"),
            ("3", "BrokerError: too large"),
        ]
        assert await bench.left() == 0

    rejected(tmp_path)
    first, _ = logged(caplog, logging.ERROR)
    assert "Moving message 1 for orders to the dead letters of the outbox (BrokerError: too large)" in first


@with_bench
async def test_messages_that_failed_only_with_a_rejected_one_are_tried_again_at_once(bench: Bench) -> None:
    await bench.store.write([message("a", number=number) for number in range(4)])
    bench.fails = lambda one: ("rejected" if one.id == "2" else "unsent") if bench.attempts == 1 else None
    async with bench.relaying() as relay:
        assert await bench.until(lambda: bench.ids == [0, 1, 3]) < 0.1
        assert relay.failures == []


@with_bench
async def test_a_row_whose_bytes_cannot_be_read_becomes_a_dead_letter(bench: Bench) -> None:
    class Damaged(OutgoingMessage):
        @property
        def structured(self) -> bytes:
            return b"{}"

    damaged = Damaged("orders", message("a", number=0).envelope)
    await bench.store.write([damaged, message("a", number=1)])
    async with bench.relaying():
        await bench.until(lambda: bench.ids == [1], within=0.1)
        await asyncio.sleep(0.1)
    (letter,) = await bench.store.dead_letters()
    assert letter.id == "0"
    assert "UnreadableMessageError" in letter.error


# The database


def test_a_database_that_is_away_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @with_bench
    async def away(bench: Bench) -> None:
        bench.store.broken["all"] = StoreUnavailableError("no route")
        async with bench.relaying() as relay:
            await asyncio.sleep(100)
            assert relay.failures == ["the relay can't use the outbox (StoreUnavailableError: no route)"]
            assert len(bench.store.calls) < 60
            del bench.store.broken["all"]
            await bench.store.write([message("a")])
            assert await bench.until(lambda: bool(bench.published)) < 7
            assert relay.failures == []

    away(tmp_path)
    first, second = logged(caplog)
    assert "can't use the outbox (StoreUnavailableError: no route)" in first
    assert "the relay can use the outbox again, after 10" in second


@pytest.mark.parametrize("error", [RuntimeError("a bug"), StoreError("a table is gone")])
def test_other_errors_of_the_store_are_loud_and_do_not_end_the_relay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    @with_bench
    async def failing(bench: Bench) -> None:
        bench.store.broken["read"] = error
        await bench.store.write([message("a")])
        async with bench.relaying():
            await asyncio.sleep(10)
            del bench.store.broken["read"]
            assert await bench.until(lambda: bool(bench.published)) < 7

    failing(tmp_path)
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert str(error) in record.getMessage()
    assert bool(record.exc_info) is isinstance(error, RuntimeError)


@with_bench
async def test_rows_that_were_published_are_not_published_again_if_they_cannot_be_deleted(bench: Bench) -> None:
    bench.store.broken["delete"] = StoreUnavailableError("no route")
    await bench.store.write([message("a", number=number) for number in range(3)])
    async with bench.relaying():
        await asyncio.sleep(8)
        assert bench.ids == [0, 1, 2]
        del bench.store.broken["delete"]
        await bench.store.write([message("a", number=3)])
        await bench.until(lambda: bench.ids == [0, 1, 2, 3], within=7)
    assert await bench.left() == 0


@pytest.mark.parametrize("call", ["lease", "read", "delete", "all"])
def test_a_store_that_hangs_is_given_up_and_the_end_does_not_wait_for_it(tmp_path: Path, call: str) -> None:
    @with_bench
    async def hanging(bench: Bench) -> None:
        await bench.store.write([message("a")])
        bench.store.hanging.add(call)
        relay = bench.relay()
        await relay.start()
        await asyncio.sleep(20)
        assert "no answer within 5 s" in relay.failures[0]
        bench.store.hanging.clear()
        await bench.until(lambda: bool(bench.published), within=15)
        bench.store.hanging.add(call)
        await bench.store.write([message("a")])
        began = asyncio.get_running_loop().time()
        await relay.stop()
        assert asyncio.get_running_loop().time() - began < 25

    hanging(tmp_path)


@with_bench
async def test_a_cancel_that_the_driver_raises_does_not_end_the_relay(bench: Bench) -> None:
    bench.store.broken["read"] = asyncio.CancelledError()
    await bench.store.write([message("a")])
    async with bench.relaying() as relay:
        await asyncio.sleep(1)
        assert "a call was cancelled" in relay.failures[0]
        del bench.store.broken["read"]
        await bench.until(lambda: bool(bench.published), within=7)


# Several relays


@with_bench
async def test_relays_share_the_partitions_and_take_over_what_is_released(bench: Bench) -> None:
    async with bench.relaying() as first:
        assert len(first.held) == 4
        async with bench.relaying() as second:
            await asyncio.sleep(2 * LEASE / 3 + 0.1)
            assert (len(first.held), len(second.held)) == (2, 2)
            assert not set(first.held) & set(second.held)
        await asyncio.sleep(LEASE / 3 + 0.1)
        assert len(first.held) == 4


@with_bench
async def test_release_that_fails_once_is_tried_again(bench: Bench) -> None:
    class Once(dict[str, BaseException]):
        def get(self, call: str, default: Any = None, /) -> Any:
            return self.pop(call, default)

    async with bench.relaying():
        bench.store.broken = Once(release=StoreUnavailableError("locked"))
    async with bench.relaying() as relay:
        assert len(relay.held) == 4


@with_bench
async def test_relays_beside_workers_come_first(bench: Bench) -> None:
    async with bench.relaying() as web:
        assert len(web.held) == 4
        async with bench.relaying(workers=1) as worker:
            await asyncio.sleep(2 * LEASE / 3 + 0.1)
            assert (len(web.held), len(worker.held)) == (0, 4)
        await asyncio.sleep(LEASE / 3 + 0.1)
        assert len(web.held) == 4
        worker_of_its_own = web
        worker_of_its_own.enter_worker()
        async with bench.relaying() as other:
            await asyncio.sleep(LEASE)
            assert (len(web.held), len(other.held)) == (4, 0)


@with_bench
async def test_a_relay_that_was_frozen_changes_nothing_of_its_successors(bench: Bench) -> None:
    first = Bench(Path(str(bench.store.path)))  # a process of its own
    await first.store.open("shop")
    async with first.relaying() as frozen:
        first.slow = 2 * LEASE  # it ignores its timeout, as a process that is stopped does
        await bench.store.write([message("a", number=number) for number in range(3)])
        frozen.notify(all_partitions)
        await asyncio.sleep(LEASE + 0.1)
        async with bench.relaying():
            await bench.until(lambda: bench.ids == [0, 1, 2], within=LEASE)
            deleted = await bench.left()
            await bench.store.write([message("a", number=3)])
            first.slow = 0
            await asyncio.sleep(LEASE)
            assert deleted == 0
            assert bench.ids == [0, 1, 2, 3] or first.ids[-1] == 3
            assert first.ids[:3] == [0, 1, 2]  # late, with the same ids
    await first.store.aclose()


@with_bench
async def test_publishing_does_not_begin_when_little_of_the_lease_is_left(bench: Bench) -> None:
    async with bench.relaying() as relay:
        await asyncio.sleep(LEASE / 3 - 0.1)
        bench.store.slow["read"] = 4.5
        await bench.store.write([message("a")])
        relay.notify(all_partitions)
        await asyncio.sleep(0.1)
        bench.store.slow.clear()
        assert bench.store.calls.count("lease") == 1
        assert 4.3 < await bench.until(lambda: bool(bench.published)) < 4.5
        assert bench.store.calls.count("lease") == 2


# The end


@with_bench
async def test_the_end_publishes_what_is_there(bench: Bench) -> None:
    relay = bench.relay()
    await relay.start()
    await asyncio.sleep(0.5)
    await bench.store.write([message("a") for _ in range(3000)])
    await relay.stop()
    await relay.stop()
    assert len(bench.published) == 3000
    assert [one.holder for one in (await bench.store.status()).partitions] == [None] * 4
    assert relay.failures == []
    relay.notify(all_partitions)  # which is too late, and does nothing


@pytest.mark.parametrize("fails", ["unsent", None])
def test_the_end_is_bounded(tmp_path: Path, fails: str | None) -> None:
    @with_bench
    async def ending(bench: Bench) -> None:
        bench.slow = 0.0 if fails else 2.0
        bench.fails = lambda _: fails
        relay = bench.relay()
        await relay.start()
        await asyncio.sleep(0.5)
        await bench.store.write([message("a") for _ in range(10_000)])
        began = asyncio.get_running_loop().time()
        await relay.stop()
        assert asyncio.get_running_loop().time() - began < 8
        assert await bench.left() > 0
        bench.slow = 0.0
        bench.fails = lambda _: None
        async with bench.relaying():
            await bench.until(lambda: len(bench.published) == 10_000)

    ending(tmp_path)


@with_bench
async def test_a_relay_can_be_started_again(bench: Bench) -> None:
    relay = bench.relay()
    for count in (1, 2):
        await relay.start()
        await bench.store.write([message("a")])
        await bench.until(lambda count=count: len(bench.published) == count)  # type: ignore[misc]  # mypy knows no type of such a default
        await relay.stop()


# Beside that


@with_bench
async def test_old_rows_of_the_inbox_are_deleted_in_small_batches(bench: Bench) -> None:
    connection = bench.store.connect()
    now = asyncio.get_running_loop().time()
    old = now - timedelta(days=30).total_seconds() - 1
    rows = [("bill", f"{number}", old if number < 2500 else now) for number in range(2600)]
    connection.executemany("INSERT INTO diator_inbox VALUES (?, ?, ?)", rows)
    connection.close()
    async with bench.relaying():
        await asyncio.sleep(70)
        assert (await bench.store.status()).handled == 100


@with_bench
async def test_old_rows_of_the_inbox_are_deleted_under_load_that_never_ends(bench: Bench) -> None:
    connection = bench.store.connect()
    connection.execute("INSERT INTO diator_inbox VALUES ('bill', '1', ?)", (-timedelta(days=31).total_seconds(),))
    connection.close()
    async with bench.relaying() as relay:
        for _ in range(700):
            await bench.store.write([message()])
            relay.notify(range(4))
            await asyncio.sleep(0.1)
        assert (await bench.store.status()).handled == 0


@with_bench
async def test_hooks_get_the_rows_and_the_age_of_the_oldest(bench: Bench) -> None:
    told: list[Relayed] = []

    class Keeps(Hooks):
        def relayed(self, details: Relayed, /) -> None:
            told.append(details)

    bench.store.clock = lambda: datetime.now(timezone.utc).timestamp() - 100  # as virtual time is not
    await bench.store.write([message("a", number=0), message("a", number=1)])
    async with bench.relaying(Keeps()):
        await bench.until(lambda: len(bench.published) == 2)
    assert [[row.id for row in details.rows] for details in told] == [["0", "1"]]
    assert 100 <= told[0].oldest < 110


# Wake-ups between processes


class Line(FaultyStore):
    """The database notifies: each store hears all others of its list."""

    def __init__(self, path: Path, listeners: "list[Callable[[Collection[int]], None]]") -> None:
        super().__init__(path)
        self.listeners = listeners
        self.notified: list[set[int]] = []
        self.lost: asyncio.Future[None] | None = None

    async def notify(self, partitions: Collection[int], /) -> None:
        await self._maybe("notify")
        self.notified.append(set(partitions))
        for heard in tuple(self.listeners):
            heard(partitions)

    @asynccontextmanager
    async def listen(self, heard: Callable[[Collection[int]], None], /) -> AsyncGenerator[None, None]:
        await self._maybe("listen")
        self.listeners.append(heard)
        task = asyncio.current_task()
        assert task is not None
        self.lost = asyncio.get_running_loop().create_future()
        self.lost.add_done_callback(lambda _: task.cancel())
        try:
            yield
        except asyncio.CancelledError:
            if not self.lost.done():
                raise
            raise StoreUnavailableError("the connection was lost") from None
        finally:
            await asyncio.sleep(self.slow.get("close", 0.0))
            self.listeners.remove(heard)
            self.lost.cancel()


async def two(bench: Bench) -> tuple[Bench, Bench]:
    """Two processes that hear each other."""
    listeners: list[Callable[[Collection[int]], None]] = []
    found = Bench(Path(str(bench.store.path))), Bench(Path(str(bench.store.path)))
    for one in found:
        one.store = Line(Path(str(bench.store.path)), listeners)
        await one.store.open("shop")
    return found


@with_bench
async def test_relays_of_other_processes_are_woken(bench: Bench) -> None:
    web, worker = await two(bench)
    async with worker.relaying(workers=1), web.relaying() as relay:
        await asyncio.sleep(0.3)
        await web.store.write([message("a")])
        relay.notify(all_partitions)
        assert await bench.until(lambda: bool(worker.published)) < 0.01
    for one in (web, worker):
        await one.store.aclose()


@with_bench
async def test_many_commits_notify_seldom(bench: Bench) -> None:
    web, worker = await two(bench)
    async with worker.relaying(workers=1), web.relaying() as relay:
        await asyncio.sleep(0.3)
        for number in range(100):
            relay.notify([number % 4])
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert isinstance(web.store, Line)
        assert len(web.store.notified) < 10
        assert set().union(*web.store.notified[1:]) == {0, 1, 2, 3}
    for one in (web, worker):
        await one.store.aclose()


def test_wake_ups_that_fail_are_logged_once_and_cost_a_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @with_bench
    async def failing(bench: Bench) -> None:
        web, worker = await two(bench)
        web.store.broken["notify"] = StoreUnavailableError("no route")
        async with worker.relaying(workers=1), web.relaying() as relay:
            await asyncio.sleep(0.3)
            for number in range(3):
                await web.store.write([message("a")])
                relay.notify(all_partitions)
                await bench.until(lambda number=number: len(worker.published) > number, within=1.1)  # type: ignore[misc]  # mypy knows no type of such a default
        for one in (web, worker):
            await one.store.aclose()

    failing(tmp_path)
    assert logged(caplog) == [
        "the store can't notify (StoreUnavailableError: no route); relays look for new rows each second until it can"
    ]


@with_bench
async def test_a_relay_listens_again_when_the_connection_was_lost(bench: Bench) -> None:
    web, worker = await two(bench)
    assert isinstance(worker.store, Line)
    async with worker.relaying(workers=1), web.relaying() as relay:
        await asyncio.sleep(0.3)
        assert worker.store.lost is not None
        worker.store.lost.cancel()
        await asyncio.sleep(0.5)
        assert len(worker.store.listeners) == 2
        await web.store.write([message("a")])
        relay.notify(all_partitions)
        assert await bench.until(lambda: bool(worker.published)) < 0.01
    assert worker.store.listeners == []
    for one in (web, worker):
        await one.store.aclose()


@with_bench
async def test_the_end_does_not_wait_for_a_connection_that_does_not_close(bench: Bench) -> None:
    web, worker = await two(bench)
    assert isinstance(worker.store, Line)
    worker.store.slow["close"] = 60.0
    relay = worker.relay()
    await relay.start()
    await asyncio.sleep(0.3)
    began = asyncio.get_running_loop().time()
    await relay.stop()
    assert asyncio.get_running_loop().time() - began < 3
    await asyncio.sleep(60)  # it is left behind, and nothing else
    for one in (web, worker):
        await one.store.aclose()
