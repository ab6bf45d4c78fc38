"""Publishing: brokered events leave after the unit of work has closed well, as one batch and in order."""

import asyncio
import enum
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from diator import (
    BrokerError,
    BrokerUnavailableError,
    CallNext,
    Command,
    ConfigurationError,
    Diator,
    DomainEvent,
    ECSTEvent,
    InvalidMessageError,
    MessageTooLargeError,
    NotificationEvent,
    NotPublishedError,
    Publish,
    PublishError,
    contract,
)
from diator.brokers import MemoryBroker, OutgoingMessage
from tests.brokered import Flaky, Watch, away
from tests.journal import Journal, Session
from tests.virtual_time import in_virtual_time


@dataclass(frozen=True)
class Join(Command[str]):
    texts: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Shelve(Command[None]):
    pass


@contract("meetings.joined", version=3, key="text", topic="meetings")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    text: str


@dataclass(frozen=True)
class Sent(ECSTEvent):
    text: str


@dataclass(frozen=True)
class Noted(DomainEvent):
    text: str


class Broken(Exception):
    pass


class Bench:
    """An app with a command that publishes its texts, inside a scope that is written down."""

    def __init__(self, broker: Flaky | None = None, journal: Journal | None = None, **options: Any) -> None:
        self.journal = journal or Journal()
        self.broker = broker or Flaky()
        self.broker.lines = self.journal.lines
        self.watch = Watch()
        self.app = Diator("meetings", broker=self.broker, hooks=[self.watch], container=self.journal, **options)

        @self.app.command
        async def join(command: Join, session: Session, publish: Publish[Joined | Sent | Noted]) -> str:
            for text in command.texts:
                publish(Joined(text))
            publish(Noted(command.texts[-1]))
            publish(Sent(command.texts[0]))
            return "done"

        @self.app.on_event
        async def noted(event: Noted, publish: Publish[Sent]) -> None:
            publish(Sent("of a domain event"))

        @self.app.on_event
        async def joined(event: Joined | Sent) -> None: ...


@in_virtual_time
async def test_brokered_events_leave_as_one_batch_in_order_after_the_scope_has_closed() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        assert await bench.app.send(Join(("a", "b"))) == "done"
    ((messages, timeout, waits),) = bench.broker.publications
    assert [message.envelope.type for message in messages] == ["meetings.joined", "meetings.joined", "Sent", "Sent"]
    assert b"of a domain event" in messages[3].data
    assert (timeout, waits) == (10.0, True)
    assert bench.journal.lines[:3] == ["scope 1 opens", "scope 1 closes", "broker has meetings.joined"]


@in_virtual_time
async def test_the_envelope_says_all_that_the_contract_says() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await bench.app.using(headers={"tenant": "t"}, correlation_id="all").send(Join())
    first, second = (message for message in bench.broker.publications[0][0][:2])
    assert first.topic == "meetings"
    envelope = first.envelope
    assert (envelope.source, envelope.type, envelope.partitionkey) == ("meetings", "meetings.joined", "a")
    assert (envelope.diatorkind, envelope.diatorversion, envelope.diatorcorrelation) == ("notification", 3, "all")
    assert (second.topic, second.envelope.type, second.envelope.partitionkey) == ("Sent", "Sent", None)
    assert second.envelope.diatorkind == "ecst"
    assert first.envelope.diatorcausation == second.envelope.diatorcausation
    assert first.id != second.id


