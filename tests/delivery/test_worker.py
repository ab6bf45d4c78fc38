"""The worker as a whole: its start, its clean end, and messages that kill it."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from diator import ConfigurationError, Context, Diator, Hooks, NotificationEvent, NotRunningError, Retry, contract
from diator.brokers import BrokerCapability, Delivery, MemoryBroker, Release, Subscription, parse_envelope
from diator.hooks import Settled
from tests.brokered import Flaky, Watch, die, letters, subscriptions_of
from tests.virtual_time import VirtualLoop, in_virtual_time


@contract("meetings.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    number: int = 1


@contract("meetings.left")
@dataclass(frozen=True)
class Left(NotificationEvent):
    number: int = 1


@contract("meetings.moved", key="location")
@dataclass(frozen=True)
class Moved(NotificationEvent):
    number: int
    location: str


class Bench:
    """An app with one slow handler, and what it did."""

    def __init__(self, broker: Flaky | None = None, *, seconds: float = 10.0, **options: Any) -> None:
        self.broker, self.watch = broker or Flaky(), Watch()
        self.app = Diator("meetings", broker=self.broker, hooks=[self.watch], **options)
        self.seconds = seconds
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.attempts: list[int] = []

        @self.app.on_event(subscription="slow")
        async def slow(event: Joined, context: Context) -> None:
            self.begun.append(event.number)
            self.attempts.append(context.attempt)
            self.watch.wake()
            await asyncio.sleep(self.seconds)
            self.ended.append(event.number)

    async def publish(self, count: int) -> None:
        await self.app.publish(*(Joined(number) for number in range(count)))

    async def begin(self, count: int) -> None:
        await self.watch.until(lambda: len(self.begun) >= count)

    async def waiting(self) -> int | None:
        (status,) = await self.broker.status(subscriptions_of(self.broker))
        return status.backlog


# ----------------------------------------------------------------------------------------------------------- the end


@in_virtual_time
async def test_what_runs_may_finish_within_the_grace_time() -> None:
    bench = Bench(concurrency=2)
    async with bench.app:
        async with bench.app.worker(grace=20):
            await bench.publish(2)
            await bench.begin(2)
        assert bench.watch.outcomes() == ["Ack", "Ack"]
        assert await bench.waiting() == 0


@in_virtual_time
async def test_nothing_more_is_received_once_it_stops() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker(grace=20) as worker:
        await bench.publish(1)
        await bench.begin(1)
        worker.stop()
        await asyncio.sleep(0.01)
        await bench.app.publish(Joined(7))
        await worker.wait()
        assert bench.begun == [0]
        assert await bench.waiting() == 1


@in_virtual_time
async def test_what_was_only_prefetched_is_given_back_at_once() -> None:
    bench = Bench(concurrency=1, seconds=0.01)
    loop = asyncio.get_running_loop()
    async with bench.app, bench.app.worker(grace=1000) as worker:
        await bench.publish(60)
        await bench.begin(30)  # by now it takes several ahead
        bench.seconds = 500
        await bench.begin(len(bench.begun) + 1)
        worker.stop()
        stopped = loop.time()
        await bench.watch.until(lambda: "Release" in bench.watch.outcomes(), within=2)
        assert loop.time() - stopped < 0.2
        running, left = len(bench.begun), 60 - len(bench.begun)
        async with bench.app.worker(concurrency=left) as other:
            await bench.watch.until(lambda: len(bench.begun) >= running + left, within=1)
            other.cancel()
    assert bench.attempts == [1] * 60


@in_virtual_time
async def test_what_does_not_finish_in_time_is_given_back_without_an_attempt() -> None:
    bench = Bench()
    deliveries: list[int] = []

    def look(delivery: Delivery) -> Delivery:
        deliveries.append(delivery.deliveries)
        return delivery

    bench.broker.tamper = look
    async with bench.app:
        for _ in range(8):  # more often than max_deliveries
            async with bench.app.worker(grace=5):
                await bench.publish(0)
                if not bench.begun:
                    await bench.publish(1)
                await bench.begin(len(bench.begun) + 1)
        bench.seconds = 0
        async with bench.app.worker():
            await bench.watch.until(lambda: "Ack" in bench.watch.outcomes())
    assert bench.watch.outcomes() == ["Release"] * 8 + ["Ack"]
    assert set(bench.attempts) == {1}
    assert set(deliveries) == {1}


@pytest.mark.parametrize("becomes", [ZeroDivisionError, "well"])
def test_a_cancel_by_the_worker_is_free_whatever_the_handler_makes_of_it(becomes: Any) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch])

        @app.on_event
        async def joined(event: Joined) -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                if becomes == "well":
                    return
                raise becomes from None

        async with app:
            async with app.worker(grace=1):
                await app.publish(Joined())
                await asyncio.sleep(1)
        assert watch.outcomes() == (["Ack"] if becomes == "well" else ["Release"])

    scenario()


@in_virtual_time
async def test_a_second_stop_cancels_at_once() -> None:
    bench = Bench(seconds=100)
    loop = asyncio.get_running_loop()
    async with bench.app, bench.app.worker(grace=50) as worker:
        await bench.publish(3)
        await bench.begin(3)
        worker.stop()
        await asyncio.sleep(2)
        assert not bench.watch.of("settled")
        began = loop.time()
        worker.cancel()
        await worker.wait()
        assert loop.time() - began < 0.5
        assert bench.watch.outcomes() == ["Release"] * 3


@in_virtual_time
async def test_the_grace_time_begins_with_the_first_stop() -> None:
    bench = Bench(seconds=100)
    async with bench.app, bench.app.worker(grace=50) as worker:
        await bench.publish(1)
        await bench.begin(1)
        began = asyncio.get_running_loop().time()
        for _ in range(4):
            worker.stop()
            await asyncio.sleep(10)
        await worker.wait()
        assert asyncio.get_running_loop().time() - began == pytest.approx(50, abs=0.5)


@in_virtual_time
async def test_a_stop_at_once_is_at_once_however_often_it_was_stopped() -> None:
    bench = Bench(seconds=100)
    async with bench.app, bench.app.worker(grace=50) as worker:
        await bench.publish(1)
        await bench.begin(1)
        for _ in range(3):
            worker.stop()
            worker.cancel()
        worker.stop()
        await worker.wait()
        assert bench.watch.outcomes() == ["Release"]


@in_virtual_time
async def test_a_cancel_of_who_waits_leaves_the_worker_alone() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker() as worker:
        await bench.publish(1)
        await bench.begin(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(worker.wait(), 1)
        await bench.watch.settle(1)
        assert bench.watch.outcomes() == ["Ack"]
        await bench.publish(1)
        await bench.watch.settle(2)


def run_in_a_task(bench: Bench, grace: float) -> "asyncio.Task[None]":
    async def serve() -> None:
        async with bench.app, bench.app.worker(grace=grace) as worker:
            await bench.publish(2)
            await worker.wait()

    return asyncio.ensure_future(serve())


@in_virtual_time
async def test_a_cancelled_task_ends_its_worker_with_grace() -> None:
    bench = Bench()
    task = run_in_a_task(bench, grace=60)
    await bench.begin(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.watch.outcomes() == ["Ack", "Ack"]


@in_virtual_time
async def test_a_second_cancel_ends_the_grace_and_gives_back_without_an_attempt() -> None:
    bench = Bench(seconds=100)
    task = run_in_a_task(bench, grace=60)
    await bench.begin(2)
    task.cancel()
    await asyncio.sleep(1)
    task.cancel()
    began = asyncio.get_running_loop().time()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.get_running_loop().time() - began < 1
    assert bench.watch.outcomes() == ["Release", "Release"]


def cancel_everything_else(*, last_first: bool) -> None:
    """Do what asyncio.run does at its end, in an order that is known: it has none."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in sorted(others, key=lambda one: int(one.get_name().partition("-")[2]), reverse=last_first):
        task.cancel()


