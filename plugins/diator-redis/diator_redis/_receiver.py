"""One worker's access to a subscription: what is read from its streams goes into queues in Redis, one for each key.

A receiver leases queues, and with them their first entries; until then no other receiver gets anything of them. An
entry without a key, or of a subscription without order, is a queue of its own. All this is kept in Redis, and each
change of it is one script, so that a worker which dies leaves nothing behind but its leases, and one that was stopped
past its lease can change nothing when it wakes up. Waiting is done with XREAD, which takes nothing.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any

from diator.brokers import shielded
from diator.brokers.port import RELEASE, Ack, Delivery, Outcome, Release, RetryAfter, Settlement, Subscription
from diator.errors import BrokerError
from diator_redis._client import Client, as_mapping
from diator_redis._dead_letters import body_of, encode_reason, find_read_error
from diator_redis._keys import KeyNames
from diator_redis._scripts import CLAIM, SETTLE, Argument, Script

logger = logging.getLogger("diator.redis")

MAX_CLAIM = 500
"""Entries that one script delivers at most, since a script blocks the server."""
MAX_WAIT = 5.0
"""Seconds that one call waits in Redis before it is repeated."""
MIN_LEASE_SHARE = 0.7
"""The part of its lease for which an entry certainly belongs to its receiver, however the clocks differ."""

_USUAL = ([b"e"], [b"e", b"k"])
"""The names of the fields that Diator writes to the stream of a topic."""


class Receipt:
    """What identifies a delivery: its queue, its entry, and the claim by which it was delivered."""

    __slots__ = ("expires", "id", "queue", "stream", "token")

    def __init__(self, queue: bytes, stream: int, id_: bytes, token: str, expires: float) -> None:
        self.queue, self.stream, self.id, self.token = queue, stream, id_, token
        self.expires = expires
        """Until when it is certainly its receiver's, on the loop's clock."""


class StreamReceiver:
    """The receiver of one subscription. ``restore`` creates what was deleted at the server."""

    def __init__(
        self,
        client: Client,
        keys: KeyNames,
        subscription: Subscription,
        lease: float,
        restore: Callable[[], Awaitable[None]],
        closed: Callable[["StreamReceiver"], None],
    ) -> None:
        self._client, self._subscription, self._lease = client, subscription, lease
        self._restore, self._closed = restore, closed
        # So long that Redis does not pack the hashes of leases, which it would search from the beginning each time.
        self._name = secrets.token_hex(32)
        self._streams = keys.streams(subscription)
        self._stream_names = [stream.name for stream in self._streams]
        self._names = keys.queues(subscription.name)
        self._serial = self._answered = 0
        """The last claim, and the last one whose reply arrived."""
        self._positions: list[bytes] = []
        """After which ids something is new, in the stream that wakes receivers and in those of the subscription."""
        self._next_change: float | None = None
        self._loop = asyncio.get_running_loop()
        self._claiming = asyncio.Lock()
        self._waiting: asyncio.Task[None] | None = None
        self._end: asyncio.Future[None] = self._loop.create_future()

    # Receiving.

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and return at most ``limit`` of them. Raises `~diator.BrokerError`."""
        found: list[Delivery] = []
        while not self._end.done():
            try:
                has_more = await shielded(self._claim(limit, found))
            except asyncio.CancelledError:
                with contextlib.suppress(BrokerError):  # then they are redelivered after their lease
                    await shielded(self.settle([(delivery, RELEASE) for delivery in found]))
                raise
            if found:
                return () if self._end.done() else found
            if not has_more:
                await self._wait()
        return ()

    async def _claim(self, limit: int, found: list[Delivery]) -> bool:
        """Append at most this many deliveries; return whether to call again immediately."""
        async with self._claiming:
            if self._end.done():
                return False
            self._serial += 1
            token, expires = f"{self._name}#{self._serial}", self._loop.time() + self._lease * MIN_LEASE_SHARE
            try:
                reply = await self._run_claim(min(limit, MAX_CLAIM))
            except BrokerError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._restore()
                return True
            self._answered = self._serial
            wait, more, count = reply[:3]
            self._next_change, self._positions = wait / 1000 if wait >= 0 else None, reply[3 : 3 + count]
            found += self._deliveries(reply, 3 + count, token, expires)
            return bool(more)

    async def _run_claim(self, limit: int) -> Any:
        return await self._run(CLAIM, [self._serial, int(self._subscription.ordered), limit, self._answered])

    def _deliveries(self, reply: list[Any], at: int, token: str, expires: float) -> Iterator[Delivery]:
        while at < len(reply):
            number, id_, failures, deliveries, queue, count = reply[at : at + 6]
            fields, at = reply[at + 6 : at + 6 + count], at + 6 + count
            topic, error = self._streams[int(number) - 1].topic, None
            if topic is not None and fields[::2] in _USUAL:  # nearly all
                body, key = fields[1], fields[3] if count == 4 else None
            else:
                values = as_mapping(fields)
                body, key, error = body_of(values), values.get(b"k"), find_read_error(values)
                name = values.get(b"t") or self._subscription.topics[0].name.encode()
                topic = topic or name.decode(errors="backslashreplace")
            yield Delivery(
                topic,
                body,
                key=None if key is None else key.decode(errors="surrogateescape"),
                failures=failures,
                deliveries=deliveries,
                read_error=error,
                receipt=Receipt(queue, number, id_, token, expires),
            )

    async def _wait(self) -> None:
        """Wait in a task: a cancel of `receive` does not cut its connection, and the next call waits on."""
        waiting = self._waiting = self._waiting or asyncio.ensure_future(self._wait_for_change())
        await asyncio.wait({waiting, self._end}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done() and not self._end.done():
            self._waiting = None
            waiting.result()

    async def _wait_for_change(self) -> None:
        """Wait until there may be something to claim, or the time is over."""
        seconds = max(0.001, min(one for one in (MAX_WAIT, self._lease / 3, self._next_change) if one is not None))
        head = (b"XREAD", b"COUNT", 1, b"BLOCK", max(1, int(seconds * 1000)), b"STREAMS", self._names.wakeup)
        await self._client.call(*head, *self._stream_names, *self._positions, wait=seconds)

    # Settling.

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many; return those whose lease was lost. Raises `~diator.BrokerError`."""
        return await self._settle(settlements)

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew leases; return those that were lost already. Raises `~diator.BrokerError`."""
        return await self._settle([(delivery, None) for delivery in deliveries])

    async def _settle(self, settlements: Sequence[tuple[Delivery, Outcome | None]]) -> list[Delivery]:
        if not settlements:
            return []
        now, arguments = self._loop.time(), list[Argument]()
        for delivery, outcome in settlements:
            receipt: Receipt = delivery.receipt
            arguments += (receipt.queue, receipt.stream, receipt.id, receipt.token, *_as_arguments(delivery, outcome))
        lost: dict[int, Delivery] = {}
        for number in await self._run(SETTLE, arguments):
            at = abs(int(number)) - 1
            delivery, outcome = settlements[at]
            # What is settled while it is certainly this receiver's, this receiver has settled before.
            is_certain = now < delivery.receipt.expires and not self._end.done()
            if number > 0 or outcome is None or not is_certain:
                lost[at] = delivery
        for at, (delivery, outcome) in enumerate(settlements):
            if outcome is None and at not in lost:
                delivery.receipt.expires = now + self._lease * MIN_LEASE_SHARE
        return [*lost.values()]

    async def aclose(self) -> None:
        """Release what was not settled, and end. Idempotent; never raises if the broker is unavailable."""
        if self._end.done():
            return
        self._end.set_result(None)
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
        try:
            async with self._claiming:
                self._answered = -1  # so that all that was claimed is released
                await self._run_claim(0)
        except BrokerError as error:
            logger.warning("Could not release unsettled messages; they are redelivered after their lease: %s", error)
        self._closed(self)

    async def _run(self, script: Script, arguments: Sequence[Argument]) -> Any:
        group = self._subscription.name.encode("utf-8", "surrogatepass")
        head: list[Argument] = [group, self._name, int(self._lease * 1000)]
        return await self._client.run(script, [*self._names, *self._stream_names], [*head, *arguments])


def _as_arguments(delivery: Delivery, outcome: Outcome | None) -> tuple[Argument, Argument, Argument]:
    """Return an outcome as the script expects it: its name, its argument, and the topic of a dead letter."""
    if outcome is None:
        return "renew", "", ""
    if isinstance(outcome, Ack):
        return "ack", "", ""
    if isinstance(outcome, Release):
        return "release", "", ""
    if isinstance(outcome, RetryAfter):
        return "retry", max(0, int(outcome.delay * 1000)), ""
    return "dead_letter", encode_reason(outcome), delivery.topic.encode(errors="surrogatepass")