@pytest.mark.parametrize("fails", ["handler", "domain event", "closing", "inner middleware", "swallowed"])
def test_a_unit_that_fails_sends_nothing(fails: str) -> None:  # noqa: C901 - one app for all ways to fail
    @in_virtual_time
    async def scenario() -> None:
        journal = Journal(closing_fails=Broken() if fails == "closing" else None)
        broker = Flaky()
        app = Diator("meetings", broker=broker, container=journal)

        @app.middleware(inside=True)
        async def around(command: Command[Any], call_next: CallNext, session: Session) -> Any:
            try:
                result = await call_next(command)
            except Broken:
                if fails == "swallowed":
                    return "instead"
                raise
            if fails == "inner middleware":
                raise Broken
            return result

        @app.command
        async def join(command: Join, session: Session, publish: Publish[Joined | Noted]) -> str:
            publish(Joined("a"))
            publish(Noted("a"))
            if fails in ("handler", "swallowed"):
                raise Broken
            return "done"

        @app.on_event
        async def noted(event: Noted) -> None:
            if fails == "domain event":
                raise Broken

        async with app:
            if fails == "swallowed":
                assert await app.send(Join()) == "instead"
            else:
                with pytest.raises(Broken):
                    await app.send(Join())
        assert not broker.publications

    scenario()


@in_virtual_time
async def test_an_event_that_is_too_large_rolls_the_command_back() -> None:
    bench = Bench(Flaky(limit=1000))
    async with bench.app, bench.app.worker():
        with pytest.raises(MessageTooLargeError, match="Joined") as caught:
            await bench.app.send(Join(("a", "x" * 1000)))
        assert caught.value.limit == 1000
        assert caught.value.size > 1000
        with pytest.raises(MessageTooLargeError):
            await bench.app.publish(Sent("x" * 1000))
    assert "scope 1 undone by MessageTooLargeError" in bench.journal.lines
    assert not bench.broker.publications


@in_virtual_time
async def test_a_value_that_can_not_be_encoded_rolls_the_command_back() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        with pytest.raises(
            ValueError, match=r"Joined\.text can't be published: .*surrogates.*; publish text that"
        ) as caught:
            await bench.app.send(Join(("\ud800",)))
    assert isinstance(caught.value.__cause__, UnicodeEncodeError)
    assert "scope 1 undone by ValueError" in bench.journal.lines
    assert not bench.broker.publications


class Shelf(enum.Enum):
    TOP = 1

    def __str__(self) -> str:
        return "shelf \udc80"


@contract("meetings.shelved", key="shelf")
@dataclass(frozen=True)
class Shelved(NotificationEvent):
    shelf: Shelf | None = Shelf.TOP


@in_virtual_time
async def test_a_key_that_can_not_be_encoded_rolls_the_command_back() -> None:
    """Its field can be: the key is the text of it."""
    bench = Bench()

    @bench.app.command
    async def shelve(command: Shelve, publish: Publish[Shelved], session: Session) -> None:
        publish(Shelved())

    bench.app.publishes(Shelved)
    async with bench.app, bench.app.worker():
        for call in (bench.app.send(Shelve()), bench.app.publish(Shelved())):
            with pytest.raises(InvalidMessageError, match=r"Shelved\.shelf .*'shelf \\udc80'.*; publish text that"):
                await call
        await bench.app.publish(Shelved(None))
    assert "scope 1 undone by InvalidMessageError" in bench.journal.lines
    ((published, *_),) = bench.broker.publications
    assert [message.key for message in published] == [None]


@in_virtual_time
async def test_headers_that_are_no_texts_are_refused_where_they_are_given() -> None:
    bench = Bench()
    headers: Any = {"tenant": 7}
    async with bench.app, bench.app.worker():
        with pytest.raises(ConfigurationError, match="tenant"):
            bench.app.using(headers=headers)
    assert not bench.broker.publications


@in_virtual_time
async def test_publish_error_counts_unsent_and_unknown_events_and_says_that_changes_remain() -> None:
    bench = Bench()

    async def part(messages: Sequence[OutgoingMessage]) -> None:
        raise NotPublishedError(messages[2:], messages[1:2]) from away()

    bench.broker.publishing = part
    async with bench.app, bench.app.worker():
        with pytest.raises(PublishError) as caught:
            await bench.app.send(Join(("a", "b")))
    error = caught.value
    assert error.unknown == (Joined("b"),)
    assert error.unsent == (Sent("a"), Sent("of a domain event"))
    text = str(error)
    assert "could not publish 2 events, the outcome of 1 is unknown" in text
    assert "Sent, Joined" in text
    assert "away" in text
    assert "committed changes remain" in text
    assert "scope 1 closes" in bench.journal.lines
    assert isinstance(error.__cause__, NotPublishedError)
    assert isinstance(error.__cause__.__cause__, BrokerUnavailableError)
    assert not bench.watch.of("published")


