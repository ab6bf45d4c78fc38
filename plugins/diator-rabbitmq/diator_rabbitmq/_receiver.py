"""Receiving: what all receivers do, and those of subscriptions without order."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from aiormq.abc import AbstractChannel, DeliveredMessage

from diator.brokers import shielded
from diator.brokers.port import Ack, Delivery, MoveToDeadLetters, RetryAfter, Settlement, Subscription
from diator.errors import BrokerError
from diator_rabbitmq._link import CLOSE_TIMEOUT, Link, Put, open_channel
from diator_rabbitmq._messages import Taken
from diator_rabbitmq._topology import Topology

Connect = Callable[[], Awaitable[Link]]
_IDLE = 0.2
"""Seconds without a receive or a message, after which what was read ahead is left to other workers."""


class Change(NamedTuple):
    """What becomes of one delivery: the counts as they are to be, and where it goes."""

    taken: Taken
    failures: int
    deliveries: int
    """How often it was delivered, without those that do not count."""
    after: float | None = None
    """Seconds until it is delivered again; ``None``: it is done."""
    why: MoveToDeadLetters | None = None


class RabbitReceiver(ABC):
    """One worker's access to one subscription: deliveries belong to a channel, and are lost with it."""

    def __init__(
        self, connect: Connect, topology: Topology, subscription: Subscription, forget: Callable[[Any], None]
    ) -> None:
        self._connect, self._topology, self._subscription = connect, topology, subscription
        self._forget = forget
        self._topics = {topology.names.topic(topic.name): topic.name for topic in subscription.topics}
        self._link: Link | None = None
        self._loop = asyncio.get_running_loop()
        self._bell = asyncio.Event()
        """Something has come, is due, or was lost."""
        self._settling = asyncio.Lock()
        self._is_closed = False

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and return at most ``limit`` of them. Raises `~diator.BrokerError`."""
        while not self._is_closed:
            self._bell.clear()
            await shielded(self._prepare(limit))
            found = self._take(limit)
            if not found:
                await self._bell.wait()
                continue
            try:
                await shielded(self._note_handed_out(found))
            except BaseException:
                self._put_back(found)
                raise
            return [one.delivery() for one in found]
        return ()

    @abstractmethod
    async def _prepare(self, limit: int) -> None:
        """Be connected, and have the server send messages. Raises `~diator.BrokerError`."""

    @abstractmethod
    def _take(self, limit: int) -> list[Taken]:
        """Take what may be delivered now."""

    @abstractmethod
    async def _note_handed_out(self, found: Sequence[Taken]) -> None:
        """Do what has to be done before messages are delivered."""

    @abstractmethod
    def _put_back(self, found: Sequence[Taken]) -> None:
        """Keep for the next call what was not delivered."""

    @abstractmethod
    async def _write(self, link: Link, changes: Sequence[Change]) -> None:
        """Record what becomes of messages. Raises `~diator.BrokerError`."""

    @abstractmethod
    async def _close(self, link: Link) -> None:
        """Release all that was not settled. Raises `~diator.BrokerError`."""

    async def _opened(self) -> tuple[Link, bool]:
        """Return the connection, and whether it is a new one."""
        link = await self._connect()
        is_new = link is not self._link
        if is_new:
            self._link = link
            link.when_lost(self._bell.set)
        return link, is_new

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many, in order; return those that belong to another by now. Raises `~diator.BrokerError`."""
        return await shielded(self._settle(settlements)) if settlements else ()

    async def _settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        async with self._settling:
            changes: list[Change] = []
            lost: list[Delivery] = []
            for delivery, outcome in settlements:
                taken: Taken = delivery.receipt
                if self._holds(taken):
                    changes.append(_change_of(taken, outcome))
                elif not taken.is_settled:
                    lost.append(delivery)
            if changes and self._link:
                await self._write(self._link, changes)
            return lost

    def _holds(self, taken: Taken) -> bool:
        return taken.link is self._link and taken.is_valid

    async def _acknowledge(self, link: Link, taken: Sequence[Taken]) -> None:
        """Acknowledge messages, and wait until the server has read that. Raises `~diator.BrokerError`."""
        await link.call(_acknowledge_all(taken))
        await asyncio.gather(*map(link.synchronize, {one.channel: None for one in taken}))

    def _letters(self, changes: Iterable[Change]) -> Iterable[Put]:
        dead = self._topology.names.dead(self._subscription)
        for one in changes:
            if one.why is not None:
                yield Put("", dead, *one.taken.dead_letter(one.why))

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Return those that belong to another by now; the others last as long as the connection."""
        return [one for one in deliveries if not self._holds(one.receipt) and not one.receipt.is_settled]

    async def aclose(self) -> None:
        """Release what was not settled, and end."""
        if not self._is_closed:
            self._is_closed = True
            self._bell.set()
            self._forget(self)
            await shielded(self._end())

    async def _end(self) -> None:
        limit = self._loop.call_later(CLOSE_TIMEOUT, self._give_up)
        try:
            async with self._settling:
                if self._link is not None and self._link.is_alive:
                    with suppress(BrokerError):
                        await self._close(self._link)
        finally:
            limit.cancel()

    def _give_up(self) -> None:
        """Lose the connection, which releases everything: the server does not answer in time."""
        if self._link is not None:
            self._link.lose()


class PlainReceiver(RabbitReceiver):
    """Takes messages in any order. What is to be redelivered is stored as a copy, which has the counts.

    It reads ahead as much as it was asked for and has not settled. What it has read without handing it out goes back
    once it is not asked for more, and before a message is delivered that was delivered before: that may end the
    process, and the server would count it for all that were read.
    """

    _channel: AbstractChannel | None = None

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._queue = self._topology.names.queue(self._subscription)
        self._changing = asyncio.Lock()
        self._forget_all()
        self._is_asked = 0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Future[None] | None = None

    def _forget_all(self) -> None:
        self._read: list[Taken] = []
        self._out: set[Taken] = set()
        self._consumers: dict[str, int] = {}
        """How many messages each may have, by its tag."""
        self._loads = 0
        """How many messages of these consumers are not settled."""

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and return at most ``limit`` of them. Raises `~diator.BrokerError`."""
        self._is_asked += 1
        try:
            return await super().receive(limit)
        finally:
            self._is_asked -= 1
            self._watch_idle()

    async def _prepare(self, limit: int) -> None:
        async with self._changing:
            link, is_new = await self._opened()
            if self._is_closed:
                return
            channel = self._channel
            if is_new or channel is None or channel.is_closed:
                self._forget_all()
                self._channel = channel = await open_channel(link, self._bell)
            room = sum(self._consumers.values()) - self._loads
            if room < limit and not self._read:
                more = max(limit - room, sum(self._consumers.values()))
                await link.call(channel.basic_qos(prefetch_count=min(more, 65_535)))
                answer = await link.call(channel.basic_consume(self._queue, self._on_message))
                self._consumers[str(answer.consumer_tag)] = more

    async def _on_message(self, message: DeliveredMessage) -> None:
        if self._link is None or self._channel is None:
            return  # it goes back with the channel, which is about to close
        self._loads += 1
        self._read.append(Taken(message, self._link, self._topics))
        self._bell.set()
        if not self._is_asked:
            self._watch_idle()

    def _take(self, limit: int) -> list[Taken]:
        found, self._read = self._read[:limit], self._read[limit:]
        self._out.update(found)
        return found

    def _put_back(self, found: Sequence[Taken]) -> None:
        self._out.difference_update(found)
        self._read[:0] = [one for one in found if one.is_valid]
        self._watch_idle()

    async def _note_handed_out(self, found: Sequence[Taken]) -> None:
        if any(one.is_redelivered for one in found):
            await self._stop_reading()

    def _watch_idle(self) -> None:
        """Restart the idle time: the server counts a delivery of what comes while it cancels a consumer."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_closed:
            self._timer = self._loop.call_later(_IDLE, self._on_idle)

    def _on_idle(self) -> None:
        if not self._is_asked and not self._is_closed and self._read:
            self._task = asyncio.ensure_future(self._leave_to_others())

    async def _leave_to_others(self) -> None:
        with suppress(BrokerError):  # the next call will see it, too
            await self._stop_reading()

    async def _stop_reading(self) -> None:
        """Let the server send no more, and release what was not delivered."""
        async with self._changing:
            link, channel = self._link, self._channel
            if link is None or channel is None or not link.is_alive or channel.is_closed:
                return
            consumers, self._consumers, self._loads = self._consumers, {}, 0
            self._bell.set()  # wakes a receive that has begun meanwhile, which consumes again
            for tag in consumers:
                await link.call(channel.basic_cancel(tag))
            await asyncio.sleep(0)  # what came before the answer is handled
            self._loads = 0
            await self._give_back(link, self._read)

    async def _give_back(self, link: Link, taken: Sequence[Taken]) -> None:
        """Store copies behind all that wait: the server would count a redelivery."""
        changes = [Change(one, one.failures, one.deliveries - 1, 0.0) for one in taken if one.is_valid]
        if changes:
            await self._write(link, changes)
        for one in changes:
            one.taken.is_settled = False  # its settlement is reported as lost

    async def _write(self, link: Link, changes: Sequence[Change]) -> None:
        copies = await asyncio.gather(*(self._copy(link, one, one.after) for one in changes if one.after is not None))
        await link.store([*copies, *self._letters(changes)])
        await self._acknowledge(link, [one.taken for one in changes])
        for one in changes:
            one.taken.is_settled = True
            self._out.discard(one.taken)
            if one.taken.consumer in self._consumers:
                self._loads -= 1
        gone = {id(one.taken) for one in changes}
        self._read = [one for one in self._read if id(one) not in gone]
        self._watch_idle()

    async def _copy(self, link: Link, one: Change, delay: float) -> Put:
        queue = await self._topology.waiting(link, self._subscription, delay) if delay > 0 else self._queue
        return Put("", queue, one.taken.body, one.taken.copied(one.failures, one.deliveries))

    async def _close(self, link: Link) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._stop_reading()
            async with self._changing:
                await self._give_back(link, list(self._out))
        finally:
            channel, self._channel = self._channel, None
            if channel is not None:
                await link.close_channel(channel)


def _change_of(taken: Taken, outcome: object) -> Change:
    if isinstance(outcome, RetryAfter):
        return Change(taken, taken.failures + 1, taken.deliveries, max(0.0, outcome.delay))
    if isinstance(outcome, MoveToDeadLetters):
        return Change(taken, taken.failures, taken.deliveries, why=outcome)
    if isinstance(outcome, Ack):
        return Change(taken, taken.failures, taken.deliveries)
    return Change(taken, taken.failures, taken.deliveries - 1, 0.0)


async def _acknowledge_all(taken: Sequence[Taken]) -> None:
    for one in taken:
        await one.channel.basic_ack(one.tag, wait=False)