@pytest.mark.parametrize("last_first", [False, True])
@in_virtual_time
async def test_the_end_of_everything_gives_back_without_an_attempt(last_first: bool) -> None:
    bench = Bench(seconds=100)
    task = run_in_a_task(bench, grace=60)
    await bench.begin(2)
    cancel_everything_else(last_first=last_first)
    await asyncio.wait({task})
    assert "RetryAfter" not in bench.watch.outcomes()
    (status,) = await bench.broker.status(subscriptions_of(bench.broker))
    assert status.backlog == 2


@pytest.mark.parametrize("last_first", [False, True])
@in_virtual_time
async def test_the_end_of_everything_still_records_what_was_handled(last_first: bool) -> None:
    bench = Bench(concurrency=1, seconds=0.01)
    task = run_in_a_task(bench, grace=60)
    await bench.begin(1)
    bench.seconds = 100
    await bench.begin(2)
    assert bench.watch.outcomes() == [], "it is recorded already, before the end"
    cancel_everything_else(last_first=last_first)
    await asyncio.wait({task})
    assert bench.watch.outcomes() == ["Ack", "Release"]


@in_virtual_time
async def test_an_error_in_the_block_ends_the_worker_and_comes_out() -> None:
    bench = Bench()
    with pytest.raises(ZeroDivisionError):
        async with bench.app, bench.app.worker():
            await bench.publish(1)
            await bench.begin(1)
            raise ZeroDivisionError
    assert bench.watch.outcomes() == ["Ack"]