@pytest.mark.parametrize(
    ("unknown", "cause", "why", "fix"),
    [
        (
            False,
            BrokerUnavailableError("amqp:socket-error."),
            "could not publish 1 event (Sent): amqp:socket-error",
            "publish the events in the `unsent` of this error again when the broker is available",
        ),
        (
            True,
            BrokerUnavailableError("cut off"),
            "the outcome of 1 event is unknown (Sent): cut off",
            "the events in `unknown` may have arrived: published again, they may be handled twice",
        ),
        (
            False,
            BrokerError("there is no topic 'sent'"),
            "could not publish 1 event (Sent): there is no topic 'sent'",
            "fix the cause first: the broker would reject them again",
        ),
    ],
    ids=["away", "cut off", "refused"],
)
@in_virtual_time
async def test_publish_error_says_what_to_do_about_its_cause_and_nothing_of_none(
    unknown: bool, cause: BrokerError, why: str, fix: str
) -> None:
    bench = Bench()

    async def fail(messages: Sequence[OutgoingMessage]) -> None:
        unsent = () if unknown else messages
        raise NotPublishedError(unsent, messages if unknown else ()) from cause

    bench.broker.publishing = fail
    async with bench.app, bench.app.worker():
        with pytest.raises(PublishError) as caught:
            await bench.app.publish(Sent("a"))
    assert str(caught.value) == f"{why}; committed changes remain; {fix}"
    assert caught.value.permanent is not isinstance(cause, BrokerUnavailableError)
    count = "1 with an unknown outcome" if unknown else "1 not published"
    assert str(caught.value.__cause__) == f"messages: {count}: {cause}"


@in_virtual_time
async def test_traceback_of_a_publish_error_shows_its_cause_and_no_frames_between() -> None:
    bench = Bench()
    bench.broker.break_down("publish")
    async with bench.app, bench.app.worker():
        with pytest.raises(PublishError) as caught:
            await bench.app.publish(Sent("a"))
    shown = "".join(traceback.format_exception(caught.value))
    assert "BrokerUnavailableError" in shown
    assert "During handling" not in shown
    assert "connection.py" not in shown


@in_virtual_time
async def test_a_fault_of_a_plugin_is_no_outage_and_what_became_of_the_events_is_unknown() -> None:
    bench = Bench()
    bench.broker.break_down("publish", error=lambda: ZeroDivisionError("a bug"))
    async with bench.app, bench.app.worker():
        for publishing in (bench.app.publish(Sent("a")), bench.app.send(Join(("a",)))):
            with pytest.raises(
                PublishError, match=r"ZeroDivisionError: a bug.*the broker would reject them again"
            ) as caught:
                await publishing
            assert caught.value.unsent == ()
            assert caught.value.unknown
            assert caught.value.permanent
            failed = caught.value.__cause__
            assert isinstance(failed, NotPublishedError)
            assert isinstance(failed.__cause__, ZeroDivisionError)


@in_virtual_time
async def test_what_did_not_leave_can_be_published_again() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        bench.broker.break_down("publish")
        with pytest.raises(PublishError) as caught:
            await bench.app.send(Join())
        bench.broker.mend()
        await bench.app.publish(*caught.value.unsent)
        await bench.watch.settle(3)


@in_virtual_time
async def test_outside_of_a_delivery_publishing_waits_for_room_up_to_its_timeout() -> None:
    bench = Bench(Flaky(MemoryBroker(capacity=2)), publish_timeout=4)
    loop = asyncio.get_running_loop()
    async with bench.app:
        async with bench.app.worker():
            ...
        await bench.app.publish(Sent("1"), Sent("2"))
        began = loop.time()
        with pytest.raises(PublishError, match="no capacity") as caught:
            await bench.app.publish(Sent("3"))
        assert loop.time() - began == pytest.approx(4, abs=0.1)
        assert caught.value.unsent == (Sent("3"),)
        waiting = asyncio.ensure_future(bench.app.publish(Sent("4")))
        await asyncio.sleep(1)
        assert not waiting.done()
        async with bench.app.worker():
            await waiting
            await bench.watch.settle(3)


