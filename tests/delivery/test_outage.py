"""Outages of the broker: ridden out, told once per change of state; the worker neither exits nor goes silent."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest

from diator import BrokerError, BrokerUnavailableError, Diator, NotificationEvent, PublishError, contract
from diator.brokers import BrokerCapability, Receiver, Subscription
from diator.delivery.worker import Worker
from tests.brokered import Flaky, Watch
from tests.virtual_time import in_virtual_time


@contract("meetings.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    number: int = 1


class Incomplete(Flaky):
    """A broker at which somebody has deleted queues."""

    def __init__(self, *gone: str) -> None:
        super().__init__()
        self.gone = set(gone)

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        if subscription.name in self.gone:
            raise BrokerError(f"there is no queue {subscription.name!r}")
        return await super().subscribe(subscription)


class Bench:
    def __init__(self, broker: Flaky | None = None, **options: Any) -> None:
        self.broker, self.watch = broker or Flaky(), Watch()
        self.app = Diator("meetings", broker=self.broker, hooks=[self.watch], **options)
        self.got: list[int] = []

        @self.app.on_event(subscription="first")
        async def first(event: Joined) -> None:
            self.got.append(event.number)

        @self.app.on_event(subscription="second")
        async def second(event: Joined) -> None: ...

    async def works(self) -> None:
        """Send one message through both subscriptions."""
        before = {name: self.watch.outcomes(name).count("Ack") for name in ("first", "second")}
        await self.app.publish(Joined())
        await self.watch.until(
            lambda: all(self.watch.outcomes(name).count("Ack") > count for name, count in before.items())
        )


def ready(worker: Worker) -> bool:
    """Whether it is; a function, so that type checkers don't believe that it stays so."""
    return worker.is_ready


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("operation", ["receive", "settle", "renew", "subscribe", "apply", "publish", "all"])
@pytest.mark.parametrize("seconds", [0.05, 3.0, 400.0])
def test_an_outage_is_ridden_out(operation: str, seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def scenario() -> None:
        bench = Bench()
        broken = () if operation == "all" else (operation,)
        if operation in ("subscribe", "apply"):
            bench.broker.break_down(*broken)
        async with bench.app, bench.app.worker() as worker:
            if operation not in ("subscribe", "apply"):
                await bench.works()
                bench.broker.break_down(*broken)
            try:
                await bench.app.publish(Joined(2))
            except PublishError:
                assert operation in ("apply", "publish", "all")
            await asyncio.sleep(seconds)
            bench.broker.mend()
            await asyncio.sleep(10)
            assert ready(worker)
            await bench.works()
            assert not any(one.lease_lost for one in bench.watch.of("settled"))
        texts = told(caplog)
        assert sum("the broker can't" in text for text in texts) <= 1, texts
        assert sum("has recovered" in text for text in texts) == sum("the broker can't" in text for text in texts)

    scenario()


@in_virtual_time
async def test_an_outage_is_told_once_per_change_of_state(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    async with bench.app, bench.app.worker() as worker:
        for _ in range(3):
            await bench.works()
            assert ready(worker)
            bench.broker.break_down("receive", "settle", "subscribe")
            await bench.app.publish(Joined())
            await asyncio.sleep(300)
            assert not ready(worker)
            bench.broker.mend()
            await asyncio.sleep(10)
            assert ready(worker)
    texts = told(caplog)
    assert ["can't" in text for text in texts] == [True, False] * 3, texts


@in_virtual_time
async def test_what_a_broker_refuses_is_no_outage_and_nobody_is_told_that_nothing_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Incomplete("second")
    bench = Bench(broker)
    async with bench.app, bench.app.worker() as worker:
        await asyncio.sleep(60)
        trouble = "the broker can't subscribe for second (BrokerError: there is no queue 'second')"
        assert worker.not_ready_reasons == [trouble]
        assert not ready(worker)
        (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert (record.levelname, record.getMessage()) == ("ERROR", f"{trouble}; retrying until it can")
        broker.gone.clear()
        await asyncio.sleep(10)
        assert ready(worker)
        assert worker.not_ready_reasons == []
        await bench.works()
    assert "second works again after" in told(caplog)[-1]


@in_virtual_time
async def test_who_works_again_is_told_while_others_do_not(caplog: pytest.LogCaptureFixture) -> None:
    broker = Incomplete("second")
    bench = Bench(broker)
    async with bench.app, bench.app.worker() as worker:
        await asyncio.sleep(10)
        broker.break_down("receive")
        await bench.app.publish(Joined())
        await asyncio.sleep(60)
        assert [text.partition(" (")[0] for text in worker.not_ready_reasons] == [
            "the broker can't receive messages for first",
            "the broker can't subscribe for second",
        ]
        broker.mend()
        await asyncio.sleep(60)
        still = "still the broker can't subscribe for second (BrokerError: there is no queue 'second')"
        assert told(caplog)[2:] == [f"the broker works again for first; {still}"]
        broker.gone.clear()
        await asyncio.sleep(10)
        assert "has recovered" in told(caplog)[-1]


@in_virtual_time
async def test_what_still_works_does_not_belie_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        bench.broker.break_down("settle")
        for number in range(100):
            await bench.app.publish(Joined(number))
            await asyncio.sleep(1)
        bench.broker.mend()
        await bench.watch.until(lambda: len(bench.watch.of("settled")) >= 200)
    texts = told(caplog)
    assert ["can't" in text for text in texts] == [True, False], texts


@in_virtual_time
async def test_another_reason_is_told_too_but_not_each_time_that_it_comes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    reasons = iter(range(10**9))
    async with bench.app, bench.app.worker():
        bench.broker.break_down("receive", error=lambda: BrokerUnavailableError(["full", "away"][next(reasons) % 2]))
        await bench.app.publish(Joined())
        await asyncio.sleep(500)
        bench.broker.break_down("receive", error=lambda: BrokerUnavailableError(f"reason {next(reasons)}"))
        await asyncio.sleep(1000)
        bench.broker.mend()
        await bench.works()
    assert 3 <= len(told(caplog)) < 20


@in_virtual_time
async def test_a_worker_that_has_nothing_to_do_learns_that_its_broker_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    async with bench.app, bench.app.worker() as worker:
        await asyncio.sleep(1)
        bench.broker.break_down("receive")
        await bench.app.publish(Joined())
        await bench.watch.settle(2)
        await asyncio.sleep(60)
        assert not ready(worker)
        bench.broker.mend()
        await asyncio.sleep(10)
        assert ready(worker)


@in_virtual_time
async def test_tries_become_rarer_and_never_stop() -> None:
    bench = Bench()
    bench.broker.break_down("subscribe")
    async with bench.app, bench.app.worker():
        await asyncio.sleep(10)
        early = bench.broker.times["subscribe"]
        await asyncio.sleep(1000)
        late = bench.broker.times["subscribe"]
        assert early < 2 * 12
        assert 2 * 150 < late - early < 2 * 300


@in_virtual_time
async def test_a_worker_starts_while_the_broker_is_away_and_works_when_it_is_back() -> None:
    bench = Bench()
    bench.broker.break_down("connect", "apply", "subscribe", "receive", "publish", "settle", "renew")
    async with bench.app, bench.app.worker() as worker:
        await asyncio.sleep(30)
        assert not ready(worker)
        with pytest.raises(PublishError):
            await bench.app.publish(Joined())
        bench.broker.mend()
        await asyncio.sleep(10)
        assert ready(worker)
        await bench.works()


@in_virtual_time
async def test_a_broker_that_hangs_delays_the_start_by_no_more_than_the_publish_timeout() -> None:
    bench = Bench(publish_timeout=2)
    loop = asyncio.get_running_loop()
    bench.broker.slow = {"connect": 1e6, "apply": 50}
    began = loop.time()
    async with bench.app:
        assert loop.time() - began == pytest.approx(2, abs=0.1)
        async with bench.app.worker():
            assert loop.time() - began == pytest.approx(4, abs=0.1)
            await asyncio.sleep(60)
            bench.broker.slow.clear()
            await asyncio.sleep(60)
            await bench.works()


@in_virtual_time
async def test_a_broker_that_does_not_close_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(publish_timeout=2)
    bench.broker.slow = {"aclose": 1e6}
    loop = asyncio.get_running_loop()
    async with bench.app:
        began = loop.time()
    assert loop.time() - began == pytest.approx(2, abs=0.1)
    assert "the broker did not close its connection within 2 s" in caplog.text


@in_virtual_time
async def test_what_a_broker_refuses_for_good_stops_the_start() -> None:
    bench = Bench()
    bench.broker.break_down("connect", error=lambda: BrokerError("wrong password"))
    with pytest.raises(BrokerError, match="wrong password"):
        await bench.app.__aenter__()
    bench.broker.mend()
    bench.broker.break_down("apply", error=lambda: BrokerError("not allowed"))
    async with bench.app:
        with pytest.raises(BrokerError, match="not allowed"):
            await bench.app.worker().__aenter__()


@in_virtual_time
async def test_a_fault_of_a_plugin_stops_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    for operation in ("receive", "settle", "renew", "subscribe"):
        async with bench.app, bench.app.worker():
            await bench.works()
            bench.broker.break_down(operation, error=lambda: ZeroDivisionError("a bug"))
            await bench.app.publish(Joined())
            await asyncio.sleep(60)
            bench.broker.mend()
            await asyncio.sleep(10)
            await bench.works()
    assert "restarting it" in caplog.text


@in_virtual_time
async def test_outcomes_that_wait_for_the_broker_are_taken_down_in_order_and_once() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        bench.broker.break_down("settle")
        await bench.app.publish(*(Joined(number) for number in range(50)))
        await asyncio.sleep(25)
        bench.broker.mend()
        await bench.watch.settle(100)
        await asyncio.sleep(60)
    assert len(bench.watch.of("settled")) == 100
    assert sorted(bench.got) == list(range(50))


@in_virtual_time
async def test_outcomes_that_come_during_an_outage_are_taken_down_after_those_before() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker(subscriptions="first"):
        bench.broker.break_down("settle")
        bench.broker.slow["settle"] = 1.0
        for number in range(5):
            await bench.app.publish(Joined(number))
            await asyncio.sleep(0.3)  # so that some come while others are being settled in vain
        bench.broker.mend()
        await bench.watch.settle(5)
    ids = [details.message_id for details in bench.watch.of("settled")]
    assert ids == [details.context.message_id for details in bench.watch.of("handled")]


@pytest.mark.parametrize("operation", ["receive", "settle"])
@in_virtual_time
async def test_an_outage_after_another_is_tried_as_soon_as_the_first(operation: str) -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        for seconds in (300.0, 0.3):
            await bench.works()
            bench.broker.break_down(operation)
            await bench.app.publish(Joined())
            await asyncio.sleep(seconds)
            bench.broker.mend()
            began = asyncio.get_running_loop().time()
            await bench.works()
        assert asyncio.get_running_loop().time() - began < 1.0


@in_virtual_time
async def test_operations_at_a_broker_that_is_away_leave_no_connection_behind() -> None:
    bench = Bench()
    bench.broker.break_down("connect")
    async with bench.app:
        with pytest.raises(BrokerUnavailableError):
            async with bench.app.operations():
                ...
    with pytest.raises(BrokerError, match="not connected"):  # which it would be, were it counted still
        await bench.broker.apply([])


@in_virtual_time
async def test_nobody_is_told_that_nothing_is_lost_by_a_broker_that_loses(caplog: pytest.LogCaptureFixture) -> None:
    broker, watch = Flaky(without=BrokerCapability.ACKNOWLEDGED), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])

    @app.on_event(delivery="at-most-once")
    async def handle(event: Joined) -> None: ...

    async with app, app.worker():
        broker.break_down("receive")
        await app.publish(Joined(), Joined())
        await asyncio.sleep(10)
    assert "events published until then may be lost" in caplog.text
    assert "nothing is lost" not in caplog.text


@pytest.mark.parametrize("operation", ["apply", "subscribe", "receive", "settle"])
@in_virtual_time
async def test_a_cancel_out_of_a_driver_ends_no_consumer_and_is_no_hot_loop(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    if operation == "apply":
        bench.broker.break_down("apply")
    async with bench.app, bench.app.worker() as worker:
        bench.broker.break_down(operation, error=asyncio.CancelledError)
        if operation in ("receive", "settle"):
            await bench.app.publish(Joined())
        await asyncio.sleep(100)
        assert bench.broker.times[operation] < 200
        assert not worker.is_ready
        assert "a call was cancelled unexpectedly" in caplog.text
        bench.broker.mend()
        await asyncio.sleep(10)
        await bench.works()
        assert worker.is_ready
