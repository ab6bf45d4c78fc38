"""Cases: from validating to closing, and what is there in between."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from diator.brokers.port import ACK, Broker, BrokerCapability, Delivery, KeepsDeadLetters, MoveToDeadLetters, Receiver
from diator.brokers.refusals import refusals_of
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError
from diator_conformance.brokers.bench import BrokerSuiteBase, case
from diator_conformance.brokers.messages import message, messages, number, numbers

SAFE = BrokerCapability.ACKNOWLEDGED
_MANY = 60


class Life(BrokerSuiteBase):
    """The lifecycle, from validation to closing."""

    _kept: Broker | None = None

    @case()
    async def test_has_the_shape_of_the_port(self) -> None:
        """Every method and attribute exists, and capabilities match."""
        broker = self.new_broker()
        ports = [Broker] + [KeepsDeadLetters] * (BrokerCapability.DEAD_LETTERS in broker.capabilities)
        members = {name: member for port in ports for name, member in vars(port).items() if not name.startswith("_")}
        missing = [
            name
            for name, member in members.items()
            if not hasattr(broker, name) or (callable(member) and not callable(getattr(broker, name)))
        ]
        assert not missing, f"{type(broker).__name__} lacks {', '.join(missing)}"
        if BrokerCapability.ACKNOWLEDGED not in broker.capabilities:
            assert not broker.capabilities & ~BrokerCapability.CONSUMER_GROUPS, (
                "nothing but GROUPS goes without ACKNOWLEDGED"
            )
        assert broker.lease is None or broker.lease > 0
        assert broker.system, "telemetry needs the name of the broker, such as 'redis'"
        assert broker.address is None or "@" not in broker.address, "an address in telemetry has no user or password"
        assert broker.max_message_bytes is None or broker.max_message_bytes > 0

    @case()
    async def test_what_is_declared_is_not_refused(self) -> None:
        """Validation needs no connection."""
        broker = self.new_broker()
        plain = self.subscription()
        ordered = self.subscription("in_order", ordered=BrokerCapability.ORDER_BY_KEY in broker.capabilities)
        unsafe = self.subscription("unsafe")._replace(at_most_once=True)
        assert not list(refusals_of(broker, [plain, ordered, unsafe], self.topics_of(plain)))

    @case()
    async def test_apply_creates_what_is_missing_and_names_it(self) -> None:
        """The status lists it beforehand, and creates nothing itself."""
        subscription = self.subscription()
        broker = await self.connected()
        topics = self.topics_of(subscription)
        (before,) = await broker.status([subscription])
        assert (before.name, before.exists) == (subscription.name, False)
        assert list(await broker.status([subscription])) == [before]
        created = await broker.apply([subscription], topics)
        assert {*before.missing} <= {*created}
        (after,) = await broker.status([subscription])
        assert (after.name, after.exists, after.missing) == (subscription.name, True, ())
        if before.missing:
            assert any(subscription.name in name for name in created)

    @case(SAFE)
    async def test_apply_changes_nothing_that_is_there(self) -> None:
        """The second time it creates nothing, and messages remain."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        await broker.publish(messages(3, self.topic()), timeout=self.receive_timeout)
        other = await self.connected()
        assert not await other.apply([subscription], self.topics_of(subscription))
        assert sorted(numbers(await self.take(await broker.subscribe(subscription), 3))) == [0, 1, 2]

    @case()
    async def test_apply_adds_a_topic_to_a_subscription(self) -> None:
        """As when a handler handles one more event; running publishers already reach it."""
        broker = await self.given(self.subscription("handler", "orders"))
        grown = self.subscription("handler", "orders", "bills")
        await (await self.connected()).apply([grown], self.topics_of(grown))
        receiver = await self.receiver(grown)
        sent = [message(1, self.topic("orders")), message(2, self.topic("bills"))]
        await broker.publish(sent, timeout=self.receive_timeout)
        assert sorted(numbers(await self.take(receiver, 2))) == [1, 2]

    @case(SAFE | BrokerCapability.DEAD_LETTERS)
    async def test_status_counts_what_waits_and_what_is_dead(self) -> None:
        """If the broker knows it; a delivered message counts until it is settled."""
        subscription, other = self.subscription(), self.subscription("other")
        broker = await self.given(subscription, other)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(5, self.topic()), timeout=self.receive_timeout)
        first, second, *_ = await self.take(receiver, 3)
        await receiver.settle([(first, MoveToDeadLetters("rejected"))])
        await self.ack(receiver, [second])
        mine, others = await broker.status([subscription, other])
        assert (mine.name, others.name) == (subscription.name, other.name)
        assert (mine.backlog, others.backlog) in {(3, 5), (None, None)}
        assert (mine.dead_letters, others.dead_letters) in {(1, 0), (None, None)}

    @case(SAFE)
    async def test_status_tells_the_age_of_the_oldest_message(self) -> None:
        """If the broker knows it; of unsettled messages, delivered or not."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        (status,) = await broker.status([subscription])
        assert status.oldest is None, "it has no message"
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        await asyncio.sleep(2 * self.quiet_period)
        await broker.publish(messages(1, self.topic(), first=1), timeout=self.receive_timeout)
        first, second = await self.take(receiver, 2)
        (status,) = await broker.status([subscription])
        if status.oldest is None:
            return
        assert 2 * self.quiet_period <= status.oldest + 0.01 < 2 * self.quiet_period + self.receive_timeout
        await self.ack(receiver, [first])
        (status,) = await broker.status([subscription])
        assert status.oldest is not None
        assert status.oldest < self.receive_timeout
        await self.ack(receiver, [second])
        assert (await broker.status([subscription]))[0].oldest is None

    @case(SAFE)
    async def test_connect_and_aclose_may_be_repeated(self) -> None:
        """A repeated call changes nothing, so one close is enough. Then the broker can be opened again."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.connect()
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        await self.ack(receiver, await self.take(receiver, 1))
        await broker.aclose()
        assert not await asyncio.wait_for(receiver.receive(1), self.receive_timeout), (
            "one aclose has not closed the broker"
        )
        await broker.aclose()
        await broker.connect()
        await broker.publish(messages(1, self.topic(), first=1), timeout=self.receive_timeout)
        assert numbers(await self.take(await broker.subscribe(subscription), 1)) == [1]

    @case(SAFE, loops=2)
    async def test_a_broker_may_be_used_in_one_event_loop_after_another(self) -> None:
        """The same object, closed in the first and connected in the second; its unsettled messages are redelivered."""
        subscription = self.subscription()
        if self._kept is None:
            self._kept = await self.given(subscription)
            receiver = await self._kept.subscribe(subscription)
            await self._kept.publish(messages(3, self.topic()), timeout=self.receive_timeout)
            await self.ack(receiver, [await self.take_one(receiver)])
            await self.take_one(receiver)
            return
        broker = await self.connected(self._kept)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(1, self.topic(), first=3), timeout=self.receive_timeout)
        again = await self.take(receiver, 3)
        assert len({*numbers(again)} & {0, 1, 2}) == 2
        assert 3 in numbers(again)

    @case(SAFE)
    async def test_goes_on_by_itself_after_its_connections_broke(self) -> None:
        """Receiving, publishing and settling work again, without a call to reconnect."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        for at in range(3):
            await self._publish_in_the_end(broker, at)
            await self.cut_connections()
            await self._ack_in_the_end(receiver, at)
            await self.cut_connections()

    @case(SAFE)
    async def test_a_receive_that_waits_survives_a_broken_connection(self) -> None:
        """It keeps waiting, or raises that the broker is unavailable; the next one works."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        waiting = asyncio.ensure_future(self._ack_in_the_end(receiver, 7))
        await asyncio.sleep(self.quiet_period)
        await self.cut_connections()
        await asyncio.gather(waiting, self._publish_in_the_end(broker, 7))

    @case(SAFE)
    async def test_publishing_and_settling_many_end_soon_when_connections_break(self) -> None:
        """They succeed, or raise that the broker is unavailable; none of them waits forever for an answer."""
        if not self.can_cut:
            await self.cut_connections()  # which skips, before anything has begun
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        stored: set[int] = set()
        seen: set[int] = set()
        for lap, pause in enumerate((0.001, 0.005)):
            several = messages(_MANY, self.topic(), first=lap * _MANY)
            error = await self._cut_during(broker.publish(several, timeout=self.receive_timeout), pause)
            doubtful = (*error.unsent, *error.unknown) if isinstance(error, NotPublishedError) else ()
            stored |= {int(one.id) for one in several} - {int(one.id) for one in doubtful}
            await self._publish_in_the_end(broker, -1 - lap)  # there is something to take in any case
            taken = await self._take_in_the_end(receiver, _MANY)
            seen |= {*numbers(taken)}
            await self._cut_during(receiver.settle([(one, ACK) for one in taken]), pause)
        while not stored <= seen:
            taken = await self._take_in_the_end(receiver, _MANY)
            seen |= {*numbers(taken)}
            with suppress(BrokerUnavailableError):
                await receiver.settle([(one, ACK) for one in taken])

    async def _cut_during(self, call: Coroutine[Any, Any, Any], pause: float) -> BrokerError | None:
        """Break the connections a moment after a call began; return how it failed."""
        task = asyncio.ensure_future(call)
        await asyncio.sleep(pause)
        await self.cut_connections()
        await asyncio.wait([task], timeout=max(self.receive_timeout, self.case_timeout / 4))  # SDKs may try again
        assert task.done(), "a call has not ended after the connections broke"
        error = task.exception()
        if error is None:
            return None
        assert isinstance(error, BrokerUnavailableError) or isinstance(error.__cause__, BrokerUnavailableError), error
        assert isinstance(error, BrokerError)
        return error

    async def _take_in_the_end(self, receiver: Receiver, limit: int) -> Sequence[Delivery]:
        """Receive as the engine does: again, while the broker says that it is away."""
        end = asyncio.get_running_loop().time() + self.receive_timeout
        while True:
            try:
                return await self.receive(receiver, limit)
            except BrokerUnavailableError:
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.05)

    @case(SAFE)
    async def test_an_outage_is_told_as_one_that_may_pass(self) -> None:
        """The same objects work again when the broker recovers."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        async with self._outage():
            with pytest.raises(NotPublishedError) as raised:
                await broker.publish(messages(1, self.topic()), timeout=self.quiet_period)
            assert isinstance(raised.value.__cause__, BrokerUnavailableError)
            with pytest.raises(BrokerUnavailableError):
                await asyncio.wait_for(receiver.receive(1), self.receive_timeout)
            with pytest.raises(BrokerUnavailableError):
                await self.connected()
        if BrokerCapability.DURABLE not in broker.capabilities:
            await broker.apply([subscription], self.topics_of(subscription))
        await self._publish_in_the_end(broker, 1)
        await self._ack_in_the_end(receiver, 1)

    @case(SAFE)
    async def test_one_that_was_away_at_the_start_is_found_without_another_connect(self) -> None:
        """The app has started without it, and closes it at the end."""
        subscription = self.subscription()
        await self.given(subscription)
        broker = self.new_broker()
        async with self._outage():
            with pytest.raises(BrokerUnavailableError):
                await self.connected(broker)
        if BrokerCapability.DURABLE not in broker.capabilities:
            await broker.apply([subscription], self.topics_of(subscription))
        await self._publish_in_the_end(broker, 1)
        await self._ack_in_the_end(await broker.subscribe(subscription), 1)

    @case(SAFE)
    async def test_closing_is_quiet_while_the_broker_is_away(self) -> None:
        """The caller could do nothing about it."""
        subscription = self.subscription()
        await self.given(subscription)
        broker = self.new_broker()
        await broker.connect()
        receiver = await broker.subscribe(subscription)
        async with self._outage():
            await receiver.aclose()
            await broker.aclose()

    @case(SAFE | BrokerCapability.DURABLE)
    async def test_what_is_stored_survives(self) -> None:
        """The end of the server, and of every process that used it."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        await broker.publish(messages(3, self.topic()), timeout=self.receive_timeout)
        async with self._outage():
            pass
        receiver = await self.receiver(subscription)
        assert sorted(numbers(await self.take(receiver, 3))) == [0, 1, 2]

    @asynccontextmanager
    async def _outage(self) -> AsyncGenerator[None, None]:
        await self.stop_server()
        try:
            yield
        finally:
            await self.start_server()

    async def _publish_in_the_end(self, broker: Broker, number_: int) -> None:
        """Publish as the engine does: again, while the broker says that it is away."""
        end = asyncio.get_running_loop().time() + self.receive_timeout
        while True:
            try:
                return await broker.publish(messages(1, self.topic(), first=number_), timeout=self.receive_timeout)
            except NotPublishedError as error:
                if not isinstance(error.__cause__, BrokerUnavailableError) or asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.05)

    async def _ack_in_the_end(self, receiver: Receiver, number_: int) -> None:
        """Receive and acknowledge, as the engine does, until the message with this number was had."""
        end = asyncio.get_running_loop().time() + self.receive_timeout
        while True:
            try:
                delivery = await self.take_one(receiver)
                await receiver.settle([(delivery, ACK)])
                if number(delivery) == number_:
                    return
            except BrokerUnavailableError:
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.05)
