"""The server, driven by the real SDK."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import servicebus_test_server
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus._pyamqp.error import AMQPError
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
    ServiceBusConnectionError,
    ServiceBusError,
    ServiceBusQuotaExceededError,
    ServiceBusServerBusyError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)
from servicebus_test_server import (
    Action,
    Filter,
    MessageCounts,
    Point,
    Queue,
    ServiceBusServer,
    Subscription,
    Topic,
)
from servicebus_test_server.__main__ import main as serve
from servicebus_test_server.command_line import read_entities
from servicebus_test_server.frames import AMQP_HEADER, SASL_HEADER, write_frame
from servicebus_test_server.performatives import Begin, Open, Transfer

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

NUMBERS = itertools.count(1)
BIG = 200_000
HEARTBEAT = bytes.fromhex("00000008 02000000")
CLOSE_CODE = b"\x00\x53\x18"


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as running:
        yield running


@dataclass
class Bench:
    """A client of a server, with one queue of its own."""

    server: ServiceBusServer
    client: ServiceBusClient
    stack: contextlib.AsyncExitStack
    name: str = ""

    def queue(self, **options: Any) -> str:
        self.name = f"queue{next(NUMBERS)}"
        self.server.add(Queue(self.name, **options))
        return self.name

    async def sender(self, name: str | None = None) -> ServiceBusSender:
        return await self.stack.enter_async_context(self.client.get_queue_sender(name or self.name, keep_alive=0))

    async def receiver(self, **options: Any) -> ServiceBusReceiver:
        return await self.stack.enter_async_context(self.quick(self.client.get_queue_receiver, self.name, **options))

    async def pair(self, **options: Any) -> tuple[ServiceBusSender, ServiceBusReceiver]:
        return await asyncio.gather(self.sender(), self.receiver(**options))

    def hasty(self) -> Bench:
        """The same with a client that does not try again."""
        client = ServiceBusClient.from_connection_string(self.server.connection_string, retry_total=0)
        return Bench(self.server, client, self.stack, self.name)

    def quick(self, get: Callable[..., ServiceBusReceiver], *names: str, **options: Any) -> ServiceBusReceiver:
        return get(*names, **{"keep_alive": 0, "prefetch_count": 20, "socket_timeout": 0.02, **options})

    def counts(self, path: str = "") -> MessageCounts:
        return self.server.counts(path or self.name)


@pytest.fixture
async def bench(server: ServiceBusServer) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as stack:
        client = ServiceBusClient.from_connection_string(server.connection_string, retry_backoff_factor=0.05)
        yield Bench(server, await stack.enter_async_context(client), stack)
    server.clear_faults()


async def one(receiver: ServiceBusReceiver, wait: float = 5) -> ServiceBusReceivedMessage:
    (message,) = await receiver.receive_messages(max_message_count=1, max_wait_time=wait)
    return message


def ignore(*_: object, **__: object) -> None:
    """Look at no answer."""


def message_tokens(message: ServiceBusReceivedMessage) -> Any:
    return {"TYPE": "ARRAY", "VALUE": [message.lock_token]}


async def nothing(receiver: ServiceBusReceiver, wait: float = 0.3) -> None:
    assert await receiver.receive_messages(max_message_count=1, max_wait_time=wait) == []


def body(message: ServiceBusReceivedMessage) -> bytes:
    return b"".join(message.body)


async def eventually(check: Callable[[], bool], seconds: float = 3) -> None:
    for _ in range(int(seconds / 0.02)):
        if check():
            return
        await asyncio.sleep(0.02)
    assert check()


def test_what_is_exported_is_there() -> None:
    assert servicebus_test_server.__all__ == sorted(servicebus_test_server.__all__)
    assert all(hasattr(servicebus_test_server, name) for name in servicebus_test_server.__all__)


class TestMessages:
    async def test_a_message_arrives_as_it_was_sent(self, bench: Bench) -> None:
        name = bench.queue()
        sender, receiver = await bench.pair()
        before = datetime.now(timezone.utc)
        await sender.send_messages(
            ServiceBusMessage(
                b"body",
                message_id="id",
                subject="Sold",
                correlation_id="c",
                content_type="text/plain",
                reply_to="r",
                to="t",
                partition_key="p",
                time_to_live=timedelta(seconds=90),
                application_properties={"text": "ä", "number": 5, "flag": True, "real": 0.5},
            )
        )
        message = await one(receiver)
        assert body(message) == b"body"
        assert (message.message_id, message.subject, message.correlation_id) == ("id", "Sold", "c")
        assert (message.content_type, message.reply_to, message.to, message.partition_key) == (
            "text/plain",
            "r",
            "t",
            "p",
        )
        assert message.application_properties == {b"text": "ä".encode(), b"number": 5, b"flag": True, b"real": 0.5}
        assert (message.delivery_count, message.sequence_number) == (0, 1)
        assert message.time_to_live == timedelta(seconds=90)
        assert message.enqueued_time_utc is not None
        assert abs(message.enqueued_time_utc - before) < timedelta(seconds=1)
        assert message.locked_until_utc is not None
        assert timedelta(seconds=58) < message.locked_until_utc - before < timedelta(seconds=62)
        assert bench.counts() == MessageCounts(locked=1)
        (stored,) = bench.server.messages(name)
        assert (stored.state, stored.body, stored.subject, stored.delivery_count) == ("locked", b"body", "Sold", 0)
        await receiver.complete_message(message)
        assert bench.counts() == MessageCounts()
        connected = {each.container_id.split("-")[0]: each.entities for each in bench.server.connections()}
        assert connected == {"SBSender": (name,), "SBReceiver": (name,)}

    async def test_what_a_receiver_may_decide(self, bench: Bench) -> None:
        bench.queue(max_delivery_count=2)
        sender, receiver = await bench.pair()
        await sender.send_messages([ServiceBusMessage(str(number)) for number in range(3)])
        await receiver.abandon_message(await one(receiver))
        for _ in range(2):
            message = await one(receiver)
            await receiver.dead_letter_message(message, reason="why", error_description="because")
        message = await one(receiver)
        assert (body(message), message.delivery_count) == (b"0", 1)
        await receiver.abandon_message(message)
        assert bench.counts() == MessageCounts(dead=3)
        dead = await bench.receiver(sub_queue=ServiceBusSubQueue.DEAD_LETTER)
        letters = [await one(dead) for _ in range(3)]
        assert [(each.dead_letter_reason, body(each)) for each in letters] == [
            ("MaxDeliveryCountExceeded", b"0"),
            ("why", b"1"),
            ("why", b"2"),
        ]
        assert letters[1].dead_letter_error_description == "because"
        await dead.complete_message(letters[1])
        assert bench.counts().dead == 2
        with pytest.raises(ServiceBusError, match="dead-letter"):
            await dead.dead_letter_message(letters[0])

    async def test_what_is_buffered_is_released_and_not_counted(self, bench: Bench) -> None:
        bench.queue()
        sender = await bench.sender()
        await sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage("b")])
        async with bench.quick(bench.client.get_queue_receiver, bench.name) as first:
            await one(first)
            assert bench.counts().locked == 2
        await eventually(lambda: bench.counts() == MessageCounts(active=1, locked=1))
        message = await one(await bench.receiver())
        assert (body(message), message.delivery_count) == (b"b", 0)

    async def test_receive_and_delete(self, bench: Bench) -> None:
        bench.queue()
        sender = await bench.sender()
        receiver = await bench.receiver(receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE, prefetch_count=0)
        await sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage("b")])
        assert body(await one(receiver)) == b"a"
        assert bench.counts() == MessageCounts(active=1)

    async def test_large_messages_go_both_ways_in_several_frames(self, bench: Bench) -> None:
        bench.queue()
        sender, receiver = await bench.pair()
        content = random.Random(1).randbytes(BIG)
        await sender.send_messages(ServiceBusMessage(content))
        await sender.send_messages([ServiceBusMessage(content[:900]) for _ in range(100)])
        assert body(await one(receiver)) == content
        assert body(await one(receiver)) == content[:900]
        with pytest.raises(MessageSizeExceededError):
            await sender.send_messages(ServiceBusMessage(bytes(300_000)))
        batch = await sender.create_message_batch()
        assert batch.max_size_in_bytes == 262_144
        with pytest.raises(MessageSizeExceededError):
            batch.add_message(ServiceBusMessage(bytes(262_144)))

    async def test_competing_receivers_take_turns(self, bench: Bench) -> None:
        bench.queue()
        sender = await bench.sender()
        receivers = [await bench.receiver(prefetch_count=4), await bench.receiver(prefetch_count=4)]
        waiting = [each.receive_messages(max_message_count=5, max_wait_time=3) for each in receivers]
        await sender.send_messages([ServiceBusMessage(str(number)) for number in range(10)])
        got = await asyncio.gather(*waiting)
        assert [len(each) for each in got] == [5, 5]
        assert sorted(body(message) for part in got for message in part) == [str(n).encode() for n in range(10)]

    @pytest.mark.parametrize("over_management", [False, True])
    async def test_settling_may_change_properties(self, bench: Bench, over_management: bool) -> None:
        """SDKs of other languages offer it. The one of Python has it in parts of its own only."""
        bench.queue()
        sender, receiver = await bench.pair()
        await sender.send_messages(ServiceBusMessage("a", application_properties={"kept": True, "changed": 1}))

        async def settle(outcome: str, status: str, **changes: Any) -> None:
            message: Any = await one(receiver)
            private: Any = receiver
            if over_management:
                body = {"disposition-status": status, "lock-tokens": message_tokens(message), **changes["body"]}
                ask = private._mgmt_request_response_with_retry
                await ask(b"com.microsoft:update-disposition", body, ignore)
                return
            settling = private._handler.settle_messages_async(
                message._delivery_id, message._delivery_tag, outcome, await_outcome=True, **changes["state"]
            )
            with contextlib.suppress(ServiceBusError):
                await settling

        changed = {"changed": 2, "added": "x"}
        await settle(
            "modified",
            "abandoned",
            state={"delivery_failed": True, "message_annotations": changed},
            body={"properties-to-modify": changed},
        )
        (stored,) = bench.server.messages(bench.name)
        assert stored.application_properties == {"kept": True, "changed": 2, "added": "x"}
        assert stored.delivery_count == 1
        info = {"DeadLetterReason": "why", "DeadLetterErrorDescription": "text", "added": "y"}
        await settle(
            "rejected",
            "suspended",
            state={"error": AMQPError(b"com.microsoft:dead-letter", None, info)},
            body={
                "deadletter-reason": "why",
                "deadletter-description": "text",
                "properties-to-modify": {"added": "y"},
            },
        )
        (dead,) = bench.server.messages(bench.name, dead=True)
        assert dead.application_properties == {"kept": True, "changed": 2, **info}

    async def test_an_entity_that_is_not_there(self, bench: Bench) -> None:
        """The words are those of the service: other SDKs know the error by them."""
        bench.name = "nowhere"
        with pytest.raises(MessagingEntityNotFoundError, match=r"The messaging entity 'nowhere' could not be found\."):
            await bench.sender()
        with pytest.raises(MessagingEntityNotFoundError):
            await bench.receiver()
        with pytest.raises(LookupError, match="nowhere"):
            bench.counts("nowhere")


class TestLocks:
    async def test_a_lock_expires_and_can_be_renewed(self, bench: Bench) -> None:
        bench.queue(lock_seconds=1)
        sender, receiver = await bench.pair()
        await sender.send_messages(ServiceBusMessage("a"))
        message = await one(receiver)
        await asyncio.sleep(0.6)
        assert await receiver.renew_message_lock(message) > datetime.now(timezone.utc) + timedelta(seconds=0.8)
        await asyncio.sleep(0.6)
        assert bench.counts() == MessageCounts(locked=1)
        again = await one(receiver)
        assert again.delivery_count == 1
        with pytest.raises(MessageLockLostError):
            await receiver.complete_message(message)
        await receiver.complete_message(again)

    async def test_all_locks_expire_on_command(self, bench: Bench) -> None:
        bench.queue()
        sender, receiver = await bench.pair()
        await sender.send_messages(ServiceBusMessage("a"))
        message = await one(receiver)
        bench.server.expire_locks(bench.name)
        for settle in (receiver.complete_message, receiver.abandon_message, receiver.renew_message_lock):
            call: Callable[[ServiceBusReceivedMessage], Awaitable[object]] = settle
            with pytest.raises(MessageLockLostError):
                await call(message)
        assert (await one(receiver)).delivery_count == 1

    async def test_a_lock_outlives_its_connection(self, bench: Bench) -> None:
        bench.queue()
        sender, receiver = await bench.pair()
        await sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage("b")])
        first, second = await one(receiver), await one(receiver)
        assert bench.server.reset_connections("SBReceiver") == 1
        await nothing(receiver, 1.5)  # long enough to connect again
        assert bench.counts() == MessageCounts(locked=2)
        await receiver.complete_message(first)
        await receiver.dead_letter_message(second, reason="why")
        assert bench.counts() == MessageCounts(dead=1)


class TestManagement:
    async def test_peeking(self, bench: Bench) -> None:
        bench.queue()
        sender, receiver = await bench.pair(prefetch_count=0)
        assert await receiver.peek_messages() == []
        await sender.send_messages([ServiceBusMessage(str(number)) for number in range(3)])
        await sender.schedule_messages(ServiceBusMessage("3"), datetime.now(timezone.utc) + timedelta(hours=1))
        await receiver.defer_message(await one(receiver))
        locked = await one(receiver)
        seen = await receiver.peek_messages(max_message_count=10, sequence_number=1)
        active, deferred = ServiceBusMessageState.ACTIVE, ServiceBusMessageState.DEFERRED
        assert [each.state for each in seen] == [deferred, active, active, ServiceBusMessageState.SCHEDULED]
        assert [body(each) for each in seen] == [b"0", b"1", b"2", b"3"]
        assert [body(each) for each in await receiver.peek_messages(2, sequence_number=2)] == [b"1", b"2"]
        assert bench.counts() == MessageCounts(active=1, locked=1, scheduled=1, deferred=1)
        await receiver.complete_message(locked)

    async def test_deferred_messages_come_by_number_only(self, bench: Bench) -> None:
        bench.queue(lock_seconds=1)
        sender, receiver = await bench.pair()
        await sender.send_messages(ServiceBusMessage("a"))
        await receiver.defer_message(await one(receiver))
        await nothing(receiver)
        (deferred,) = await receiver.receive_deferred_messages(1)
        assert body(deferred) == b"a"
        assert bench.counts() == MessageCounts(locked=1)
        with pytest.raises(MessageNotFoundError):
            await receiver.receive_deferred_messages(1)
        await receiver.abandon_message(deferred)
        assert bench.counts() == MessageCounts(deferred=1)
        (deferred,) = await receiver.receive_deferred_messages([1])
        assert deferred.delivery_count == 1
        await receiver.complete_message(deferred)
        with pytest.raises(MessageNotFoundError):
            await receiver.receive_deferred_messages(1)
        assert bench.counts() == MessageCounts()

    async def test_scheduled_messages(self, bench: Bench) -> None:
        bench.queue()
        sender, receiver = await bench.pair()
        now = datetime.now(timezone.utc)
        soon, later = now + timedelta(seconds=0.6), now + timedelta(hours=1)
        numbers = await sender.schedule_messages([ServiceBusMessage("a"), ServiceBusMessage("b")], later)
        await sender.send_messages(ServiceBusMessage("c", scheduled_enqueue_time_utc=soon))
        assert numbers == [1, 2]
        assert bench.counts() == MessageCounts(scheduled=3)
        await sender.cancel_scheduled_messages(numbers)
        with pytest.raises(MessageNotFoundError):
            await sender.cancel_scheduled_messages(1)
        message = await one(receiver)
        assert (body(message), message.sequence_number) == (b"c", 4)
        assert datetime.now(timezone.utc) >= soon

    async def test_time_to_live(self, bench: Bench) -> None:
        bench.queue(default_ttl=1, dead_letter_on_expiry=True)
        sender = await bench.sender()
        await sender.send_messages(ServiceBusMessage("a"))
        await sender.send_messages(ServiceBusMessage("b", time_to_live=timedelta(hours=1)))
        await asyncio.sleep(1.1)
        assert bench.counts() == MessageCounts(dead=2)
        letters = bench.server.messages(bench.name, dead=True)
        assert [each.application_properties["DeadLetterReason"] for each in letters] == ["TTLExpiredException"] * 2

    async def test_duplicates_are_accepted_and_dropped(self, bench: Bench) -> None:
        bench.queue(duplicate_window=0.5)
        sender = await bench.sender()
        for _ in range(2):
            await sender.send_messages(ServiceBusMessage("a", message_id="1"))
        await sender.send_messages([ServiceBusMessage("a", message_id="1"), ServiceBusMessage("b", message_id="2")])
        assert [each.message_id for each in bench.server.messages(bench.name)] == ["1", "2"]
        await asyncio.sleep(0.55)
        await sender.send_messages(ServiceBusMessage("a", message_id="1"))
        assert bench.counts() == MessageCounts(active=3)


class TestTopics:
    async def test_every_subscription_gets_what_it_accepts(self, bench: Bench) -> None:
        sold = Filter(subject=("Sold", "Paid"))
        mine = Filter(properties={"to": (None, "me")})
        bench.server.add(
            Topic(
                "news", [Subscription("all"), Subscription("sold", filters=[sold]), Subscription("me", filters=[mine])]
            )
        )
        sender = await bench.stack.enter_async_context(bench.client.get_topic_sender("news", keep_alive=0))
        receiver = await bench.stack.enter_async_context(
            bench.quick(bench.client.get_subscription_receiver, "news", "sold")
        )
        await sender.send_messages(ServiceBusMessage("a", subject="Sold", application_properties={"to": "you"}))
        await sender.send_messages(ServiceBusMessage("b", subject="Lost", application_properties={"to": "me"}))
        await sender.send_messages(ServiceBusMessage("c", subject="Paid"))

        def stored(path: str) -> list[bytes]:
            return [each.body for each in bench.server.messages(path)]

        assert stored("news/all") == [b"a", b"b", b"c"]
        assert stored("news/Subscriptions/me") == [b"b", b"c"]
        messages = await receiver.receive_messages(max_message_count=2, max_wait_time=3)
        assert [body(each) for each in messages] == [b"a", b"c"]
        await receiver.complete_message(messages[0])
        await receiver.dead_letter_message(messages[1], reason="why")
        assert bench.counts("NEWS/sold") == MessageCounts(dead=1)
        assert [each.body for each in bench.server.messages("news/sold", dead=True)] == [b"c"]
        soon = datetime.now(timezone.utc) + timedelta(seconds=0.3)
        await sender.schedule_messages(ServiceBusMessage("d", subject="Sold"), soon)
        assert bench.counts("news") == MessageCounts(scheduled=1)
        assert body(await one(receiver)) == b"d"
        bench.server.add_subscription("news", Subscription("late"))
        await sender.send_messages(ServiceBusMessage("e"))
        assert stored("news/late") == [b"e"]
        with pytest.raises(ValueError, match="late"):
            bench.server.add_subscription("news", Subscription("late"))

    async def test_a_topic_finds_duplicates_and_cannot_be_received_from(self, bench: Bench) -> None:
        bench.server.add(Topic("twice", [Subscription("all")], duplicate_window=60))
        sender = await bench.stack.enter_async_context(bench.client.get_topic_sender("twice", keep_alive=0))
        await sender.send_messages([ServiceBusMessage("a", message_id="1"), ServiceBusMessage("a", message_id="1")])
        assert bench.counts("twice/all") == MessageCounts(active=1)
        bench.name = "twice"
        with pytest.raises(ServiceBusError, match="subscriptions"):
            await bench.receiver()
        with pytest.raises(ServiceBusError, match="cannot be sent to"):
            await bench.sender("twice/Subscriptions/all")


class TestSessions:
    async def test_a_session_is_read_in_order_by_its_holder_only(self, bench: Bench) -> None:
        bench.queue(sessions=True)
        sender = await bench.sender()
        for number, session in enumerate("abab"):
            await sender.send_messages(ServiceBusMessage(str(number), session_id=session))
        with pytest.raises(ServiceBusError, match="session"):
            await sender.send_messages(ServiceBusMessage("x"))
        with pytest.raises(ServiceBusError, match="requires sessions"):
            await bench.receiver()
        assert [name async for name in bench.client.list_queue_sessions(bench.name)] == ["a", "b"]
        async with bench.quick(bench.client.get_queue_receiver, bench.name, session_id="b") as holder:
            message = await one(holder)
            assert (body(message), message.session_id, message.locked_until_utc) == (b"1", "b", None)
            await holder.complete_message(message)
            with pytest.raises(SessionCannotBeLockedError):
                await bench.hasty().receiver(session_id="b")
            assert holder.session.locked_until_utc is not None
            assert await holder.session.renew_lock() > datetime.now(timezone.utc) + timedelta(seconds=50)
            assert await holder.session.get_state() is None
            await holder.session.set_state(b"state")
            assert await holder.session.get_state() == b"state"
            await one(holder)
        await eventually(lambda: bench.counts() == MessageCounts(active=3))
        ago = datetime.now(timezone.utc) - timedelta(minutes=1)
        listed = bench.client.list_queue_sessions(bench.name, state_updated_after=ago)
        assert [name async for name in listed] == ["b"]
        again = await bench.receiver(session_id="b")
        message = await one(again)
        assert (body(message), message.delivery_count) == (b"3", 0)
        assert await again.session.get_state() == b"state"
        await again.session.set_state(None)
        assert await again.session.get_state() is None

    async def test_the_next_session_that_is_free(self, bench: Bench) -> None:
        bench.queue(sessions=True)
        sender = await bench.sender()
        hasty = bench.hasty()
        with pytest.raises(OperationTimeoutError):
            await hasty.receiver(max_wait_time=0.3, session_id=NEXT_AVAILABLE_SESSION)
        waiting = asyncio.ensure_future(hasty.receiver(max_wait_time=5, session_id=NEXT_AVAILABLE_SESSION))
        await asyncio.sleep(1)
        assert not waiting.done()
        await sender.send_messages(ServiceBusMessage("a", session_id="s"))
        receiver = await waiting
        assert receiver.session.session_id == "s"
        assert body(await one(receiver)) == b"a"

    async def test_a_session_is_lost_when_its_lock_expires(self, bench: Bench) -> None:
        bench.queue(sessions=True)
        sender = await bench.sender()
        await sender.send_messages(ServiceBusMessage("a", session_id="s"))
        receiver = await bench.receiver(session_id="s")
        message = await one(receiver)
        bench.server.expire_locks()
        with pytest.raises(SessionLockLostError):
            await receiver.complete_message(message)
        assert (await one(await bench.receiver(session_id="s"))).delivery_count == 1

    async def test_a_session_is_free_after_its_connection(self, bench: Bench) -> None:
        bench.queue(sessions=True)
        receiver = await bench.receiver(session_id="s")
        bench.server.reset_connections()
        with pytest.raises((ServiceBusConnectionError, SessionLockLostError)):
            await one(receiver)
        await bench.receiver(session_id="s")

    async def test_sessions_on_a_queue_without(self, bench: Bench) -> None:
        bench.queue()
        with pytest.raises(ServiceBusError, match="does not support sessions"):
            await bench.receiver(session_id="s")


class TestFaults:
    @pytest.mark.parametrize(
        ("action", "stored"), [(Action.DROP_BEFORE, 1), (Action.DROP_AFTER, 2), (Action.REFUSE, 1)]
    )
    async def test_a_send_fails_once_and_is_tried_again(self, bench: Bench, action: Action, stored: int) -> None:
        name = bench.queue()
        sender = await bench.sender()
        fault = bench.server.inject(Point.INCOMING, action, skip=1, entity=name)
        await sender.send_messages(ServiceBusMessage("a"))
        assert fault.hits == 0
        await sender.send_messages(ServiceBusMessage("b"))
        assert fault.hits == 1
        assert bench.counts() == MessageCounts(active=1 + stored)

    async def test_refusals_carry_their_condition(self, bench: Bench) -> None:
        name = bench.queue()
        sender = await bench.sender()
        full = "amqp:resource-limit-exceeded"
        bench.server.inject(Point.INCOMING, Action.REFUSE, entity=name, condition=full)
        with pytest.raises(ServiceBusQuotaExceededError):
            await sender.send_messages(ServiceBusMessage("a"))
        fault = bench.server.inject(Point.MANAGEMENT, Action.REFUSE, entity=name, count=None)
        with pytest.raises(ServiceBusServerBusyError):
            await sender.schedule_messages(ServiceBusMessage("a"), datetime.now(timezone.utc) + timedelta(hours=1))
        assert fault.hits == 4
        fault.cancel()
        bench.server.inject(Point.ATTACH, Action.REFUSE, count=None, entity=name, condition="amqp:not-found")
        with pytest.raises(MessagingEntityNotFoundError):
            await bench.receiver()

    async def test_an_unanswered_send_times_out(self, bench: Bench) -> None:
        bench.queue()
        sender = await bench.sender()
        bench.server.inject(Point.INCOMING, Action.HANG_AFTER)
        with pytest.raises(OperationTimeoutError):
            await sender.send_messages(ServiceBusMessage("a"), timeout=0.3)
        assert bench.counts() == MessageCounts(active=1)

    async def test_a_token_is_refused(self, bench: Bench) -> None:
        bench.queue()
        fault = bench.server.inject(Point.PUT_TOKEN, Action.REFUSE, entity=bench.name)
        with pytest.raises(ServiceBusAuthenticationError):
            await bench.hasty().sender()
        assert fault.hits == 1

    @pytest.mark.parametrize("point", [Point.ACCEPT, Point.OPEN, Point.PUT_TOKEN, Point.ATTACH])
    async def test_a_connection_that_breaks_on_the_way_is_made_again(self, bench: Bench, point: Point) -> None:
        bench.queue()
        fault = bench.server.inject(point, Action.DROP_BEFORE)
        sender = await bench.sender()
        await sender.send_messages(ServiceBusMessage("a"))
        assert fault.hits == 1

    async def test_an_open_is_refused(self, bench: Bench) -> None:
        bench.queue()
        bench.server.inject(Point.OPEN, Action.REFUSE, condition="amqp:connection:forced")
        sender = await bench.sender()
        await sender.send_messages(ServiceBusMessage("a"))

    async def test_a_settlement_is_applied_and_never_confirmed(self, bench: Bench) -> None:
        bench.queue()
        sender, receiver = await bench.pair(timeout=0.3)
        await sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage("b")])
        bench.server.inject(Point.DISPOSITION, Action.HANG_BEFORE)
        await receiver.complete_message(await one(receiver))  # over the management node
        assert bench.counts() == MessageCounts(locked=1)
        bench.server.inject(Point.DISPOSITION, Action.DROP_AFTER)
        with pytest.raises(MessageLockLostError):
            await receiver.complete_message(await one(receiver))
        assert bench.counts() == MessageCounts()

    async def test_deliveries_that_are_lost_stay_locked(self, bench: Bench) -> None:
        bench.queue(lock_seconds=1)
        sender = await bench.sender()
        fault = bench.server.inject(Point.OUTGOING, Action.HANG_BEFORE, entity=bench.name)
        receiver = await bench.receiver()
        await sender.send_messages(ServiceBusMessage("a"))
        await nothing(receiver, 0.5)
        assert (fault.hits, bench.counts()) == (1, MessageCounts(locked=1))
        message = await one(receiver)
        assert message.delivery_count == 1
        await receiver.complete_message(message)
        bench.server.inject(Point.OUTGOING, Action.REFUSE, condition="amqp:link:detach-forced")
        await sender.send_messages(ServiceBusMessage("b"))
        assert (await one(receiver, 9)).delivery_count == 1

    @pytest.mark.parametrize(("action", "failures"), [(Action.DROP_BEFORE, 1), (Action.DROP_AFTER, 0)])
    async def test_deliveries_are_cut_off(self, bench: Bench, action: Action, failures: int) -> None:
        bench.queue(lock_seconds=2)
        sender, receiver = await bench.pair()
        bench.server.inject(Point.OUTGOING, action)
        await sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage("b")])
        messages = [await one(receiver)]
        while len(messages) < 2:
            messages += await receiver.receive_messages(max_message_count=1, max_wait_time=5)
        assert {body(each): each.delivery_count for each in messages} == {b"a": failures, b"b": 0}

    async def test_links_are_detached_on_command(self, bench: Bench) -> None:
        name = bench.queue()
        sender = await bench.sender()
        assert bench.server.detach(name) == 1
        await sender.send_messages(ServiceBusMessage("a"))
        assert bench.counts() == MessageCounts(active=1)


def exchange(server: ServiceBusServer, *parts: bytes) -> bytes:
    """Send bytes on a connection of its own; return the answer up to its end."""
    with socket.create_connection((server.host, server.port), timeout=3) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
        return answer


class TestRobustness:
    @pytest.mark.parametrize(
        "frames",
        [
            "00000004 02000000",  # too small
            "7fffffff 02000000",  # too large
            "0000000a 02000000 0000",  # no performative
            "0000000c 02000000 00531845",  # close before open
            "0000000c 02010000 00531045",  # a frame of SASL
            "0000000c 02000000 00531045 0000000c 02000000 00531345",  # a flow without a session
            "0000000c 02000000 00531045 0000000c 02000000 00531145",  # a begin without its windows
        ],
    )
    def test_malformed_frames_close_the_connection_with_an_error(self, server: ServiceBusServer, frames: str) -> None:
        answer = exchange(server, AMQP_HEADER, bytes.fromhex(frames))
        assert answer.startswith(AMQP_HEADER)
        assert CLOSE_CODE in answer
        assert b"amqp:" in answer

    def test_another_protocol_is_told_the_right_one(self, server: ServiceBusServer) -> None:
        assert exchange(server, b"GET / HTTP/1.1\r\n\r\n") == SASL_HEADER

    def test_a_client_that_asks_for_signs_of_life_gets_them(self, server: ServiceBusServer) -> None:
        with socket.create_connection((server.host, server.port), timeout=3) as connection:
            connection.sendall(AMQP_HEADER + write_frame(0, 0, Open("quiet", idle_time_out=100).write()))
            received = b""
            while not received.endswith(HEARTBEAT * 2):
                received += connection.recv(1000)

    def test_a_link_that_is_not_attached_ends_the_connection(self, server: ServiceBusServer) -> None:
        bodies = [Open("odd").write(), Begin(None, 0, 10, 10).write(), Transfer(5, 0, b"t").write()]
        answer = exchange(server, AMQP_HEADER, *(write_frame(0, 0, each) for each in bodies))
        assert b"no link is attached on handle 5" in answer

    async def test_random_bytes_do_no_harm(self, bench: Bench) -> None:
        bench.queue()
        sender = await bench.sender()
        chance = random.Random(7)
        recorded = await self.recorded(bench)
        for _ in range(60):
            noise = bytearray(recorded)
            for _ in range(chance.randrange(1, 20)):
                noise[chance.randrange(len(noise))] = chance.randrange(256)
            await asyncio.to_thread(exchange, bench.server, bytes(noise[: chance.randrange(1, len(noise))]))
            await asyncio.to_thread(exchange, bench.server, AMQP_HEADER, chance.randbytes(chance.randrange(200)))
        await eventually(lambda: len(bench.server.connections()) == 1)
        before = len(bench.server.messages(bench.name))
        await sender.send_messages(ServiceBusMessage("still there"))
        assert len(bench.server.messages(bench.name)) == before + 1

    async def recorded(self, bench: Bench) -> bytes:
        """What a sender writes from its first byte to its last, taken by a proxy."""
        taken = bytearray()
        loop = asyncio.get_running_loop()

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bool) -> None:
            while data := await reader.read(65536):
                taken.extend(data if keep else b"")
                writer.write(data)
            writer.close()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection(bench.server.host, bench.server.port)
            await asyncio.gather(pump(reader, there[1], True), pump(there[0], writer, False))
            done.set_result(None)

        done: asyncio.Future[None] = loop.create_future()
        proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = str(proxy.sockets[0].getsockname()[1])
        string = bench.server.connection_string.replace(str(bench.server.port), port)
        async with ServiceBusClient.from_connection_string(string) as client:
            async with client.get_queue_sender(bench.name, keep_alive=0) as sender:
                await sender.send_messages(ServiceBusMessage("a"))
        await done
        proxy.close()
        return bytes(taken)

    def test_a_server_ends_with_its_connections(self) -> None:
        with ServiceBusServer([Queue("q")]) as server:
            idle = socket.create_connection((server.host, server.port), timeout=3)
        with idle:
            idle.settimeout(3)
            with contextlib.suppress(ConnectionError):
                while idle.recv(1000):
                    pass
        with pytest.raises(RuntimeError, match="does not run"):
            server.counts("q")
        server.stop()

    def test_a_server_that_cannot_start_says_why(self, server: ServiceBusServer) -> None:
        with pytest.raises(OSError, match="in use"):
            ServiceBusServer(port=server.port).start()
        with pytest.raises(ValueError, match="already"):
            ServiceBusServer([Queue("a"), Topic("A")]).start()
        with pytest.raises(OverflowError, match="0-65535"):
            ServiceBusServer(port=70_000).start()

    def test_what_is_forwarded_must_have_a_place_to_go_to(self) -> None:
        with ServiceBusServer([Queue("retry", forward_to="LATER"), Queue("later")]) as server:
            assert server.counts("retry").active == 0
        with pytest.raises(ValueError, match=r"'retry' can't forward.*'nope'"):
            ServiceBusServer([Queue("retry", forward_to="nope")]).start()
        topic = Topic("news", [Subscription("mail", forward_to="news/Subscriptions/mail")])
        with pytest.raises(ValueError, match=r"'news/Subscriptions/mail' can't forward.*cannot be sent to"):
            ServiceBusServer([topic]).start()

    def test_a_server_that_could_not_start_can_be_started_later(self, server: ServiceBusServer) -> None:
        late = ServiceBusServer([Queue("q")], port=server.port)
        with pytest.raises(OSError, match="in use"):
            late.start()
        late.port = 0
        with late:
            assert late.counts("q") == MessageCounts()


class TestCommandLine:
    def test_entities_are_read_from_words(self) -> None:
        assert read_entities(
            ["orders,sessions,lock=5,max-delivery=3,duplicates=60,max-bytes=1000", "plain"],
            [
                "news/mail,subject=Sold|Paid,property.to=|mail,ttl=9,dead-letter-expired",
                "news,duplicates=1",
                "news/all",
            ],
        ) == [
            Queue(
                "orders",
                sessions=True,
                lock_seconds=5,
                max_delivery_count=3,
                duplicate_window=60,
                max_message_bytes=1000,
            ),
            Queue("plain"),
            Topic(
                "news",
                (
                    Subscription(
                        "mail",
                        default_ttl=9,
                        dead_letter_on_expiry=True,
                        filters=(Filter(subject=("Sold", "Paid"), properties={"to": (None, "mail")}),),
                    ),
                    Subscription("all"),
                ),
                duplicate_window=1,
            ),
        ]

    @pytest.mark.parametrize(
        ("word", "text"),
        [
            ("q,color=red", "'q' has no option 'color'; there are: dead-letter-expired"),
            (",lock=1", "',lock=1' has no name"),
            ("q,lock=PT1M", "option 'lock' of 'q' is 'PT1M': a number of seconds is expected, such as 60"),
            ("q,lock=-1", "option 'lock' of 'q' is '-1'"),
            ("q,max-delivery=0", "option 'max-delivery' of 'q' is '0': a whole number is expected, such as 10"),
            ("q,sessions=no", "option 'sessions' of 'q' is 'no': it takes no value"),
        ],
    )
    def test_words_that_mean_nothing_are_refused(self, word: str, text: str) -> None:
        with pytest.raises(ValueError, match=re.escape(text)):
            read_entities([word], [])

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["news", "news,duplicates=1"], "the topic 'news' is declared twice"),
            (["news/"], "'news/' has no name"),
            (["news/mail,ttl=soon"], "option 'ttl' of 'news/mail' is 'soon'"),
        ],
    )
    def test_topics_that_mean_nothing_are_refused(self, words: list[str], text: str) -> None:
        with pytest.raises(ValueError, match=re.escape(text)):
            read_entities([], words)

    @pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [
            (["--port", "70000"], 2, "argument --port: '70000' is no port: a number from 0 to 65535 is expected"),
            (["--port", "TAKEN"], 1, "can't listen on --host 127.0.0.1 --port TAKEN: "),
            (["--host", "a..b"], 1, "can't listen on --host a..b --port 0: "),
            (["--queue", "a", "--queue", "a"], 2, "the namespace has an entity 'a' already"),
            (["--queue", "a,lock=PT1M"], 2, "option 'lock' of 'a' is 'PT1M'"),
            (["--queue", "a,forward=nope"], 2, "'a' can't forward: The messaging entity 'nope' could not be found"),
            (["--color", "red"], 2, "unrecognized arguments: --color red"),
        ],
    )
    def test_a_mistake_is_one_line(
        self,
        server: ServiceBusServer,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        code: int,
        text: str,
    ) -> None:
        def leave(_number: int, _handler: object) -> None:
            """Leave the handlers of the process that runs the tests as they are."""

        monkeypatch.setattr(signal, "signal", leave)
        taken = str(server.port)
        with pytest.raises(SystemExit) as raised:
            serve(["--port", "0", *(each.replace("TAKEN", taken) for each in arguments)])
        out, err = capsys.readouterr()
        assert (raised.value.code, out, err.count("\n")) == (code, "", 1)
        assert err.startswith(f"Error: {text.replace('TAKEN', taken)}")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_the_server_runs_as_a_process_until_a_signal(self, number: signal.Signals) -> None:
        command = [sys.executable, "-m", "servicebus_test_server", "--port", "0", "--queue", "orders"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        assert process.stdout is not None
        string = (await process.stdout.readline()).decode().strip()
        started = time.monotonic()
        async with ServiceBusClient.from_connection_string(string) as client:
            async with client.get_queue_sender("orders", keep_alive=0) as sender:
                await sender.send_messages(ServiceBusMessage("a"))
                assert time.monotonic() - started < 10
                process.send_signal(number)
                rest = await asyncio.wait_for(process.communicate(), 5)
        assert (process.returncode, rest) == (0, (b"", b""))


async def test_a_removed_entity_is_gone_with_its_messages(bench: Bench) -> None:
    server = bench.server
    server.add(
        Queue("removed"), Topic("removed-topic", [Subscription("kept"), Subscription("gone", forward_to="removed")])
    )
    assert ("removed-topic/Subscriptions/gone", "removed") in server.subscriptions()
    async with bench.client.get_queue_sender("removed") as sender:
        await sender.send_messages(ServiceBusMessage(b"1"))
    receiver = bench.client.get_queue_receiver("removed")
    async with receiver:
        await one(receiver)
        server.remove("removed-topic/Subscriptions/gone")
        server.remove("removed")
        with pytest.raises(MessagingEntityNotFoundError):
            await receiver.receive_messages(max_wait_time=1)
    assert [path for path, _ in server.subscriptions() if path.startswith("removed")] == [
        "removed-topic/Subscriptions/kept"
    ]
    for path in ("removed", "removed-topic/gone", "removed/$DeadLetterQueue"):
        with pytest.raises(LookupError):
            server.counts(path)
    server.add(Queue("removed"))
    assert server.counts("removed") == MessageCounts()
    server.remove("removed-topic")
    with pytest.raises(LookupError):
        server.remove("removed-topic/kept")
