"""What the core does for every broker plugin: opening once, closing once, publishing to its end and in time."""

import asyncio
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from diator_conformance.brokers.messages import message

from diator import Diator, PublishError
from diator.brokers import BrokerCapability, OutgoingMessage
from diator.brokers.port import Topic
from diator.delivery.connection import connection_of
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError
from diator.retry import Retry
from tests.brokered import Flaky, away
from tests.delivery.test_publisher import Bench, Joined, Sent
from tests.virtual_time import in_virtual_time

TOPIC = Topic("orders", ("thing.happened",))


def app_with(broker: Flaky, name: str = "shop", timeout: float = 1.0) -> Diator:
    app = Diator(name, broker=broker, publish_timeout=timeout)
    app.publishes(Sent)
    return app


@in_virtual_time
async def test_apps_that_share_a_broker_open_it_once_and_close_it_with_the_last() -> None:
    broker = Flaky()
    first, second = app_with(broker, "first"), app_with(broker, "second")
    async with second:
        async with first, first.operations() as operations:
            await operations.apply()
            assert (broker.times["connect"], broker.times["aclose"]) == (1, 0)
        assert broker.times["aclose"] == 0
        await second.publish(Sent("a"))
    assert (broker.times["connect"], broker.times["aclose"]) == (1, 1)
    async with app_with(broker, "third"):
        assert broker.times["connect"] == 2


@in_virtual_time
async def test_apps_that_start_at_the_same_time_wait_for_one_connect() -> None:
    broker = Flaky()
    broker.slow = {"connect": 0.5, "aclose": 0.5}
    apps = [app_with(broker, name) for name in ("first", "second", "third")]
    await asyncio.gather(*(app.__aenter__() for app in apps))
    assert broker.times["connect"] == 1
    closing = asyncio.gather(*(app.__aexit__(None, None, None) for app in apps))
    await asyncio.sleep(0.1)
    async with app_with(broker, "fourth"):  # while the broker is being closed
        await closing
        assert (broker.times["connect"], broker.times["aclose"]) == (2, 1)
    assert broker.times["aclose"] == 2


@in_virtual_time
async def test_an_app_that_starts_without_its_broker_closes_it_in_the_end() -> None:
    broker = Flaky()
    broker.break_down("connect")
    async with app_with(broker, "first"), app_with(broker, "second"):
        broker.mend()
        async with app_with(broker, "third"), app_with(broker, "fourth"):
            assert broker.times["connect"] == 3
    assert (broker.times["connect"], broker.times["aclose"]) == (3, 1)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (BrokerError("wrong password"), "wrong password"),
        (
            ZeroDivisionError("a bug"),
            r"Flaky.connect failed unexpectedly: ZeroDivisionError: a bug; this is a bug in the plugin",
        ),
    ],
    ids=["permanent", "of the plugin"],
)
@in_virtual_time
async def test_a_connect_that_fails_for_good_leaves_nothing_open(error: Exception, text: str) -> None:
    broker = Flaky()
    broker.break_down("connect", error=lambda: error)
    app = app_with(broker)
    for _ in range(2):
        with pytest.raises(BrokerError, match=text) as caught:
            async with app:
                pytest.fail("it has started")
        assert not isinstance(caught.value, BrokerUnavailableError)
    assert (broker.times["connect"], broker.times["aclose"]) == (2, 2)