@in_virtual_time
async def test_the_end_does_not_wait_for_ever_for_a_broker_that_is_away() -> None:
    bench = Bench(seconds=1)
    loop = asyncio.get_running_loop()
    async with bench.app:
        async with bench.app.worker(grace=5):
            await bench.publish(1)
            await bench.begin(1)
            bench.broker.break_down()
            bench.broker.slow = dict.fromkeys(("settle", "receive", "renew"), 1000.0)
            began = loop.time()
        assert loop.time() - began < 20
        bench.broker.mend()
        bench.broker.slow.clear()
        assert await bench.waiting() == 1, "what could not be settled comes again"


@in_virtual_time
async def test_a_handler_that_does_not_heed_its_cancel_loses_its_message_to_another_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, thawed, runs = Bench(), asyncio.Event(), list[str]()

    @bench.app.on_event(subscription="frozen")
    async def frozen(_event: Left) -> None:
        runs.append("begun")
        bench.watch.wake()
        if len(runs) > 1:
            return
        while not thawed.is_set():  # as if a driver waited for a server that was frozen
            with suppress(asyncio.CancelledError):
                await thawed.wait()

    async with bench.app:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(bench.app.worker(grace=5))
            await bench.app.publish(Left())
            await bench.watch.until(lambda: runs == ["begun"])
            ending = asyncio.ensure_future(stack.pop_all().aclose())
        async with bench.app.worker():
            await bench.watch.until(lambda: bench.watch.outcomes() == ["Ack"], within=30)
            assert not ending.done(), "nothing that a worker has started outlives it"
            thawed.set()
            await ending
    assert runs == ["begun", "begun"]
    assert bench.watch.outcomes() == ["Ack"]
    assert "frozen: the handler of message" in caplog.text
    assert "was cancelled and has not ended after 5 s; the worker waits for it" in caplog.text


@pytest.mark.parametrize("operation", ["apply", "subscribe"])
@in_virtual_time
async def test_the_end_does_not_wait_for_a_broker_that_does_not_answer_at_the_start(operation: str) -> None:
    bench = Bench()
    bench.broker.slow = {operation: 100_000.0}
    loop = asyncio.get_running_loop()
    async with bench.app:
        async with bench.app.worker(grace=5):
            await asyncio.sleep(60)
            began = loop.time()
        assert loop.time() - began < 1


