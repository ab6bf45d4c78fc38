"""Follow-ups: the brokered events that handlers of brokered events publish."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from diator import (
    BrokerError,
    BrokerUnavailableError,
    CallNext,
    Command,
    Context,
    Diator,
    ECSTEvent,
    NotificationEvent,
    NotPublishedError,
    Publish,
    PublishError,
    Retry,
    contract,
)
from diator.brokers import Delivery, MemoryBroker, OutgoingMessage
from tests.brokered import Flaky, Watch, away, die, letters
from tests.virtual_time import in_virtual_time


@dataclass(frozen=True)
class Joined(NotificationEvent):
    meeting: int = 1


@contract("meetings.greeted")
@dataclass(frozen=True)
class Greeted(ECSTEvent):
    text: str = ""


@dataclass(frozen=True)
class Noted(NotificationEvent):
    pass


@dataclass(frozen=True)
class Nested(Command[None]):
    pass


class Broken(Exception):
    pass


class Bench:
    def __init__(self, broker: Flaky | None = None, *, fails: int = 0, seconds: float = 0.0, **options: Any) -> None:
        self.broker, self.watch = broker or Flaky(), Watch()
        self.app = Diator("meetings", broker=self.broker, hooks=[self.watch], retry=Retry(attempts=3, delay=1))
        self.calls, self.seconds = 0, seconds
        self.greetings: list[str] = []
        self.ids: set[str] = set()

        @self.app.on_event(subscription="greet", **options)
        async def greet(event: Joined, publish: Publish[Greeted | Noted]) -> None:
            self.calls += 1
            publish(Greeted("one"))
            publish(Noted())  # which nobody handles
            publish(Greeted("two"))
            await asyncio.sleep(self.seconds)
            if self.calls <= fails:
                raise Broken

        @self.app.on_event(subscription="listen")
        async def listen(event: Greeted, context: Context) -> None:
            self.greetings.append(event.text)
            self.ids.add(context.message_id)

    def sent(self) -> list[list[str]]:
        """The ids of each publication of follow-ups that was tried."""
        return [
            [message.id for message in messages]
            for messages, _, _ in self.broker.publications
            if all(message.envelope.type != "Joined" for message in messages)
        ]


@in_virtual_time
async def test_follow_ups_have_the_same_ids_on_a_second_run() -> None:
    bench = Bench()
    async with bench.app:
        worker = await bench.app.worker().__aenter__()
        bench.broker.break_down("settle")
        await bench.app.publish(Joined())
        await bench.watch.until(lambda: len(bench.sent()) == 1)
        await asyncio.sleep(0.1)
        await die(bench.app, bench.broker, worker)
        bench.broker.mend()
        async with bench.app.worker():
            await bench.watch.until(lambda: "Ack" in bench.watch.outcomes("greet"), within=60)
    first, second = bench.sent()
    assert first == second
    assert len(set(first)) == 3


@in_virtual_time
async def test_ids_differ_between_messages_subscriptions_and_numbers() -> None:
    bench = Bench()

    @bench.app.on_event(subscription="other")
    async def other(event: Joined, publish: Publish[Greeted]) -> None:
        publish(Greeted("one"))

    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined(1), Joined(2))
        await bench.watch.settle(2 + 2 + 6)
    ids = [an_id for sent in bench.sent() for an_id in sent]
    assert len(ids) == len(set(ids)) == 8


@in_virtual_time
async def test_duplicate_detection_recognizes_the_follow_ups_of_a_second_run() -> None:
    bench = Bench(Flaky(MemoryBroker(duplicate_window=1000)))
    async with bench.app:
        worker = await bench.app.worker().__aenter__()
        await bench.app.publish(Joined())
        await bench.watch.until(lambda: len(bench.sent()) == 1)
        await die(bench.app, bench.broker, worker)
        async with bench.app.worker():
            await bench.watch.until(lambda: bench.watch.outcomes("greet") == ["Ack"], within=60)
            await asyncio.sleep(60)
    assert bench.calls == 2
    assert len(bench.sent()) == 2
    assert bench.watch.outcomes("listen") == ["Ack", "Ack"]
    assert len(bench.ids) == 2


@in_virtual_time
async def test_a_failed_run_leaves_nothing_and_takes_no_numbers() -> None:
    bench = Bench(fails=2)
    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined())
        await bench.watch.settle(2, "listen")
    assert bench.calls == 3
    assert len(bench.sent()) == 1
    assert bench.greetings == ["one", "two"]


@in_virtual_time
async def test_an_outage_longer_than_the_timeout_does_not_end_all_timeouts() -> None:
    bench = Bench(timeout=5.0)
    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined())
        bench.broker.break_down("publish")
        await asyncio.sleep(60)
        bench.broker.mend()
        await bench.watch.settle(1, "greet", within=60)
        bench.seconds = 1000.0
        await bench.app.publish(Joined())
        await bench.watch.settle(2, "greet", within=60)
    assert bench.watch.outcomes("greet") == ["Ack", "RetryAfter"]


@in_virtual_time
async def test_an_outage_while_follow_ups_are_sent_retries_only_the_sending(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined())
        bench.broker.break_down("publish")
        await asyncio.sleep(1000)
        assert bench.calls == 1
        assert len(bench.sent()) > 100
        assert not bench.watch.of("settled")
        bench.broker.mend()
        await bench.watch.settle(3)
        assert bench.watch.outcomes("greet") == ["Ack"]
        assert [details.context.attempt for details in bench.watch.of("handled", "greet")] == [1]
        assert bench.greetings == ["one", "two"]
    assert bench.calls == 1
    told = [record.getMessage() for record in caplog.records if "the broker" in record.getMessage()]
    told = [text for text in told if "Noted" not in text]
    assert len(told) == 2, told
    assert "can't publish" in told[0]
    assert "has recovered" in told[1]


@in_virtual_time
async def test_a_broker_that_is_slow_to_fail_is_an_outage_too_and_no_timeout_of_the_handler() -> None:
    bench = Bench(timeout=5)
    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined())
        bench.broker.slow["publish"] = 9.0
        bench.broker.break_down("publish")
        await asyncio.sleep(60)
        bench.broker.mend()
        del bench.broker.slow["publish"]
        await bench.watch.settle(1, "greet")
    assert bench.calls == 1
    assert bench.watch.outcomes("greet") == ["Ack"]


@in_virtual_time
async def test_only_what_did_not_leave_is_sent_again() -> None:
    bench = Bench()
    sent: list[list[str]] = []

    async def half(messages: Sequence[OutgoingMessage]) -> None:
        sent.append([message.envelope.type for message in messages])
        if len(sent) == 1:
            raise NotPublishedError(messages[2:], messages[1:2]) from away()

    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined())
        bench.broker.publishing = half
        await bench.watch.settle(1, "greet")
    assert sent == [["meetings.greeted", "Noted", "meetings.greeted"], ["Noted", "meetings.greeted"]]


@in_virtual_time
async def test_a_lease_that_is_lost_meanwhile_has_the_message_handled_anew() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined())
        bench.broker.break_down("publish", "renew")
        await bench.watch.until(lambda: any(one.lease_lost for one in bench.watch.of("settled")), within=100)
        bench.broker.mend()
        await bench.watch.until(lambda: len(bench.greetings) == 2, within=100)
        await asyncio.sleep(100)
    settled = [(type(one.outcome).__name__, one.lease_lost) for one in bench.watch.of("settled", "greet")]
    assert settled.count(("Ack", False)) == 1
    assert all(lost for name, lost in settled if name != "Ack")
    assert bench.calls >= 2
    assert sorted(bench.greetings) == ["one", "two"]


@in_virtual_time
async def test_follow_ups_are_not_sent_again_if_renewing_finds_the_lease_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    async def lose(deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return deliveries

    async with bench.app, bench.app.worker():
        await asyncio.sleep(1)
        for receiver in bench.broker.receivers:
            monkeypatch.setattr(receiver, "renew", lose)
        await bench.app.publish(Joined())
        bench.broker.break_down("publish")
        await bench.watch.settle(1, "greet", within=20)
        assert bench.watch.outcomes("greet") == ["Release"]


@in_virtual_time
async def test_what_the_broker_refuses_for_good_is_a_failure_of_the_message() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined())
        bench.broker.break_down("publish", error=lambda: BrokerError("not allowed"))
        await bench.watch.until(lambda: "MoveToDeadLetters" in bench.watch.outcomes("greet"))
        (letter,) = await letters(bench.broker)
        assert letter.failure.error is not None
        assert "PublishError" in letter.failure.error
        assert "not allowed" in letter.failure.error
        assert bench.calls == 3


@in_virtual_time
async def test_a_follow_up_that_is_too_large_is_a_failure_and_nothing_is_sent() -> None:
    broker, watch = Flaky(limit=600), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=1))

    @app.on_event
    async def greet(event: Joined, publish: Publish[Greeted]) -> None:
        publish(Greeted("short"))
        publish(Greeted("long" * 200))

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
        (letter,) = await letters(broker)
        assert letter.failure.error is not None
        assert "MessageTooLargeError" in letter.failure.error
        assert len(broker.publications) == 1


@in_virtual_time
async def test_a_worker_that_stops_gives_back_what_waits_for_the_broker_without_an_attempt() -> None:
    bench = Bench()
    async with bench.app:
        async with bench.app.worker(grace=30):
            await bench.app.publish(Joined())
            bench.broker.break_down("publish")
            await asyncio.sleep(100)
        assert bench.watch.outcomes() == ["Release"]
        bench.broker.mend()
        async with bench.app.worker():
            await bench.watch.settle(4)
        assert [one.context.attempt for one in bench.watch.of("handled", "greet")] == [1, 1]


@in_virtual_time
async def test_a_cancel_while_follow_ups_are_sent_interrupts_nothing() -> None:
    bench = Bench()
    async with bench.app:
        async with bench.app.worker(grace=0):
            await bench.app.publish(Joined())
            bench.broker.publishing = slowly(bench.broker)
            await bench.watch.until(lambda: len(bench.sent()) == 1)
        bench.broker.publishing = None
        async with bench.app.worker():
            await bench.watch.until(lambda: len(bench.greetings) >= 2)


def slowly(broker: Flaky) -> Any:
    from diator.brokers import shielded

    async def store(messages: Sequence[OutgoingMessage]) -> None:
        await asyncio.sleep(1)
        await broker.inner.publish(messages, timeout=1)

    async def publish(messages: Sequence[OutgoingMessage]) -> None:
        await shielded(store(messages))

    return publish


# -------------------------------------------------------------------------------------------------------- nested sends


@in_virtual_time
async def test_a_nested_send_in_a_brokered_handler_stands_for_itself() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=1))
    got: list[str] = []

    @app.command
    async def nested(command: Nested, publish: Publish[Greeted]) -> None:
        publish(Greeted("nested"))

    @app.on_event
    async def greet(event: Joined, publish: Publish[Noted], app: Diator) -> None:
        publish(Noted())
        await app.send(Nested())
        raise Broken

    @app.on_event
    async def greeted(event: Greeted) -> None:
        got.append(event.text)

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(2)
    assert got == ["nested"]
    assert "broker has Noted" not in broker.lines


@in_virtual_time
async def test_a_nested_send_that_can_not_publish_raises_in_the_handler() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=1))
    errors: list[PublishError] = []

    @app.command
    async def nested(command: Nested, publish: Publish[Greeted]) -> None:
        publish(Greeted("nested"))

    @app.on_event
    async def greet(event: Joined, app: Diator) -> None:
        broker.break_down("publish")
        try:
            await app.send(Nested())
        except PublishError as error:
            errors.append(error)

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    assert errors[0].unsent == (Greeted("nested"),)
    assert watch.outcomes() == ["Ack"]


@pytest.mark.parametrize("nested_too", [False, True])
def test_publishing_inside_a_delivery_never_waits_for_room(nested_too: bool) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(MemoryBroker(capacity=1)), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch], concurrency=1)

        @dataclass(frozen=True)
        class Counted(NotificationEvent):
            left: int

        @dataclass(frozen=True)
        class Count(Command[None]):
            left: int

        @app.command
        async def count(command: Count, publish: Publish[Counted]) -> None:
            publish(Counted(command.left))

        @app.on_event
        async def counted(event: Counted, publish: Publish[Counted], app: Diator) -> None:
            if event.left:
                publish(Counted(event.left - 1))
                publish(Counted(0))
                if nested_too:
                    await app.send(Count(0))
                    await app.publish(Counted(0))

        async with app, app.worker():
            await app.publish(Counted(5))
            await watch.settle(1 + 5 * (4 if nested_too else 2), within=5)
            assert {waits for _, _, waits in broker.publications[1:]} == {False}
            assert broker.publications[0][2]

    scenario()


@in_virtual_time
async def test_an_outer_middleware_sees_the_sending_and_may_try_all_of_it_again() -> None:
    bench = Bench()
    seen: list[BaseException] = []

    @bench.app.middleware
    async def again(event: NotificationEvent, call_next: CallNext) -> Any:
        try:
            return await call_next(event)
        except PublishError as error:
            seen.append(error)
            bench.broker.mend()
            return await call_next(event)

    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined())
        bench.broker.break_down("publish", error=lambda: BrokerError("not allowed"))
        await bench.watch.settle(3)
    assert len(seen) == 1
    first, second = bench.sent()
    assert first == second
    assert bench.watch.outcomes("greet") == ["Ack"]


@in_virtual_time
async def test_unavailable_is_told_apart_from_refused_by_its_class() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await bench.app.publish(Joined())
        bench.broker.break_down("publish", error=lambda: BrokerUnavailableError("full"))
        await asyncio.sleep(10)
        assert not bench.watch.of("settled")
        bench.broker.mend()
        await bench.watch.settle(3)
    assert bench.calls == 1