@in_virtual_time
async def test_a_start_that_is_cancelled_leaves_nothing_open() -> None:
    broker = Flaky()
    broker.slow["connect"] = 0.5
    starting = asyncio.ensure_future(app_with(broker).__aenter__())
    await asyncio.sleep(0.1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert broker.times["aclose"] == 1


def test_a_broker_is_open_in_one_event_loop_at_a_time() -> None:
    broker = Flaky()
    apps = [app_with(broker, name) for name in ("first", "second")]

    async def start(app: Diator) -> None:
        await app.__aenter__()

    asyncio.run(start(apps[0]))
    with pytest.raises(
        BrokerError, match=r"Flaky is open in another event loop; close it there first.*its own broker object"
    ):
        asyncio.run(start(apps[1]))


def test_a_broker_without_a_hash_can_be_shared() -> None:
    class Unhashable(Flaky):
        __hash__: Any = None

    broker = Unhashable()

    async def main() -> None:
        async with app_with(broker, "first"), app_with(broker, "second"):
            pass

    asyncio.run(main())
    assert broker.times["connect"] == 1


@in_virtual_time
async def test_a_cancel_at_any_time_does_not_interrupt_publishing() -> None:
    bench = Bench()
    stored: list[OutgoingMessage] = []

    async def step_by_step(messages: Sequence[OutgoingMessage]) -> None:
        for one in messages:
            await asyncio.sleep(0.1)
            stored.append(one)

    bench.broker.publishing = step_by_step
    async with bench.app:
        for steps in range(10):
            stored.clear()
            publishing = asyncio.ensure_future(bench.app.publish(Sent("a"), Sent("b"), Sent("c")))
            for _ in range(steps):
                await asyncio.sleep(0)
            await asyncio.sleep(steps * 0.03)
            publishing.cancel()
            await asyncio.wait([publishing])
            assert publishing.cancelled()
            assert len(stored) in {0, 3}  # none: the cancel came before publishing began


@in_virtual_time
async def test_a_publish_that_never_ends_is_cut_off_and_what_became_of_its_messages_is_unknown() -> None:
    bench = Bench(publish_timeout=2)
    loop = asyncio.get_running_loop()

    async def hang(_: Sequence[OutgoingMessage]) -> None:
        await loop.create_future()

    bench.broker.publishing = hang
    async with bench.app:
        began = loop.time()
        with pytest.raises(PublishError, match="no answer within 2 s") as caught:
            await bench.app.publish(Sent("a"))
        assert loop.time() - began < 2.5
        assert (caught.value.unsent, caught.value.unknown, caught.value.permanent) == ((), (Sent("a"),), False)
        if sys.version_info >= (3, 11):
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0


@in_virtual_time
async def test_each_of_many_is_cut_off_in_its_own_time_and_the_others_go_on() -> None:
    bench = Bench(publish_timeout=2)
    loop = asyncio.get_running_loop()
    ended: dict[int, float] = {}

    async def publish(number: int) -> None:
        await asyncio.sleep(number / 10)
        began = loop.time()
        try:
            await bench.app.publish(Sent("hangs" if number % 3 else "passes"))
        except PublishError:
            await asyncio.sleep(5)  # where a cancel that comes late would strike
            ended[number] = round(loop.time() - began - 5, 2)

    async def slow(messages: Sequence[OutgoingMessage]) -> None:
        await asyncio.sleep(60 if b"hangs" in messages[0].structured else 1.5)

    bench.broker.publishing = slow
    async with bench.app:
        await asyncio.gather(*map(publish, range(30)))
    assert ended == {number: 2.2 for number in range(30) if number % 3}


@pytest.mark.parametrize("seconds", [2.199, 2.2, 2.201])
@in_virtual_time
async def test_an_answer_at_the_very_moment_of_the_cut_leaves_the_task_usable(seconds: float) -> None:
    bench = Bench(publish_timeout=2)

    async def slow(_: Sequence[OutgoingMessage]) -> None:
        await asyncio.sleep(seconds)

    bench.broker.publishing = slow
    async with bench.app:
        with suppress(PublishError):
            await bench.app.publish(Sent("a"))
        await asyncio.sleep(1)


@in_virtual_time
async def test_a_publish_that_is_cut_off_may_say_more_precisely_what_became_of_its_messages() -> None:
    bench = Bench(publish_timeout=2)

    async def hang(messages: Sequence[OutgoingMessage]) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise NotPublishedError(messages) from away()

    bench.broker.publishing = hang
    async with bench.app:
        with pytest.raises(PublishError) as caught:
            await bench.app.publish(Sent("a"))
        assert caught.value.unsent == (Sent("a"),)


@in_virtual_time
async def test_operations_tell_of_a_fault_of_the_plugin() -> None:
    broker = Flaky()
    broker.break_down("status", error=lambda: KeyError("count"))
    async with app_with(broker).operations() as operations:
        with pytest.raises(BrokerError, match=r"Flaky.status failed unexpectedly: KeyError: 'count'") as caught:
            await operations.status()
    assert not isinstance(caught.value, BrokerUnavailableError)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("lacks", "text"),
    [
        (
            BrokerCapability.ACKNOWLEDGED,
            r"Flaky keeps nothing, so subscription 'shop.handle' can lose messages.*at-most-once",
        ),
        (
            BrokerCapability.DEAD_LETTERS,
            r"Flaky keeps no dead letters, so subscription 'shop.handle' can lose messages",
        ),
        (
            BrokerCapability.DELAYED_RETRY,
            r"'shop.handle' retries after up to 4 s, and Flaky can't delay a message.*delay=0",
        ),
        (BrokerCapability.ORDER_BY_KEY, r"'shop.handle' is ordered by key, and Flaky.*keeps no order.*ordered=False"),
    ],
    ids=lambda value: value.name if isinstance(value, BrokerCapability) else "",
)
def test_what_a_broker_does_not_declare_is_refused_without_its_help(lacks: BrokerCapability, text: str) -> None:
    app = Diator("shop", broker=Flaky(without=lacks), retry=Retry(attempts=3, delay=2, factor=2, jitter=0))

    @app.on_event
    async def handle(event: Joined) -> None: ...

    (problem,) = app.check()
    assert (problem.code, problem.severity) == ("broker", "error")
    assert re.search(text, str(problem), re.DOTALL)


@in_virtual_time
async def test_messages_that_are_too_large_are_rejected_and_not_the_others() -> None:
    broker = Flaky(limit=400)
    connection = connection_of(broker)
    small, large = message(1, TOPIC), message(2, TOPIC, data=b'"%s"' % (b"x" * 400))
    await connection.open(1)
    with pytest.raises(NotPublishedError, match=r"1 not published, 1 rejected permanently.*send less"):
        await connection.publish([small, large], 1, wait_for_room=True)
    with pytest.raises(NotPublishedError) as caught:
        await connection.publish([large, small], 1, wait_for_room=True)
    assert (caught.value.unsent, caught.value.unknown, caught.value.rejected) == ((small,), (), (large,))
    assert not broker.publications
    await connection.publish(caught.value.unsent, 1, wait_for_room=True)
    await connection.close()


@in_virtual_time
async def test_events_that_the_broker_rejects_did_not_leave_and_would_not_another_time() -> None:
    bench = Bench()

    async def reject(messages: Sequence[OutgoingMessage]) -> None:
        raise NotPublishedError(messages[1:], rejected=messages[:1]) from BrokerError("the key is too long")

    bench.broker.publishing = reject
    async with bench.app:
        with pytest.raises(PublishError, match=r"could not publish 2 events \(Sent\): the key is too long") as caught:
            await bench.app.publish(Sent("a"), Sent("b"))
    assert caught.value.permanent
    assert sorted(event.text for event in caught.value.unsent if isinstance(event, Sent)) == ["a", "b"]