@in_virtual_time
async def test_a_cancel_does_not_interrupt_publishing() -> None:
    bench = Bench()

    async def slowly(messages: Sequence[OutgoingMessage]) -> None:
        await asyncio.sleep(1)
        await bench.broker.inner.publish(messages, timeout=1)

    bench.broker.publishing = slowly
    async with bench.app, bench.app.worker():
        task = asyncio.ensure_future(bench.app.send(Join()))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await bench.watch.settle(3)


@in_virtual_time
async def test_a_cancel_while_waiting_for_room_interrupts_nothing_either() -> None:
    bench = Bench(Flaky(MemoryBroker(capacity=1)))
    async with bench.app:
        async with bench.app.worker():
            ...
        await bench.app.publish(Sent("1"))
        task = asyncio.ensure_future(bench.app.publish(Sent("2")))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        async with bench.app.worker():
            await bench.watch.settle(2)
        with pytest.raises(asyncio.CancelledError):
            await task


@in_virtual_time
async def test_publish_of_several_has_one_scope_and_one_batch_and_its_own_causes() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await bench.app.publish(Sent("a"), Sent("b"))
        await bench.app.publish(Sent("c"))
    (first, second), (third,) = (messages for messages, _, _ in bench.broker.publications)
    assert len({first.id, second.id, third.id}) == 3
    assert first.envelope.diatorcorrelation == second.envelope.diatorcorrelation
    assert third.envelope.diatorcorrelation == third.id
    assert {m.envelope.diatorcausation for m in (first, second, third)} == {None}


@in_virtual_time
async def test_brokered_events_are_never_handled_in_process() -> None:
    ran: list[Any] = []
    app = Diator("meetings", broker=Flaky())

    @app.on_event
    async def sent(event: Sent) -> None:
        ran.append(event)

    async with app:
        await app.publish(Sent("a"))
        await asyncio.sleep(10)
    assert not ran


@in_virtual_time
async def test_outer_middlewares_see_the_sending_and_may_try_the_whole_unit_again() -> None:
    bench = Bench()
    tried: list[str] = []

    @bench.app.middleware
    async def again(command: Command[Any], call_next: CallNext) -> Any:
        try:
            return await call_next(command)
        except PublishError as error:
            tried.append(type(error).__name__)
            bench.broker.mend()
            return await call_next(command)

    async with bench.app, bench.app.worker():
        bench.broker.break_down("publish")
        assert await bench.app.send(Join()) == "done"
    assert tried == ["PublishError"]
    assert [line for line in bench.journal.lines if "scope" in line] == [
        "scope 1 opens",
        "scope 1 closes",
        "scope 2 opens",
        "scope 2 closes",
    ]


@in_virtual_time
async def test_a_key_of_another_kind_than_text_is_written_as_text() -> None:
    @contract("meetings.numbered", key="number")
    @dataclass(frozen=True)
    class Numbered(NotificationEvent):
        number: int | None

    broker = Flaky()
    app = Diator("meetings", broker=broker)
    app.publishes(Numbered)
    async with app:
        await app.publish(Numbered(7), Numbered(None), Numbered(0))
    (messages, _, _) = broker.publications[0]
    assert [message.key for message in messages] == ["7", None, "0"]


@pytest.mark.parametrize("headers", [{"file": "caf\udce9"}, {"caf\udce9": "x"}, {"traceparent": "\udce9"}])
@in_virtual_time
async def test_headers_that_no_broker_can_carry_are_refused_where_they_are_given(headers: dict[str, str]) -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        with pytest.raises(ConfigurationError, match="lone surrogate"):
            bench.app.using(headers=headers)
