"""Messages lost on their way, with a connection or a server: what waits for them must go on, in order."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from diator.brokers.port import Subscription
from diator_nats._access import Access
from diator_nats._connection import Connection
from diator_nats._notes import Notes
from diator_nats._ownership import Ownership, Partition
from diator_nats._pulling import Held, Puller
from diator_nats._subscriptions import ACK_WAIT, Subscriptions

_OVERDUE = 1.0
"""Seconds beyond a lease after which the server is asked about messages that were not redelivered."""
_MARGIN = 50
"""Deliveries beyond twice of what is pending after which a message that was not among them is not pending."""


class Losses:
    """Detects and repairs lost messages of one receiver of an ordered subscription."""

    def __init__(
        self, access: Access, subscriptions: Subscriptions, subscription: Subscription, lease: float, owner: Ownership
    ) -> None:
        self._access, self._subscriptions, self._subscription = access, subscriptions, subscription
        self._lease, self._owner = lease, owner
        self._notes, self._loop = Notes(access.names, subscription.name), asyncio.get_running_loop()
        self._overdue: dict[str, tuple[Connection, Partition, int, float]] = {}
        """Since which delivery, and when, messages of a partition are overdue."""

    async def stall(self, puller: Puller) -> None:
        """Ask nothing of a partition until what was on its way when the connection was lost has expired."""
        now = self._loop.time()
        for part in [part for part, at in puller.doubtful.items() if now >= at]:
            found = await self._subscriptions.info(self._subscription, part)
            has_lost = (
                found and found["num_ack_pending"] and found["delivered"]["consumer_seq"] > puller.counts.get(part, 0)
            )
            if has_lost and part in self._owner.mine:
                self._owner.mine[part].stalled_until = now + self._lease * ACK_WAIT
            puller.doubtful.pop(part, None)

    async def forget_settled(self, found: Sequence[Held]) -> None:
        """Ask the server about messages that are overdue: it may have settled them, and its answer was lost."""
        now = self._loop.time()
        before = now - self._lease - _OVERDUE
        for part in {one.part for one in found if (lane := self._owner.lane_of(one)) and lane.is_overdue(before)}:
            info, owned = await self._subscriptions.info(self._subscription, part), self._owner.own(part)
            if info is None or owned is None:
                continue
            for lane in owned.lanes.values():
                lane.forget(info["ack_floor"]["stream_seq"])
            if any(lane.is_overdue(before) for lane in owned.lanes.values()):
                await self._forget_unknown(part, owned, info, now)

    async def _forget_unknown(self, part: str, owned: Partition, info: Mapping[str, Any], now: float) -> None:
        """Forget overdue messages which the server does not redeliver, though it has redelivered everything it has.

        Its floor does not tell: it stands still while an earlier message is in flight.
        """
        connection, count = await self._access.connection(), info["delivered"]["consumer_seq"]
        watched = self._overdue.get(part)
        if watched is None or watched[0] is not connection or watched[1] is not owned:
            self._overdue[part] = connection, owned, count, now
            return
        _, _, first, since = watched
        if now - since > self._lease * ACK_WAIT + _OVERDUE and count - first > 2 * info["num_ack_pending"] + _MARGIN:
            del self._overdue[part]
            before = since - self._lease - _OVERDUE
            gone = [sequence for lane in owned.lanes.values() for sequence in lane.forget_overdue(before)]
            await connection.store([self._notes.forget(part, sequence) for sequence in gone])
