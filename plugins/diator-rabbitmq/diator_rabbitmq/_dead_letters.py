"""Dead letters: a queue of them for each subscription."""

from collections.abc import Collection, Sequence
from heapq import nsmallest

from diator.brokers.port import DeadLetter, Subscription
from diator_rabbitmq._kept_queue import KeptQueue
from diator_rabbitmq._link import Link, Put
from diator_rabbitmq._messages import StoredLetter
from diator_rabbitmq._names import Names, partition_of


class DeadLetters:
    """The dead letters of a subscription."""

    def __init__(self, link: Link, names: Names, subscription: Subscription) -> None:
        self._link, self._names, self._subscription = link, names, subscription
        self._queue = KeptQueue(link, names.dead(subscription))

    async def page(self, after: str | None, limit: int) -> Sequence[DeadLetter]:
        """Return those after one, the oldest first. Raises `~diator.BrokerError`."""
        found: list[StoredLetter] = []
        async with self._queue.reading() as chunks:
            async for some in chunks:
                later = [one for one in map(StoredLetter, some) if after is None or one.id > after]
                found = nsmallest(limit, [*found, *later], key=lambda one: one.id)
        return [one.letter(self._subscription.name) for one in found]

    async def remove(self, ids: Collection[str], *, replay: bool) -> list[str]:
        """Remove dead letters, and return the ids of those that were there. Raises `~diator.BrokerError`."""
        removed: list[str] = []
        wanted = set(ids)
        async with self._queue.reading() as chunks:
            async for some in chunks:
                chosen = [one for one in map(StoredLetter, some) if one.id in wanted]
                await self._link.store([self._replayed(one) for one in chosen] if replay else [])
                for one in chosen:
                    await self._queue.remove(one.message)
                    removed.append(one.id)
                if len(removed) == len(wanted):
                    break
        return removed

    def _replayed(self, one: StoredLetter) -> Put:
        partition: int | None = None
        if self._subscription.ordered:
            key = one.key()
            partition = partition_of(one.id if key is None else key)
        return Put("", self._names.queue(self._subscription, partition), one.body, one.replayed())