@in_virtual_time
async def test_outcomes_that_a_worker_could_not_settle_at_its_end_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(seconds=1)
    async with bench.app, bench.app.worker():
        await bench.publish(1)
        await bench.begin(1)
        bench.broker.break_down("settle")
    assert "the last outcomes were not recorded" in caplog.text


# --------------------------------------------------------------------------------------------------------- the start


@in_virtual_time
async def test_a_worker_is_entered_once() -> None:
    bench = Bench()
    async with bench.app:
        worker = bench.app.worker()
        async with worker:
            with pytest.raises(NotRunningError):
                await worker.__aenter__()


async def test_a_worker_needs_a_running_app_and_a_broker() -> None:
    app = Diator("meetings")
    with pytest.raises(NotRunningError):
        app.worker()
    async with app:
        with pytest.raises(ConfigurationError, match="no message broker"):
            app.worker()


async def test_unknown_subscriptions_are_refused_and_the_known_ones_named() -> None:
    bench = Bench()
    async with bench.app:
        with pytest.raises(ConfigurationError, match=r"(?s)'fast'.*slow"):
            bench.app.worker(subscriptions=["slow", "fast"])


async def test_one_subscription_may_be_named_without_a_list() -> None:
    bench = Bench()
    async with bench.app:
        assert [one.name for one in bench.app.worker(subscriptions="slow").configs] == ["slow"]
        assert not bench.app.worker(subscriptions=[]).configs


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"concurrency": -1}, {"concurrency": 1.5}, {"grace": -1}])
async def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    bench = Bench()
    async with bench.app:
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            bench.app.worker(**options)


@in_virtual_time
async def test_only_the_named_subscriptions_are_consumed() -> None:
    bench = Bench(seconds=0)
    ran: list[Joined] = []

    @bench.app.on_event(subscription="other")
    async def other(event: Joined) -> None:
        ran.append(event)

    async with bench.app:
        async with bench.app.worker():
            ...
        async with bench.app.worker(subscriptions=["other"]) as worker:
            assert [consumer.name for consumer in worker.consumers] == ["other"]
            await bench.publish(1)
            await bench.watch.settle(1)
            await asyncio.sleep(10)
        assert (len(ran), bench.begun) == (1, [])
        async with bench.app.worker(subscriptions=("slow",)):
            await bench.watch.settle(2)
        assert bench.begun == [0]


@in_virtual_time
async def test_an_app_without_brokered_handlers_has_a_worker_that_does_nothing() -> None:
    app = Diator("meetings", broker=Flaky())
    async with app, app.worker() as worker:
        assert worker.is_ready


@in_virtual_time
async def test_a_worker_is_ready_when_it_is_connected() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker() as worker:
        await asyncio.sleep(0.1)
        assert worker.is_ready


# ------------------------------------------------------------------------------------------------ messages that kill


@in_virtual_time
async def test_a_message_that_kills_its_worker_becomes_a_dead_letter_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(seconds=1000, max_deliveries=3)
    async with bench.app:
        for number in range(3):
            worker = await bench.app.worker().__aenter__()
            if not number:
                await bench.publish(1)
            await bench.watch.until(lambda number=number: len(bench.begun) > number, within=100)  # type: ignore[misc]  # mypy knows no type of such a default
            await die(bench.app, bench.broker, worker)
        async with bench.app.worker():
            await bench.watch.until(lambda: "MoveToDeadLetters" in bench.watch.outcomes(), within=100)
            (letter,) = await letters(bench.broker)
    why = "delivered 4 times, 3 without an outcome: its worker died, or its handler outlasted its lease"
    assert letter.failure.reason == why
    message_id = parse_envelope(letter.headers, letter.body).id
    assert f"message {message_id} (meetings.joined) becomes a dead letter: {why}" in caplog.text
    assert letter.deliveries == 4
    assert letter.failure.attempts == 0
    assert len(bench.begun) == 3


