"""What a subscription is at the server: queues, bindings to the exchanges of topics, and a record in the register.

AMQP can't list queues, so there is a queue of records, the register. A record is stored before its subscription is
created, so that a subscription left incomplete by a crash can be found and removed. It is stored again at the end,
because another process may have removed the subscription, and its first record, in between.
"""

import asyncio
import json
from collections.abc import Collection
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from diator.brokers.port import Subscription, SubscriptionStatus, Topic
from diator.errors import BrokerError
from diator_rabbitmq._kept_queue import KeptQueue
from diator_rabbitmq._link import Link, Put
from diator_rabbitmq._names import PARTITIONS
from diator_rabbitmq._topology import QUORUM, REGISTERED, STEPS, Topology, has_exchange, size_of, sizes_of

_ONE_CONSUMER = {**QUORUM, "x-single-active-consumer": True}


class Subscriptions:
    """Creates, inspects and removes subscriptions."""

    def __init__(self, link: Link, topology: Topology) -> None:
        self._link, self._topology, self._names = link, topology, topology.names
        self._register = KeptQueue(link, self._names.register)

    # Creating.

    async def create(self, one: Subscription) -> list[str]:
        """Create what is missing of a subscription, and name it. Raises `~diator.BrokerError`."""
        await self._ensure_same_order(one)
        missing = await self._missing(one)
        if missing:
            async with self._link.own_channel() as channel:
                await self._declare_queue(channel, self._names.register, QUORUM)
                await self._record(one)
                await self._declare(channel, one)
            await asyncio.sleep(REGISTERED)
        return missing

    async def _ensure_same_order(self, one: Subscription) -> None:
        other = next(iter(self._names.queues(one._replace(ordered=not one.ordered))))
        if await size_of(self._link, other) is not None:
            now, before = ("ordered", "without order") if one.ordered else ("without order", "ordered")
            text = f"subscription {one.name!r} is {now}, and exists {before}, as queue {other!r}"
            fix = f"give it another name, and once the old one is empty: diator subscriptions remove APP {one.name}"
            raise BrokerError(f"{text}: {fix}")

    async def _record(self, one: Subscription) -> None:
        record = json.dumps([one.name, one.ordered, [topic.name for topic in one.topics]]).encode()
        await self._link.store([Put("", self._names.register, record, Basic.Properties(delivery_mode=2))])

    async def _declare(self, channel: AbstractChannel, one: Subscription) -> None:
        for name, arguments in self._queues(one).items():
            await self._declare_queue(channel, name, arguments)
        for topic in one.topics:
            exchange = await self._topology.exchange(self._link, channel, topic.name)
            for queue, key in self._names.queues(one).items():
                await self._link.call(channel.queue_bind(queue, exchange, key))
        await self._record(one)
        # A server can't be asked for a binding: an exchange says that there is one, and a record. It comes last.
        for name in self._bindings(one):
            await self._link.call(channel.exchange_declare(name, durable=True))

    async def _declare_queue(self, channel: AbstractChannel, name: str, arguments: dict[str, Any]) -> None:
        await self._link.call(channel.queue_declare(name, durable=True, arguments=arguments))

    def _queues(self, one: Subscription) -> dict[str, dict[str, Any]]:
        """Return the queues of a subscription, with how each is declared."""
        how = _ONE_CONSUMER if one.ordered else QUORUM
        found = {self._names.dead(one): QUORUM, **dict.fromkeys(self._names.queues(one), how)}
        if one.ordered:
            found |= {self._names.notes(one, number): _ONE_CONSUMER for number in range(PARTITIONS)}
            found[self._names.members(one)] = QUORUM
        return found

    def _bindings(self, one: Subscription) -> dict[str, str]:
        """Return the exchanges that say that a subscription is bound to a topic, with how users see each."""
        return {self._names.binding(one, topic.name): f"{one.name} <- {topic.name}" for topic in one.topics}

    # Inspecting.

    async def _missing(self, one: Subscription) -> list[str]:
        queues, bindings = self._queues(one), self._bindings(one)
        sizes = await sizes_of(self._link, queues)
        bound = [await has_exchange(self._link, name) for name in bindings]
        missing = [name for name, size in zip(queues, sizes, strict=True) if size is None]
        return missing + [shown for shown, is_bound in zip(bindings.values(), bound, strict=True) if not is_bound]

    async def status(self, one: Subscription) -> SubscriptionStatus:
        """Tell how a subscription stands; the server counts only what no receiver has, so the backlog is not known."""
        missing = await self._missing(one)
        dead = await size_of(self._link, self._names.dead(one))
        exists = not {*self._names.queues(one)} & {*missing}
        return SubscriptionStatus(one.name, exists, None, dead, tuple(missing))

    # Those that no handler may need any longer.

    async def others(self, used: Collection[str]) -> list[SubscriptionStatus]:
        """Return the status of every subscription in the register except these. Raises `~diator.BrokerError`."""
        found: dict[str, Subscription] = {}
        async with self._register.reading() as chunks:
            async for some in chunks:
                for one in map(_recorded, some):
                    topics = (*found[one.name].topics, *one.topics) if one.name in found else one.topics
                    found[one.name] = one._replace(topics=tuple(dict.fromkeys(topics)))
        return [await self._status_of_other(one) for one in found.values() if one.name not in used]

    async def _status_of_other(self, one: Subscription) -> SubscriptionStatus:
        """Tell how a subscription stands which has no receivers, so that the server counts all of its messages."""
        queues = [*self._names.queues(one), *self._waiting(one)]
        sizes = await sizes_of(self._link, queues)
        return (await self.status(one))._replace(backlog=sum(filter(None, sizes)))

    def _waiting(self, one: Subscription) -> list[str]:
        return [self._names.waiting(one, step) for step in STEPS]

    async def remove(self, name: str) -> bool:
        """Delete a subscription with all that it holds; return false if the register has none of this name."""
        async with self._register.reading() as chunks:
            records = [one async for some in chunks for one in some if _recorded(one).name == name]
            for subscription in set(map(_recorded, records)):
                await self._delete(subscription)
            for one in records:  # only now: what is not yet deleted must still be found
                await self._register.remove(one)
        return bool(records)

    async def _delete(self, one: Subscription) -> None:
        """Delete all that a subscription may have; what is not there is no error."""
        async with self._link.own_channel() as channel:
            for exchange in self._bindings(one):
                await self._link.call(channel.exchange_delete(exchange))
            for queue in (*self._waiting(one), *self._queues(one)):
                await self._link.call(channel.queue_delete(queue))


def _recorded(message: DeliveredMessage) -> Subscription:
    name, ordered, topics = json.loads(message.body)
    return Subscription(name, tuple(Topic(topic, ()) for topic in topics), ordered)
