"""What goes wrong on the way to Service Bus: nothing is lost, and what comes twice is bounded and counted.

Not collected when ``DIATOR_TEST_SERVICEBUS`` names a real namespace, which does not fail on command.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import servicebus_test_server as servers
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSession
from azure.servicebus.amqp import AmqpAnnotatedMessage
from diator_azure_servicebus import ServiceBusBroker, _held_session, _sdk
from diator_azure_servicebus.testing import ServerTopology
from servicebus_test_server import Action, Point, Queue, ServiceBusServer, shorten_sdk_sleeps

from diator import Diator, NotificationEvent, PublishError, Reject, Retry, contract
from diator.brokers import (
    ACK,
    RELEASE,
    Delivery,
    Envelope,
    MoveToDeadLetters,
    Outcome,
    OutgoingMessage,
    Receiver,
    RetryAfter,
    Subscription,
    Topic,
    dead_letters_of,
    parse_envelope,
)
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

if os.environ.get("DIATOR_TEST_SERVICEBUS"):
    pytest.skip("a real namespace does not fail on command", allow_module_level=True)

DROPS = [Action.DROP_BEFORE, Action.DROP_AFTER]
OPEN_TIMEOUT = 8.0


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as running, shorten_sdk_sleeps():
        yield running


@dataclass
class Shop:
    """A broker with one subscription of its own."""

    server: ServiceBusServer
    broker: ServiceBusBroker
    subscription: Subscription

    @property
    def queue(self) -> str:
        return self.subscription.name

    @property
    def topic(self) -> Topic:
        return self.subscription.topics[0]

    def message(self, number: int, key: str | None = None) -> OutgoingMessage:
        envelope = Envelope(specversion="1.0", id=f"{number}", source="shop", type="sold", partitionkey=key)
        return OutgoingMessage(self.topic.name, envelope)

    async def publish(self, *numbers: int, key: str | None = None) -> None:
        await self.broker.publish([self.message(number, key) for number in numbers], timeout=OPEN_TIMEOUT)

    async def receiver(self) -> Receiver:
        return await self.broker.subscribe(self.subscription)

    async def other(self) -> Receiver:
        """A receiver of another process."""
        broker = new_broker(self.server, self.broker.lease)
        await broker.connect()
        self.others.append(broker)
        return await broker.subscribe(self.subscription)

    def __post_init__(self) -> None:
        self.others: list[ServiceBusBroker] = []


def new_broker(server: ServiceBusServer, lease: float = 30.0, **options: Any) -> ServiceBusBroker:
    topology = ServerTopology(server)
    return ServiceBusBroker(server.connection_string, lease=lease, topology=topology, **options)


@contextlib.asynccontextmanager
async def opened(
    server: ServiceBusServer, *, ordered: bool = False, lease: float = 30.0, **options: Any
) -> AsyncGenerator[Shop, None]:
    name = f"shop{uuid4().hex[:8]}"
    subscription = Subscription(f"{name}.mail", (Topic(f"{name}.sold", ("sold",)),), ordered=ordered)
    shop = Shop(server, new_broker(server, lease, **options), subscription)
    await shop.broker.connect()
    await shop.broker.apply([subscription], subscription.topics)
    try:
        yield shop
    finally:
        server.clear_faults()
        for broker in (*shop.others, shop.broker):
            await broker.aclose()


class Line:
    """A line to the server that takes ``delay`` seconds each way, and hangs up politely, as load balancers do."""

    def __init__(self, server: ServiceBusServer, delay: float = 0.0) -> None:
        self._port = server.port
        self._delay = delay
        self._clients: set[asyncio.StreamWriter] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Line:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(self._delay)
        for end in self._ends:
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    @property
    def connection_string(self) -> str:
        """What to connect with."""
        port = self._server.sockets[0].getsockname()[1]
        names = "SharedAccessKeyName=Root;SharedAccessKey=any;UseDevelopmentEmulator=true;"
        return f"Endpoint=sb://127.0.0.1:{port};{names}"

    def hang_up(self) -> None:
        """Say on all connections that nothing more comes."""
        for client in self._clients:
            client.write_eof()
        self._clients.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._clients.add(writer)
        self._ends += [writer, back]
        self._start(self._pass_on(reader, back))
        self._start(self._pass_on(there, writer))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        later = asyncio.get_running_loop().call_later
        try:
            while data := await reader.read(65_536):
                later(self._delay, writer.write, data)
        finally:
            self._clients.discard(writer)
            later(self._delay, writer.close)


async def take(receiver: Receiver, limit: int = 1) -> Delivery:
    """Receive one, as the engine does: again, while the broker says that it is away."""
    end = asyncio.get_running_loop().time() + OPEN_TIMEOUT
    while True:
        try:
            if deliveries := await asyncio.wait_for(receiver.receive(limit), OPEN_TIMEOUT):
                assert len(deliveries) == 1
                return deliveries[0]
        except BrokerUnavailableError:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.02)


async def nothing(receiver: Receiver, seconds: float = 0.3) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(receiver.receive(1), seconds)


async def settle(receiver: Receiver, delivery: Delivery, outcome: Outcome) -> bool:
    """Settle as the engine does: again after an error; tells whether it was lost."""
    for _ in range(20):
        try:
            return bool(await receiver.settle([(delivery, outcome)]))
        except BrokerUnavailableError:
            await asyncio.sleep(0.05)
    raise AssertionError("it could not be settled")


def number(delivery: Delivery) -> int:
    return int(parse_envelope(delivery.headers, delivery.body).id)


class TestPublishing:
    @pytest.mark.parametrize(("action", "copies"), [(Action.DROP_BEFORE, 1), (Action.DROP_AFTER, 2)])
    async def test_a_send_that_breaks_is_repeated(self, server: ServiceBusServer, action: Action, copies: int) -> None:
        """What was stored and not confirmed is there twice: no duplicate detection here."""
        async with opened(server) as shop:
            await shop.publish(0)
            server.inject(Point.INCOMING, action, entity=shop.topic.name)
            await shop.publish(1)
            assert server.counts(shop.queue).active == 1 + copies

    @pytest.mark.parametrize("action", DROPS)
    async def test_duplicate_detection_drops_what_was_repeated(self, server: ServiceBusServer, action: Action) -> None:
        """The message id is the event's id, not a random one as in diator 0.1."""
        async with opened(server, duplicate_window=60.0) as shop:
            await shop.publish(0)
            server.inject(Point.INCOMING, action, entity=shop.topic.name)
            await shop.publish(1)
            await shop.publish(1)
            assert [str(one.message_id) for one in server.messages(shop.queue)] == ["0", "1"]

    async def test_a_scheduled_event_is_known_as_a_duplicate_from_when_it_was_published(
        self, server: ServiceBusServer
    ) -> None:
        """The window begins when it is published, not when it is due, also for what is published at once."""
        async with opened(server, duplicate_window=60.0) as shop:
            due = datetime.now(timezone.utc) + timedelta(hours=1)
            later = [OutgoingMessage(shop.topic.name, shop.message(at).envelope, due=due) for at in (1, 2)]
            await shop.publish(1)
            await shop.broker.publish(later, timeout=OPEN_TIMEOUT)
            await shop.publish(2, 3)
            assert [str(one.message_id) for one in server.messages(shop.queue)] == ["1", "3"]
            assert server.counts(shop.topic.name).scheduled == 1

    async def test_what_is_scheduled_leaves_in_one_batch_with_the_others(self, server: ServiceBusServer) -> None:
        """Each keeps its own time there, also in the batch of what was published at the same time."""
        async with opened(server) as shop:
            await shop.publish(0)  # opens the sender
            due = datetime.now(timezone.utc) + timedelta(seconds=0.6)
            later = [OutgoingMessage(shop.topic.name, shop.message(at).envelope, due=due) for at in (1, 2)]
            await asyncio.gather(
                *(shop.broker.publish([one], timeout=OPEN_TIMEOUT) for one in (*later, shop.message(3))),
                shop.broker.publish([later[0], shop.message(4)], timeout=OPEN_TIMEOUT),
            )
            assert {str(one.message_id) for one in server.messages(shop.queue)} == {"0", "3", "4"}
            assert server.counts(shop.topic.name).scheduled == 3
            receiver = await shop.receiver()
            came = [number(await take(receiver)) for _ in range(6)]
            assert sorted(came[:3]) == [0, 3, 4]
            assert sorted(came[3:]) == [1, 1, 2]

    async def test_one_client_and_one_sender_stay_open(self, server: ServiceBusServer) -> None:
        """In diator 0.1 the client was closed after each send, so that only the first one worked."""
        async with opened(server) as shop:
            before = {one.container_id for one in server.connections()}
            for at in range(20):
                await shop.publish(at)
            (new,) = {one.container_id for one in server.connections()} - before
            assert new.startswith("SBSender")
            assert server.counts(shop.queue).active == 20

    async def test_a_busy_service_is_waited_for(self, server: ServiceBusServer) -> None:
        async with opened(server) as shop:
            fault = server.inject(Point.INCOMING, Action.REFUSE, count=2, entity=shop.topic.name)
            await shop.publish(1)
            assert (fault.hits, server.counts(shop.queue).active) == (2, 1)

    @pytest.mark.parametrize("condition", ["com.microsoft:server-busy", "amqp:resource-limit-exceeded"])
    async def test_what_is_refused_is_surely_unsent(self, server: ServiceBusServer, condition: str) -> None:
        async with opened(server) as shop:
            server.inject(Point.INCOMING, Action.REFUSE, count=None, entity=shop.topic.name, condition=condition)
            with pytest.raises(NotPublishedError) as raised:
                await shop.publish(1, 2)
            assert (len(raised.value.unsent), raised.value.unknown) == (2, ())
            assert isinstance(raised.value.__cause__, BrokerUnavailableError)

    async def test_what_hangs_is_unknown_and_takes_no_longer_than_asked(self, server: ServiceBusServer) -> None:
        async with opened(server) as shop:
            await shop.publish(0)
            server.inject(Point.INCOMING, Action.HANG_AFTER, entity=shop.topic.name)
            began = asyncio.get_running_loop().time()
            with pytest.raises(NotPublishedError) as raised:
                await shop.broker.publish([shop.message(1)], timeout=0.5)
            assert asyncio.get_running_loop().time() - began < 1.5
            assert (raised.value.unsent, len(raised.value.unknown)) == ((), 1)
            await shop.publish(2)
            assert server.counts(shop.queue).active == 3

    async def test_what_is_published_at_the_same_time_leaves_together(self, server: ServiceBusServer) -> None:
        """And in the order of the calls."""
        async with opened(server) as shop:
            await shop.publish(0)
            seen = server.inject(Point.INCOMING, Action.REFUSE, skip=1_000_000, entity=shop.topic.name)
            await asyncio.gather(*(shop.publish(at, key="k") for at in range(1, 50)))
            assert [str(one.message_id) for one in server.messages(shop.queue)] == [f"{at}" for at in range(50)]
            assert 1_000_000 - seen.skip == 1

    async def test_each_gets_its_own_answer_where_several_that_left_together_are_refused(
        self, server: ServiceBusServer
    ) -> None:
        async with opened(server) as shop:
            await shop.publish(0)
            condition = "amqp:not-allowed"  # all of them, and then the first alone
            server.inject(Point.INCOMING, Action.REFUSE, count=2, entity=shop.topic.name, condition=condition)
            answers = await asyncio.gather(*(shop.publish(at) for at in range(1, 6)), return_exceptions=True)
            assert [type(answer) for answer in answers] == [NotPublishedError, *[type(None)] * 4]
            assert [str(one.message_id) for one in server.messages(shop.queue)] == ["0", "2", "3", "4", "5"]

    async def test_who_has_no_time_left_while_others_send_has_surely_sent_nothing(
        self, server: ServiceBusServer
    ) -> None:
        async with opened(server) as shop:
            await shop.publish(0)
            server.inject(Point.INCOMING, Action.HANG_AFTER, entity=shop.topic.name)
            first = asyncio.ensure_future(shop.broker.publish([shop.message(1)], timeout=1.0))
            await asyncio.sleep(0.05)
            with pytest.raises(NotPublishedError) as raised:
                await shop.broker.publish([shop.message(2)], timeout=0.2)
            assert (len(raised.value.unsent), raised.value.unknown) == (1, ())
            with pytest.raises(NotPublishedError):
                await first
            await shop.publish(3)
            assert [str(one.message_id) for one in server.messages(shop.queue)] == ["0", "1", "3"]

    async def test_what_could_not_even_be_sent_is_surely_unsent(self, server: ServiceBusServer) -> None:
        """The connection was refused: the event may be published again without a doubt."""
        async with opened(server) as shop:
            server.take_offline()
            try:
                with pytest.raises(NotPublishedError) as raised:
                    await shop.broker.publish([shop.message(1)], timeout=2.0)
            finally:
                server.bring_online()
            assert (len(raised.value.unsent), raised.value.unknown) == (1, ())
            assert isinstance(raised.value.__cause__, BrokerUnavailableError)

    async def test_a_missing_topic_is_named_with_the_remedy(self, server: ServiceBusServer) -> None:
        async with opened(server) as shop:
            message = OutgoingMessage("nowhere", shop.message(1).envelope)
            with pytest.raises(NotPublishedError) as raised:
                await shop.broker.publish([message], timeout=OPEN_TIMEOUT)
            assert "'nowhere'" in str(raised.value.__cause__)
            assert "diator-azure plan" in str(raised.value.__cause__)

    async def test_what_the_service_finds_too_large_is_rejected_and_nothing_overtakes_it(
        self, server: ServiceBusServer
    ) -> None:
        """The app rejects what is larger than `max_message_bytes` before; the entity may take less than that."""
        async with opened(server) as shop:
            data = msgspec.Raw(b'"%s"' % (b"x" * 300_000))
            large = Envelope(specversion="1.0", id="big", source="s", type="sold", data=data)
            batch = [shop.message(1), OutgoingMessage(shop.topic.name, large), shop.message(2)]
            with pytest.raises(NotPublishedError) as raised:
                await shop.broker.publish(batch, timeout=OPEN_TIMEOUT)
            assert not isinstance(raised.value.__cause__, BrokerUnavailableError)
            assert (raised.value.unsent, raised.value.unknown) == ((batch[2],), ())
            assert raised.value.rejected == (batch[1],)
            assert [str(one.message_id) for one in server.messages(shop.queue)] == ["1"]

    async def test_batches_are_split_by_the_limit_of_the_service_and_stay_in_order(
        self, server: ServiceBusServer
    ) -> None:
        async with opened(server) as shop:
            data = msgspec.Raw(b'"%s"' % (b"x" * 60_000))
            sent = [
                OutgoingMessage(
                    shop.topic.name,
                    Envelope(specversion="1.0", id=f"{at}", source="s", type="sold", partitionkey="k", data=data),
                )
                for at in range(20)
            ]
            fault = server.inject(Point.INCOMING, Action.DROP_BEFORE, skip=1_000_000, entity=shop.topic.name)
            await shop.broker.publish(sent, timeout=OPEN_TIMEOUT)
            assert [str(one.message_id) for one in server.messages(shop.queue)] == [f"{at}" for at in range(20)]
            assert 1_000_000 - fault.skip == 5, "four of them go into one batch"