@in_virtual_time
async def test_failures_that_were_recorded_are_no_sign_of_a_killer() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], max_deliveries=1, retry=Retry(attempts=6, delay=1))

    @app.on_event
    async def fails(event: Joined) -> None:
        raise ZeroDivisionError

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(6, within=60)
        (letter,) = await letters(broker)
        assert letter.failure.reason == "exhausted after 6 attempts"


@pytest.mark.parametrize("most", [2, 3, 5])
@pytest.mark.parametrize("concurrency", [1, 4, 10])
def test_innocents_are_not_parked_with_the_killer(most: int, concurrency: int) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch], max_deliveries=most, concurrency=concurrency)
        killed = asyncio.Event()
        done: Counter[str] = Counter()

        @app.on_event(subscription="victims")
        async def victims(event: Joined) -> None:
            if event.number == 5:
                await asyncio.sleep(0.02)  # the others that came with it have begun
                killed.set()
                await asyncio.sleep(10_000)
            await asyncio.sleep(0.05)
            done["victims"] += 1

        @app.on_event(subscription="bystanders")
        async def bystanders(event: Joined) -> None:
            await asyncio.sleep(0.05)
            done["bystanders"] += 1

        async with app:
            async with app.worker():
                ...
            await app.publish(*(Joined(number) for number in range(30)))
            for _ in range(20):
                worker = await app.worker().__aenter__()
                dying, ending = asyncio.ensure_future(killed.wait()), asyncio.ensure_future(asyncio.sleep(60))
                await asyncio.wait({dying, ending}, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait({dying, ending}, timeout=0)
                dead = killed.is_set()
                dying.cancel()
                ending.cancel()
                await asyncio.gather(dying, ending, return_exceptions=True)
                if not dead:
                    worker.stop()
                    await worker.__aexit__(None, None, None)
                    break
                killed.clear()
                await die(app, broker, worker)
            found = await letters(broker)
            assert [letter.failure.reason[:6] for letter in found] == ["delive"]
            assert b'"number":5' in found[0].body
            assert found[0].subscription == "victims"
            assert done["victims"] >= 29
            assert done["bystanders"] >= 30
            for status in await broker.status(subscriptions_of(broker)):
                assert status.backlog == 0

    scenario()


@in_virtual_time
async def test_a_suspect_that_somebody_else_takes_keeps_nobody_waiting() -> None:
    broker, watch = Flaky(), Watch()

    class Thief(Hooks):
        def settled(self, details: Settled, /) -> None:
            if details.subscription == "second" and isinstance(details.outcome, Release):
                queues: dict[str, Any] = broker.inner._queues  # pyright: ignore[reportPrivateUsage]  # no other way to see it
                assert len(queues["second"].take(10)) == 1

    app = Diator("meetings", broker=broker, hooks=[watch, Thief()], max_deliveries=9)

    @app.on_event(subscription="first")
    async def first(event: Joined) -> None:
        await asyncio.sleep(1)

    @app.on_event(subscription="second")
    async def second(event: Joined) -> None: ...

    async with app:
        async with app.worker():
            ...
        await app.publish(Joined())
        for subscription in subscriptions_of(broker):
            await die_over_all(broker, subscription, times=3)
        async with app.worker():
            await watch.until(lambda: watch.outcomes("second") == ["Release"], within=5)
            await watch.until(lambda: watch.outcomes("first") == ["Ack"], within=5)
            await app.publish(Joined())
            await watch.settle(2, "first", within=5)
            await watch.settle(2, "second", within=5)


async def die_over_all(broker: Flaky, subscription: Subscription, *, times: int) -> None:
    """Have workers die that have everything there is."""
    for _ in range(times):
        await (await broker.inner.subscribe(subscription)).receive(1000)
        await asyncio.sleep(31)


@pytest.mark.parametrize("ordered", [False, True])
def test_suspects_run_when_they_come_and_nothing_else_is_there_then(ordered: bool) -> None:
    """Given back they would come with others again, and count whenever a worker died before it could run them."""

    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch], max_deliveries=5)
        ran: list[int] = []

        @app.on_event(subscription="all", ordered=ordered)
        async def handle(event: Moved) -> None:
            if event.number in suspects and not ran:
                (subscription,) = subscriptions_of(broker)
                (status,) = await broker.status([subscription])
                other = await broker.inner.subscribe(subscription)
                assert len(await other.receive(1000)) + 1 == status.backlog
                await other.aclose()
            if event.number in suspects:
                ran.append(event.number)

        suspects = {*range(1, 20, 2)}

        def number_in(delivery: Delivery) -> int:
            number: int = json.loads(delivery.body)["data"]["number"]
            return number

        def suspicious(delivery: Delivery) -> Delivery:
            if number_in(delivery) not in suspects:
                return delivery
            return Delivery(delivery.topic, delivery.body, deliveries=4, receipt=delivery.receipt)

        broker.tamper, broker.slow["settle"] = suspicious, 0.01
        async with app:
            async with app.worker():
                ...
            await app.publish(*(Moved(number, f"key {number}") for number in range(100)))
            async with app.worker():
                await watch.until(lambda: watch.outcomes().count("Ack") == 100, within=60)
        assert sorted(ran) == sorted(suspects)
        settled = watch.of("settled")
        released = Counter(number_in(one.delivery) for one in settled if isinstance(one.outcome, Release))
        assert 1 not in released
        assert max(released.values()) <= 2

    scenario()


