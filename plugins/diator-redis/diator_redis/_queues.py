"""The queues of an ordered subscription, in Redis: entries that are read from its streams go into a queue for each key.

A worker leases keys, and with them the first entries of their queues. While a lease lasts, no other worker gets entries
of that key. An entry without a key has a queue of its own. All state is in Redis, and one script makes each change:
a worker that dies leaves only its leases behind, and one that was stopped past its lease can no longer settle anything.
Workers wait with XREAD, which delivers nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from diator.brokers.port import Ack, Delivery, Outcome, Release, RetryAfter, Subscription
from diator_redis._client import Client, as_mapping
from diator_redis._dead_letters import encode_reason
from diator_redis._entries import body_of, find_read_error
from diator_redis._keys import KeyNames
from diator_redis._scripts import CLAIM, RELEASE_ALL, SETTLE, Argument, Script

MAX_BATCH = 500
"""Entries that one script delivers at most, since a script blocks the server."""
MAX_UNANSWERED = 20
"""Lost replies whose leases the next call ends; the leases of earlier ones expire."""

_USUAL = ([b"e"], [b"e", b"k"])
"""Names of the fields that Diator writes to the stream of a topic."""


class OrderedReceipt(NamedTuple):
    """What identifies a delivery: its entry, its queue, and the lease under which it was delivered."""

    number: int
    id: bytes
    queue: bytes
    token: str


class Queues:
    """One worker's access to the queues of a subscription."""

    def __init__(self, client: Client, keys: KeyNames, subscription: Subscription, consumer: str, lease: float) -> None:
        self._client, self._subscription = client, subscription
        self._consumer, self._lease = consumer, lease
        self._streams = keys.streams(subscription)
        self._stream_names = [stream.name for stream in self._streams]
        self._names = keys.queues(subscription.name)
        self._serial = 0
        self._unanswered: list[str] = []
        """Tokens whose reply was lost: they may have leases."""
        self._positions: list[bytes] = []
        """The last known ids in the wakeup stream and in the streams: entries behind them are new."""
        self._next_change: float | None = None
        self._topics: list[Argument] = [topic.name.encode() for topic in subscription.topics]

    # Reading.

    async def claim(self, limit: int, found: list[Delivery]) -> bool:
        """Append at most this many deliveries; return whether to call again immediately."""
        self._serial += 1
        token = f"{self._consumer}#{self._serial}"
        unanswered, self._unanswered = self._unanswered, [*self._unanswered[-MAX_UNANSWERED:], token]
        reply = await self._run(CLAIM, [token, min(limit, MAX_BATCH), *unanswered])
        self._unanswered = []
        wait, more, count = reply[:3]
        self._next_change = wait / 1000 if wait >= 0 else None
        self._positions = reply[3 : 3 + count]
        found += self._deliveries(reply, 3 + count, token)
        return bool(more)

    def _deliveries(self, reply: list[Any], at: int, token: str) -> Iterator[Delivery]:
        while at < len(reply):
            number, id_, failures, deliveries, queue, count = reply[at : at + 6]
            begin, at = at + 6, at + 6 + max(count, 0)
            topic, fields = self._streams[int(number) - 1].topic, reply[begin:at]
            read_error: str | None = None
            if topic is not None and fields[::2] in _USUAL:  # the usual case
                body, key = fields[1], fields[3] if count == 4 else None
            else:
                values = as_mapping(fields)
                body, key, read_error = body_of(values), values.get(b"k"), find_read_error(values, topic is None)
                topic = self._topic_of(values) if topic is None else topic
            yield Delivery(
                topic,
                body,
                key=None if key is None else key.decode(errors="surrogateescape"),
                failures=failures,
                deliveries=deliveries + 1,
                read_error=read_error,
                receipt=OrderedReceipt(number, id_, queue, token),
            )

    def _topic_of(self, fields: dict[bytes, bytes]) -> str:
        return fields[b"t"].decode(errors="backslashreplace") if b"t" in fields else self._subscription.topics[0].name

    async def wait(self, max_wait: float) -> None:
        """Wait until there may be new messages, at most this many seconds."""
        seconds = max(0.001, min(one for one in (max_wait, self._lease / 3, self._next_change) if one is not None))
        names = [self._names[8], *self._stream_names]
        head = (b"XREAD", b"COUNT", 1, b"BLOCK", max(1, int(seconds * 1000)), b"STREAMS")
        await self._client.call(*head, *names, *self._positions, wait=seconds)

    # Settling.

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome | None]]) -> list[Delivery]:
        """Settle, or renew the leases of those without an outcome; return the deliveries whose lease was lost."""
        arguments = [*self._topics]
        for delivery, outcome in settlements:
            receipt: OrderedReceipt = delivery.receipt
            arguments += (receipt.queue, receipt.number, receipt.id, receipt.token, *as_arguments(outcome))
        lost: Sequence[int] = await self._run(SETTLE, arguments) if settlements else ()
        return [settlements[number][0] for number in lost]

    async def release_all(self) -> None:
        """Release all entries of this worker; their delivery does not count."""
        await self._run(RELEASE_ALL, [])

    async def _run(self, script: Script, arguments: Sequence[Argument]) -> Any:
        names = [*self._names, *self._stream_names]
        group = self._subscription.name.encode("utf-8", "surrogatepass")
        head: list[Argument] = [group, self._consumer, int(self._lease * 1000)]
        return await self._client.run(script, names, [*head, *arguments])


def as_arguments(outcome: Outcome | None) -> tuple[Argument, Argument]:
    """Return an outcome as the scripts expect it: its name and its argument."""
    if outcome is None:
        return "renew", ""
    if isinstance(outcome, Ack):
        return "ack", ""
    if isinstance(outcome, Release):
        return "release", ""
    if isinstance(outcome, RetryAfter):
        return "retry", max(0, int(outcome.delay * 1000))
    return "dead_letter", encode_reason(outcome)