class TestSettling:
    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize(
        "outcome", [ACK, RetryAfter(0.0), MoveToDeadLetters("rejected")], ids=lambda one: type(one).__name__
    )
    @pytest.mark.parametrize("action", [*DROPS, Action.REFUSE])
    async def test_a_settlement_that_breaks_loses_nothing(
        self, server: ServiceBusServer, action: Action, outcome: Outcome, ordered: bool
    ) -> None:
        """It is carried out, or the message comes again; at most once more."""
        async with opened(server, ordered=ordered, lease=1.0) as shop:
            receiver = await shop.receiver()
            await shop.publish(1, key="k")
            delivery = await take(receiver)
            server.inject(Point.DISPOSITION, action, entity=shop.queue)
            lost = await settle(receiver, delivery, outcome)
            again = 0
            while (counts := server.counts(shop.queue)).active + counts.locked:
                again += 1
                assert not await settle(receiver, await take(receiver), ACK)
            assert again <= 1
            if not lost:
                assert again == isinstance(outcome, RetryAfter)
            parked = [letter async for letter in dead_letters_of(shop.broker, shop.subscription)]
            assert len(parked) + again == 1 or outcome is ACK

    async def test_a_settlement_that_is_never_confirmed_is_asked_for_again(self, server: ServiceBusServer) -> None:
        """Over the management node, while the lock holds."""
        async with opened(server, lease=4.0) as shop:
            receiver = await shop.receiver()
            await shop.publish(1)
            delivery = await take(receiver)
            server.inject(Point.DISPOSITION, Action.HANG_BEFORE, entity=shop.queue)
            assert not await receiver.settle([(delivery, ACK)])
            assert server.counts(shop.queue).locked == 0

    async def test_a_retry_that_is_sent_and_not_completed_comes_once_more_and_no_oftener(
        self, server: ServiceBusServer
    ) -> None:
        """As after a crash between the two: the copy is known by its id when the failure is recorded again."""
        async with opened(server, lease=1.0) as shop:
            receiver = await shop.receiver()
            await shop.publish(1)
            delivery = await take(receiver)
            server.inject(Point.DISPOSITION, Action.DROP_BEFORE, count=None, entity=shop.queue)
            server.inject(Point.MANAGEMENT, Action.DROP_BEFORE, count=None, skip=1, entity=shop.queue)
            with pytest.raises(BrokerUnavailableError):
                await receiver.settle([(delivery, RetryAfter(0.0))])
            server.clear_faults()
            other = await shop.other()
            counts: Counter[tuple[int, int]] = Counter()
            for _ in range(3):
                again = await take(other)
                counts[again.failures, again.deliveries] += 1
                assert not await settle(other, again, RetryAfter(0.0) if again.failures == 0 else ACK)
                if sum(counts.values()) == 2:
                    break
            assert counts == {(1, 2): 1, (0, 2): 1}
            await nothing(other, 1.3)
            assert await receiver.settle([(delivery, RetryAfter(0.0))]) == [delivery]

    async def test_a_retry_of_a_message_that_no_batch_has_room_for_is_sent_alone(
        self, server: ServiceBusServer
    ) -> None:
        """As on the Premium tier, where a message may be larger than a batch."""
        room = 4 * 1024 * 1024
        name = f"shop{uuid4().hex[:8]}"
        mail = Subscription(f"{name}.mail", (Topic(f"{name}.sold", ("sold",)),))
        server.add(
            Queue(mail.name, max_message_bytes=room),
            Queue(f"{mail.name}.retry", forward_to=mail.name, max_message_bytes=room),
            servers.Topic(mail.topics[0].name, max_message_bytes=room),
        )
        shop = Shop(server, new_broker(server, max_message_bytes=room), mail)
        await shop.broker.connect()
        await shop.broker.apply([mail], mail.topics)
        try:
            large = shop.message(1).envelope
            large = msgspec.structs.replace(large, data=msgspec.Raw(msgspec.json.encode("x" * 1_500_000)))
            await shop.broker.publish([OutgoingMessage(shop.topic.name, large)], timeout=OPEN_TIMEOUT)
            receiver = await shop.receiver()
            assert not await settle(receiver, await take(receiver), RetryAfter(0.0))
            again = await take(receiver)
            assert (number(again), again.failures, again.body) == (1, 1, bytes(large.data))
            assert not await settle(receiver, again, ACK)
        finally:
            await shop.broker.aclose()

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_locks_that_end_early_are_told_as_lost(self, server: ServiceBusServer, ordered: bool) -> None:
        async with opened(server, ordered=ordered) as shop:
            receiver = await shop.receiver()
            await shop.publish(1, key="k")
            delivery = await take(receiver)
            server.expire_locks(shop.queue)
            assert await receiver.renew([delivery]) == [delivery]
            assert await receiver.settle([(delivery, ACK)]) == [delivery]
            again = await take(receiver)
            assert (number(again), again.deliveries) == (1, 2)
            assert not await receiver.settle([(again, ACK)])

    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize("action", [Action.DROP_AFTER, Action.HANG_AFTER])
    @pytest.mark.parametrize("outcome", [ACK, MoveToDeadLetters("rejected")], ids=["ack", "park"])
    async def test_an_outcome_that_may_be_recorded_is_not_told_as_lost_before_it_is_tried_again(
        self, server: ServiceBusServer, action: Action, outcome: Outcome, ordered: bool
    ) -> None:
        """Of what is told as lost at once nothing has changed: it is delivered again."""
        async with opened(server, ordered=ordered, lease=2.0) as shop:
            receiver = await shop.receiver()
            await shop.publish(1, key="k")
            delivery = await take(receiver)
            server.inject(Point.DISPOSITION, action, entity=shop.queue)
            with pytest.raises(BrokerUnavailableError):
                await receiver.settle([(delivery, outcome)])
            assert await receiver.settle([(delivery, outcome)]) == [delivery]
            assert server.counts(shop.queue).active + server.counts(shop.queue).locked == 0

    async def test_a_release_over_a_link_that_is_gone_still_gives_back(self, server: ServiceBusServer) -> None:
        """It counts a delivery then, since only abandoning is left."""
        async with opened(server) as shop:
            receiver = await shop.receiver()
            await shop.publish(1)
            delivery = await take(receiver)
            server.reset_connections("SBReceiver")
            await nothing(receiver, 1.5)
            assert not await settle(receiver, delivery, RELEASE)
            again = await take(receiver)
            assert (again.failures, again.deliveries) == (0, 2)