@in_virtual_time
async def test_what_comes_before_a_suspect_in_its_key_runs_first() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], max_deliveries=5)
    ran: list[int] = []

    @app.on_event(subscription="all")
    async def handle(event: Moved) -> None:
        ran.append(event.number)

    broker.tamper = lambda delivery: Delivery(
        delivery.topic, delivery.body, deliveries=4 if b'"number":3' in delivery.body else 1, receipt=delivery.receipt
    )
    async with app:
        async with app.worker():
            ...
        await app.publish(*(Moved(number, "key") for number in range(6)))
        async with app.worker():
            await watch.until(lambda: watch.outcomes().count("Ack") == 6, within=60)
    assert ran == [0, 1, 2, 3, 4, 5]


@in_virtual_time
async def test_suspects_of_all_subscriptions_run_one_at_a_time() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], max_deliveries=9)
    now, most = 0, 0

    async def work() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1

    @app.on_event(subscription="first")
    async def first(event: Joined) -> None:
        await work()

    @app.on_event(subscription="second")
    async def second(event: Joined) -> None:
        await work()

    def suspicious(delivery: Delivery) -> Delivery:
        return Delivery(delivery.topic, delivery.body, deliveries=4, receipt=delivery.receipt)

    broker.tamper = suspicious
    async with app, app.worker():
        await app.publish(*(Joined(number) for number in range(5)))
        await watch.until(lambda: watch.outcomes().count("Ack") == 10, within=60)
    assert most == 1


# ---------------------------------------------------------------------------------------------------- several of each


@in_virtual_time
async def test_two_apps_share_one_broker_object() -> None:
    broker, watch = MemoryBroker(), Watch()
    first, second = Diator("first", broker=broker, hooks=[watch]), Diator("second", broker=broker, hooks=[watch])
    got: list[str] = []

    @first.on_event
    async def one(event: Joined) -> None:
        got.append("first")

    @second.on_event
    async def two(event: Joined) -> None:
        got.append("second")

    async with first, first.worker():
        async with second, second.worker():
            await first.publish(Joined())
            await watch.settle(2)
        await first.publish(Joined())
        await watch.settle(3)
    assert sorted(got) == ["first", "first", "second"]


