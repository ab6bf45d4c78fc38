"""Publishing: messages go to the exchange of their topic, and count once the server has confirmed them."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timezone

from diator.brokers.envelope import OutgoingMessage
from diator.errors import BrokerError, NotPublishedError
from diator_rabbitmq._errors import is_unroutable, translate
from diator_rabbitmq._link import Link, Put
from diator_rabbitmq._messages import event_properties
from diator_rabbitmq._names import partition_of
from diator_rabbitmq._topology import LONGEST_DELAY, Topology


async def publish(link: Link, topology: Topology, messages: Sequence[OutgoingMessage], ends: float) -> None:
    """Store messages until a time of the event loop. Raises `~diator.NotPublishedError`."""
    _refuse_far(messages)
    try:
        await topology.exchanges(link, {one.topic for one in messages})
        puts = [await _put_of(link, topology, one) for one in messages]
        left = ends - asyncio.get_running_loop().time()
        outcomes = await link.put(puts, min(max(0.0, left), link.timeout))
    except BrokerError as error:
        raise NotPublishedError(messages) from error
    if link.dropped or any(outcomes):
        _read_outcomes(link, messages, outcomes)


def _read_outcomes(link: Link, messages: Sequence[OutgoingMessage], outcomes: Sequence[BaseException | None]) -> None:
    """Keep in mind which topics have no queue, and raise what else has failed."""
    failed: list[tuple[OutgoingMessage, BaseException]] = []
    for one, error in zip(messages, outcomes, strict=True):
        if is_unroutable(error):
            link.dropped.add(one.topic)
        else:
            link.dropped.discard(one.topic)
            if error is not None:
                failed.append((one, error))
    if failed:
        raise NotPublishedError((), [one for one, _ in failed]) from translate(failed[0][1])


def _refuse_far(messages: Sequence[OutgoingMessage]) -> None:
    far = [one for one in messages if _delay_of(one) > LONGEST_DELAY]
    if far:
        text = f"RabbitMQ keeps an event for up to {LONGEST_DELAY / 86_400:.0f} days; {far[0]!r} is due at {far[0].due}"
        raise NotPublishedError([one for one in messages if one not in far], (), far) from BrokerError(text)


def _delay_of(one: OutgoingMessage) -> float:
    return 0.0 if one.due is None else (one.due - datetime.now(timezone.utc)).total_seconds()


async def _put_of(link: Link, topology: Topology, one: OutgoingMessage) -> Put:
    exchange = topology.names.topic(one.topic)
    if one.due is not None:
        delay = _delay_of(one)
        if delay > 0:
            exchange = await topology.scheduled(link, one.topic, delay)
    try:
        body, partition = one.structured, partition_of(one.id if one.key is None else one.key)
    except ValueError as error:  # a text that has no UTF-8
        raise BrokerError(f"RabbitMQ: {one!r} can't be encoded: {error}") from error
    return Put(exchange, str(partition), body, event_properties())