class TestLinks:
    async def test_certificates_are_read_once_however_many_sessions_are_opened(
        self, server: ServiceBusServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The SDK reads them for each connection, which stops the event loop for 30 ms each time."""
        read_from: list[Any] = []
        load = ssl.SSLContext.load_verify_locations

        def loaded(context: ssl.SSLContext, *args: Any) -> None:
            read_from.append(args)
            load(context, *args)

        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", loaded)
        async with opened(server, ordered=True) as shop:
            for at in range(4):
                await shop.publish(at, key=f"{at}")
            receiver = await shop.receiver()
            assert {number(await take(receiver)) for _ in range(4)} == {0, 1, 2, 3}
        assert len(read_from) <= 1

    async def test_a_session_whose_renewal_is_slow_holds_up_no_other(
        self, server: ServiceBusServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lock that is not fresh is renewed before its messages are handed out; those of others go on meanwhile."""
        renew, go_on = ServiceBusSession.renew_lock, asyncio.Event()

        async def slowly(session: ServiceBusSession, **options: Any) -> datetime:
            if session.session_id == "slow":
                await go_on.wait()
            return await renew(session, **options)

        monkeypatch.setattr(ServiceBusSession, "renew_lock", slowly)
        monkeypatch.setattr(_held_session, "_MIN_LEASE_SHARE", 1.1)  # as if opening had taken long
        async with opened(server, ordered=True) as shop:
            await shop.publish(1, key="slow")
            receiver = await shop.receiver()
            asking = asyncio.ensure_future(receiver.receive(1))
            await asyncio.sleep(0.3)  # its message is there and waits for its lock
            await shop.publish(2, key="other")
            assert [number(one) for one in await asyncio.wait_for(asking, OPEN_TIMEOUT)] == [2]
            go_on.set()
            assert number(await take(receiver)) == 1

    async def test_settling_and_renewing_connect_again_by_themselves(self, server: ServiceBusServer) -> None:
        """Nobody need ask for messages: a handler that takes long keeps its message through an outage."""
        async with opened(server) as shop:
            receiver = await shop.receiver()
            await shop.publish(1, 2)
            first, second = await take(receiver), await take(receiver)
            server.take_offline()
            with pytest.raises(BrokerUnavailableError):
                await receiver.renew([first, second])
            server.bring_online()
            assert not await receiver.renew([first, second])
            server.take_offline()
            with pytest.raises(BrokerUnavailableError):
                await receiver.settle([(first, ACK)])
            server.bring_online()
            assert not await receiver.settle([(first, ACK), (second, ACK)])
            assert server.counts(shop.queue).locked == 0

    async def test_a_connection_that_is_not_answered_once_holds_nobody_up_for_long(
        self, server: ServiceBusServer
    ) -> None:
        async with opened(server) as shop:
            receiver = await shop.receiver()
            await shop.publish(1)
            delivery = await take(receiver)
            server.inject(Point.ATTACH, Action.HANG_BEFORE, entity=shop.queue)
            server.reset_connections("SBReceiver")
            began = asyncio.get_running_loop().time()
            with contextlib.suppress(BrokerUnavailableError):
                await receiver.renew([delivery])
            assert not await settle(receiver, delivery, ACK)
            assert asyncio.get_running_loop().time() - began < 15
            await shop.publish(2)
            assert number(await take(receiver)) == 2

    async def test_a_receiver_that_nobody_asks_keeps_nothing_however_slow_the_line(
        self, server: ServiceBusServer
    ) -> None:
        """Also while confirmations of settlements come."""
        async with Line(server, 0.03) as line, opened(server) as shop:
            slow = ServiceBusBroker(line.connection_string)
            await slow.connect()
            shop.others.append(slow)
            receiver = await slow.subscribe(shop.subscription)
            await shop.publish(0, 1, 2, 3)
            held = [await take(receiver) for _ in range(4)]

            async def acknowledge(delivery: Delivery, after: float) -> None:
                await asyncio.sleep(after)
                await receiver.settle([(delivery, ACK)])

            settling = [asyncio.ensure_future(acknowledge(one, 0.045 + 0.008 * at)) for at, one in enumerate(held)]
            await asyncio.sleep(0.115)
            await shop.publish(4)
            await asyncio.gather(*settling)
            await asyncio.sleep(0.6)
            assert (server.counts(shop.queue).active, server.counts(shop.queue).locked) == (1, 0)

    async def test_closing_what_was_asked_for_is_not_cut_short_by_stopping_again(
        self, server: ServiceBusServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However slow closing is: a link that stays open is given a session, which no receiver has then."""
        close = ServiceBusReceiver.close
        begun, ended = [0], [0]

        async def slowly(sdk: ServiceBusReceiver) -> None:
            begun[0] += 1
            await asyncio.sleep(0.5)
            await close(sdk)
            ended[0] += 1

        async with opened(server, ordered=True) as shop:
            receiver = await shop.receiver()
            monkeypatch.setattr(ServiceBusReceiver, "close", slowly)
            for seconds in (0.5, 0.02, 0.02):  # the first is long enough to ask
                await nothing(receiver, seconds)
                await asyncio.sleep(0.15)
            await asyncio.sleep(1.0)
            assert begun == ended != [0]

    async def test_connections_that_the_peer_ends_are_closed_here_too(self, server: ServiceBusServer) -> None:
        async with Line(server) as line, opened(server) as shop:
            broker = ServiceBusBroker(line.connection_string)
            await broker.connect()
            shop.others.append(broker)
            receiver = await broker.subscribe(shop.subscription)
            open_at_first = 0
            gc.disable()
            try:
                for at in range(12):
                    await broker.publish([shop.message(at)], timeout=OPEN_TIMEOUT)
                    assert not await settle(receiver, await take(receiver), ACK)
                    open_at_first = open_at_first or len(os.listdir("/proc/self/fd"))
                    line.hang_up()
                    await asyncio.sleep(0.05)
                assert len(os.listdir("/proc/self/fd")) <= open_at_first + 4
            finally:
                gc.enable()

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_another_version_of_the_sdk_is_used_by_what_is_public(
        self, server: ServiceBusServer, monkeypatch: pytest.MonkeyPatch, ordered: bool
    ) -> None:
        monkeypatch.setattr(_sdk, "KNOWN", False)
        async with opened(server, ordered=ordered) as shop:
            receiver = await shop.receiver()
            await shop.publish(*range(20), key="k")
            for at in range(20):
                delivery = await take(receiver)
                assert number(delivery) == at
                assert not await settle(receiver, delivery, ACK)
            await shop.publish(20, key="k")
            for outcome in (RELEASE, RetryAfter(0.0), MoveToDeadLetters("why")):
                assert not await settle(receiver, await take(receiver), outcome)
            (letter,) = [one async for one in dead_letters_of(shop.broker, shop.subscription)]
            assert (letter.failure.reason, letter.id.isdigit()) == ("why", True)
            assert await shop.broker.replay(shop.subscription, [letter.id])
            again = await take(receiver)
            assert (number(again), again.failures) == (20, 0)
            assert not await settle(receiver, again, ACK)

    async def test_confirmations_of_settlements_are_no_answers_to_renewals(self, server: ServiceBusServer) -> None:
        """Both have numbers that begin at 0, in one session of AMQP."""
        async with opened(server) as shop:
            receiver = await shop.receiver()
            await shop.publish(*range(60))
            held: list[Delivery] = []
            while len(held) < 60:
                held += await asyncio.wait_for(receiver.receive(60), OPEN_TIMEOUT)
            assert not await receiver.renew(held[:1])
            parking = receiver.settle([(delivery, MoveToDeadLetters("rejected")) for delivery in held[10:]])
            renewing = [receiver.renew(held[:10]) for _ in range(5)]
            assert not any(await asyncio.wait_for(asyncio.gather(parking, *renewing), OPEN_TIMEOUT))

    async def test_closing_that_is_cancelled_goes_on(self, server: ServiceBusServer) -> None:
        async with opened(server) as shop:
            before = {one.container_id for one in server.connections()}
            broker = new_broker(server)
            await broker.connect()
            await broker.subscribe(shop.subscription)
            await broker.publish([shop.message(1)], timeout=OPEN_TIMEOUT)
            closing = asyncio.ensure_future(broker.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            await broker.aclose()
            await asyncio.sleep(0.1)
            assert {one.container_id for one in server.connections()} == before

    async def test_nothing_is_opened_again_behind_closing(self, server: ServiceBusServer) -> None:
        async with opened(server) as shop:
            before = {one.container_id for one in server.connections()}
            broker = new_broker(server)
            await broker.connect()
            await broker.publish([shop.message(1)], timeout=OPEN_TIMEOUT)
            server.inject(Point.INCOMING, Action.HANG_BEFORE, entity=shop.topic.name)
            publishing = asyncio.ensure_future(broker.publish([shop.message(2)], timeout=OPEN_TIMEOUT))
            await asyncio.sleep(0.1)
            await broker.aclose()
            with pytest.raises(NotPublishedError):
                await publishing
            await asyncio.sleep(1.5)
            assert {one.container_id for one in server.connections()} == before

    async def test_who_cancels_all_tasks_gets_an_answer_from_those_that_he_starts_then(
        self, server: ServiceBusServer
    ) -> None:
        """As at the end of an event loop: nobody reads the connections any more, and nobody waits for that."""
        async with opened(server) as shop:
            receiver = await shop.receiver()
            await shop.publish(1)
            delivery = await take(receiver)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            began = asyncio.get_running_loop().time()
            assert not await settle(receiver, delivery, ACK)
            with contextlib.suppress(NotPublishedError):  # a task of the SDK was cancelled with the others
                await shop.publish(2)
            assert asyncio.get_running_loop().time() - began < OPEN_TIMEOUT / 2


class TestQueuesThatAreNotAsTheyMustBe:
    @pytest.mark.parametrize("ordered", [False, True])
    async def test_a_lock_that_is_shorter_than_the_lease_is_told_at_the_first_message(
        self, server: ServiceBusServer, ordered: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with opened(server, ordered=ordered, lease=10.0) as shop:
            wrong = new_broker(server, lease=60.0)
            await wrong.connect()
            shop.others.append(wrong)
            receiver = await wrong.subscribe(shop.subscription)
            for at in range(2):
                await shop.publish(at, key="k")
                assert not await settle(receiver, await take(receiver), ACK)
            told = [record.getMessage() for record in caplog.records if record.name == "diator"]
            assert [f"queue {shop.queue} for 10 s, and the broker has lease=60" in text for text in told] == [True]

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_sessions_that_are_there_or_not_are_told_at_the_start(
        self, server: ServiceBusServer, ordered: bool
    ) -> None:
        """Without the right to manage, too."""
        async with opened(server, ordered=ordered) as shop:
            broker = ServiceBusBroker(server.connection_string)
            await broker.connect()
            shop.others.append(broker)
            assert not await broker.apply([shop.subscription], [shop.topic])
            other = shop.subscription._replace(ordered=not ordered)
            with pytest.raises(BrokerError, match="has sessions, but" if ordered else "has no sessions") as raised:
                await broker.apply([other], [shop.topic])
            assert not isinstance(raised.value, BrokerUnavailableError)


class TestReceiving:
    @pytest.mark.parametrize("point", [Point.ACCEPT, Point.OPEN, Point.PUT_TOKEN, Point.ATTACH])
    async def test_a_link_that_breaks_while_it_opens_is_opened_again(
        self, server: ServiceBusServer, point: Point
    ) -> None:
        async with opened(server) as shop:
            await shop.publish(1)
            fault = server.inject(point, Action.DROP_BEFORE)
            assert number(await take(await shop.receiver())) == 1
            assert fault.hits == 1

    async def test_a_link_that_is_refused_says_why(self, server: ServiceBusServer) -> None:
        async with opened(server) as shop:
            server.inject(
                Point.ATTACH, Action.REFUSE, count=None, entity=shop.queue, condition="amqp:unauthorized-access"
            )
            with pytest.raises(BrokerError) as raised:
                await shop.receiver()
            assert not isinstance(raised.value, BrokerUnavailableError)
            assert shop.queue in str(raised.value)

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_a_queue_that_is_missing_is_named_with_the_remedy(
        self, server: ServiceBusServer, ordered: bool
    ) -> None:
        async with opened(server) as shop:
            missing = shop.subscription._replace(name="nowhere", ordered=ordered)
            with pytest.raises(BrokerError, match=r"'nowhere'.*diator-azure plan"):
                await (await shop.broker.subscribe(missing)).receive(1)

    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize("action", DROPS)
    async def test_a_message_that_is_cut_off_on_its_way_comes_again(
        self, server: ServiceBusServer, action: Action, ordered: bool
    ) -> None:
        async with opened(server, ordered=ordered, lease=1.0) as shop:
            receiver = await shop.receiver()
            server.inject(Point.OUTGOING, action, entity=shop.queue)
            await shop.publish(1, key="k")
            deliveries = [await take(receiver)]
            while await settle(receiver, deliveries[-1], ACK):  # its session may have ended with the connection
                deliveries.append(await take(receiver))
            assert [number(delivery) for delivery in deliveries] in ([1], [1, 1])
            await nothing(receiver, 1.2)

    async def test_a_receiver_that_nobody_asks_holds_nothing_back(self, server: ServiceBusServer) -> None:
        """A receive that was cancelled leaves no credit behind, which would draw messages from the others."""
        async with opened(server) as shop:
            first, second = await shop.receiver(), await shop.other()
            for receiver in (first, second):
                await nothing(receiver)
            await asyncio.sleep(0.3)
            began = asyncio.get_running_loop().time()
            for at in range(6):
                await shop.publish(at)
                assert not await second.settle([(await take(second), ACK)])
            assert asyncio.get_running_loop().time() - began < 1.0

    async def test_what_makes_no_sense_is_handed_out_with_its_damage(self, server: ServiceBusServer) -> None:
        """Whatever another program has sent: the engine parks it."""
        async with opened(server) as shop:
            receiver = await shop.receiver()
            string = server.connection_string
            async with (
                ServiceBusClient.from_connection_string(string) as client,
                client.get_queue_sender(shop.queue, keep_alive=0) as sender,
            ):
                await sender.send_messages(AmqpAnnotatedMessage(value_body={"a": 1}))
                late: Any = {"TYPE": "TIMESTAMP", "VALUE": 2**62}
                await sender.send_messages(ServiceBusMessage(b"{}", application_properties={"cloudEvents:time": late}))
                await sender.send_messages(AmqpAnnotatedMessage(value_body="text"))
            damages: list[str | None] = []
            for _ in range(3):
                delivery = await take(receiver)
                damages.append(delivery.read_error)
                assert not await receiver.settle([(delivery, MoveToDeadLetters("undecodable"))])
            assert [bool(read_error) for read_error in damages] == [True, True, False]
            assert "its time is 4611686018427387904 ms after 1970" in str(damages[1])


class TestWorkers:
    """The engine on this broker, while things go wrong."""

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_connections_that_break_all_the_time_lose_nothing(
        self, server: ServiceBusServer, ordered: bool
    ) -> None:
        """Each event is handled; those that are handled twice are few, and told as such."""
        name = f"busy{uuid4().hex[:8]}"

        @contract(f"{name}.sold", key="customer")
        @dataclass(frozen=True)
        class Sold(NotificationEvent):
            number: int
            customer: int

        handled: Counter[int] = Counter()
        in_order: dict[int, list[int]] = {}

        async def mail(event: Sold) -> None:
            await asyncio.sleep(0.001)
            handled[event.number] += 1
            if event.number % 10 == 3 and handled[event.number] == 1:
                raise ValueError("not now")
            in_order.setdefault(event.customer, []).append(event.number)

        app = Diator(name, broker=new_broker(server, 2.0), retry=Retry(delay=0.01, attempts=10))
        app.on_event(ordered=ordered)(mail)
        app.publishes(Sold)
        async with app, app.worker():
            for first in range(0, 100, 10):
                await _publish_in_the_end(app, [Sold(at, at % 5) for at in range(first, first + 10)])
                server.reset_connections("SBReceiver")
                await asyncio.sleep(0.1)
            await _until(lambda: len(handled) == 100 and all(handled[at] >= 2 for at in range(3, 100, 10)))
            await asyncio.sleep(0.3)
        assert sum(handled.values()) <= 300
        if ordered:
            for numbers in in_order.values():
                assert [*dict.fromkeys(numbers)] == sorted({*numbers}), "the first success of each is in order"

    async def test_shutting_down_gives_back_what_is_not_finished(self, server: ServiceBusServer) -> None:
        """At once and uncounted, not when its lock ends."""
        name = f"slow{uuid4().hex[:8]}"

        @contract(f"{name}.sold")
        @dataclass(frozen=True)
        class Sold(NotificationEvent):
            number: int

        began = asyncio.Event()

        async def mail(event: Sold) -> None:
            began.set()
            await asyncio.sleep(60)

        broker = new_broker(server)
        app = Diator(name, broker=broker)
        app.on_event(mail)
        app.publishes(Sold)
        async with app:
            async with app.worker(grace=0.1):
                await app.publish(*(Sold(at) for at in range(5)))
                await asyncio.wait_for(began.wait(), OPEN_TIMEOUT)
            (queue,) = {one.name for one in broker.entities(_subscriptions(app)) if one.kind == "queue"} - {
                f"{name}.mail.retry"
            }
            counts = server.counts(queue)
            assert (counts.active, counts.locked) == (5, 0)
            assert {one.delivery_count for one in server.messages(queue)} == {0}

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_whatever_a_handler_raises_runs_once_and_is_one_dead_letter(
        self, server: ServiceBusServer, ordered: bool
    ) -> None:
        name = f"odd{uuid4().hex[:8]}"

        @contract(f"{name}.sold", key="customer" if ordered else None)
        @dataclass(frozen=True)
        class Sold(NotificationEvent):
            number: int
            customer: str = "a"

        runs: list[int] = []
        app = Diator(name, broker=new_broker(server), retry=Retry(attempts=1))

        async def mail(event: Sold) -> None:
            runs.append(event.number)
            if event.number < len(ODD_ERRORS):
                raise ODD_ERRORS[event.number]

        app.on_event(mail)
        app.publishes(Sold)
        count = len(ODD_ERRORS) + 3
        async with app, app.worker() as worker:
            await app.publish(*(Sold(number) for number in range(count)))
            await _until(lambda: len(runs) >= count)
            await asyncio.sleep(1)
            assert sorted(runs) == [*range(count)]
            assert worker.is_ready
            async with app.operations() as operations:
                letters = [letter.dead async for letter in operations.dead_letters()]
                ((_, status),) = await operations.status()
        assert len(letters) == len(ODD_ERRORS)
        assert not status.backlog
        reasons = sorted(letter.failure.reason for letter in letters)
        assert reasons == ["exhausted after 1 attempt"] * 6 + ["rejected: no such file: caf\\udce9.txt"]


HALF = "no such file: caf\udce9.txt"  # as os.fsdecode returns a name that is not UTF-8


class Wordless(Exception):
    def __str__(self) -> str:
        raise SystemExit


ODD_ERRORS: list[BaseException] = [
    ValueError(HALF),
    Reject(HALF),
    ValueError("before\0after"),
    ValueError("x" * 2_000_000),
    Wordless(),
    type("Odd", (Exception,), {"__qualname__": HALF, "__module__": HALF})(),
    GeneratorExit(),
]


def _subscriptions(app: Diator) -> Sequence[Subscription]:
    return [one.subscription for one in app.operations().configs]


async def _publish_in_the_end(app: Diator, events: Sequence[Any]) -> None:
    for _ in range(20):
        try:
            await app.publish(*events)
            return
        except PublishError as error:
            events = [*error.unsent, *error.unknown]
            await asyncio.sleep(0.05)
    raise AssertionError("it could not be published")


async def _until(check: Callable[[], bool], seconds: float = 20.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if check():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it does not come")