def test_an_app_goes_on_in_another_event_loop() -> None:
    bench = Bench(seconds=0.001)

    async def publish() -> None:
        async with bench.app:
            async with bench.app.worker():
                ...
            await bench.publish(3)

    async def handle() -> None:
        async with bench.app, bench.app.worker():
            await bench.watch.settle(3)

    asyncio.run(publish())
    asyncio.run(handle())
    assert bench.begun == [0, 1, 2]
    asyncio.run(publish())
    bench.watch.told.clear()
    asyncio.run(handle())


@in_virtual_time
async def test_two_workers_share_what_there_is() -> None:
    bench = Bench(seconds=0.1, concurrency=2)
    async with bench.app, bench.app.worker(), bench.app.worker():
        await bench.publish(100)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await bench.watch.settle(100)
        assert loop.time() - began == pytest.approx(2.5, abs=0.5)
    assert sorted(bench.begun) == list(range(100))


@in_virtual_time
async def test_no_worker_sits_on_what_another_could_do() -> None:
    bench = Bench(seconds=100, concurrency=2)
    async with bench.app, bench.app.worker(grace=0):
        await bench.publish(12)
        await asyncio.sleep(450)  # eight are done
        assert len(bench.ended) == 8
        async with bench.app.worker(grace=0):
            await asyncio.sleep(1)
            assert len(bench.begun) == 12


@in_virtual_time
async def test_a_worker_that_becomes_slow_takes_less() -> None:
    bench = Bench(seconds=0.001, concurrency=1)
    async with bench.app, bench.app.worker(grace=0):
        await bench.publish(500)
        await bench.watch.settle(500)
        bench.seconds = 3.0
        await bench.publish(400)
        await asyncio.sleep(900)
        received = sum(len(details.deliveries) for details in bench.watch.of("received"))
        assert received - len(bench.ended) <= 5


@in_virtual_time
async def test_what_comes_after_a_suspect_is_received_when_it_is_needed() -> None:
    bench = Bench(seconds=0.001, concurrency=1)

    def suspicious(delivery: Delivery) -> Delivery:
        deliveries = 4 if b'"number":0}' in delivery.body else 1
        return Delivery(delivery.topic, delivery.body, deliveries=deliveries, receipt=delivery.receipt)

    async with bench.app, bench.app.worker(grace=0):
        await bench.publish(500)
        await bench.watch.settle(500)  # by now it takes a hundred ahead
        bench.broker.tamper = suspicious
        bench.seconds = 200.0
        bench.ended.clear()
        await bench.publish(400)
        await asyncio.sleep(300)
        received = sum(len(details.deliveries) for details in bench.watch.of("received")) - 500
        assert bench.ended == [0]
        assert received <= 101
    assert received > 1


@in_virtual_time
async def test_a_receiver_that_gives_nothing_is_no_hot_loop() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await asyncio.sleep(1)
        for receiver in bench.broker.receivers:
            await receiver.inner.aclose()
        await asyncio.sleep(100)
        assert bench.broker.times["receive"] < 2000


@in_virtual_time
async def test_a_handler_that_waits_for_nothing_leaves_room_for_others() -> None:
    broker, watch, loop = Flaky(), Watch(), asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    app = Diator("meetings", broker=broker, hooks=[watch], concurrency=1)

    @app.on_event
    async def greedy(event: Joined) -> None:
        loop.selector.now += 0.002  # as a handler does that computes

    longest = 0.0

    async def neighbor() -> None:
        nonlocal longest
        while len(watch.of("settled")) < 200:
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)

    async with app, app.worker():
        await app.publish(*(Joined(number) for number in range(200)))
        await neighbor()
    assert 0 < longest < 0.02


def test_capabilities_are_what_the_broker_says() -> None:
    assert BrokerCapability.ACKNOWLEDGED in Flaky().capabilities
