"""What the script gives that takes partitions and reads them (take.lua), which says in which order it stands."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from diator_redis._entries import Stream
from diator_redis._lanes import Item, Read


class Taken(NamedTuple):
    """A reply."""

    found: list[tuple[int, str, dict[int, Read]]]
    """Number and token of each partition that has something, and what was read of its streams."""
    now: int
    """The clock of Redis, in milliseconds since 1970."""
    share: int
    """How many partitions this worker should have."""
    next_end: float | None
    """Seconds until a lease of somebody else ends."""
    lost: list[int]
    free: list[int]


def taken(reply: Sequence[Any], streams_of: Callable[[int], Sequence[Stream]], now: float) -> Taken:
    """Read a reply. ``now`` is the clock of the event loop, by which retries fall due."""
    values = iter(reply)
    give = values.__next__
    found = [(number, give().decode(), _reads(values, streams_of(number), now)) for number in iter(give, -1)]
    clock, share, next_end = int(give()), int(give()), give()
    return Taken(found, clock, share, None if next_end < 0 else next_end / 1000, listed(values), listed(values))


def _reads(values: Iterator[Any], streams: Sequence[Stream], now: float) -> dict[int, Read]:
    give = values.__next__
    found: dict[int, Read] = {}
    for number in range(1, give() + 1):
        stream = streams[number - 1]
        is_all = bool(give())
        waiting = [_waiting(stream, number, values, now) for _ in range(give())]
        new = [Item(stream, number, (give(), listed(values)), deliveries=0, stored=1) for _ in range(give())]
        found[number] = Read(waiting, new, is_all=is_all)
    return found


def _waiting(stream: Stream, number: int, values: Iterator[Any], now: float) -> Item:
    id_, deliveries, failures, due, count = islice(values, 5)
    fields = None if count < 0 else list(islice(values, count))
    item = Item(stream, number, (id_, fields), deliveries=deliveries, stored=deliveries)
    item.failures = failures
    item.due = now + due / 1000 if due else 0.0
    return item


def listed(values: Iterator[Any]) -> list[Any]:
    """Take a list that begins with its length."""
    return list(islice(values, next(values)))
