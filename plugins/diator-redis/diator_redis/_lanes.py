"""The entries of one leased partition, in memory: which of them may be handed out now. Touches no network.

All entries that were read stay where they are, pending in their streams, until they are settled; who leases the
partition next finds them there. Memory only knows which of them are out.
"""

import enum
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from typing import NamedTuple

from diator.brokers.port import Delivery
from diator_redis._entries import Entry, Receipt, Stream, as_count, as_mapping, delivery_of

Key = bytes | None


class Where(enum.Enum):
    """Where an entry is."""

    WAITING = enum.auto()
    OUT = enum.auto()
    SETTLING = enum.auto()
    """On its way back: nothing later of its key goes out before it is known that it is back."""


class Item:
    """An entry of a partition."""

    __slots__ = ("deliveries", "due", "failures", "fields", "id", "key", "number", "stamp", "stored", "stream", "where")

    def __init__(self, stream: Stream, number: int, entry: Entry, *, deliveries: int, stored: int) -> None:
        self.stream = stream
        self.number = number
        """The number of its stream among those of the partition."""
        self.id, self.fields = entry
        fields = self.fields
        key: Key
        stamp: bytes | None
        if fields is not None and len(fields) == 6 and fields[2] == b"k" and fields[4] == b"n" and fields[0] == b"e":
            key, stamp = fields[3], fields[5]
        else:
            values = as_mapping(fields)
            key, stamp = values.get(b"k"), values.get(b"n")
        self.key = key
        self.stamp = _stamp(stamp, self.id)
        """Orders it among entries of other streams: the microsecond when it was published."""
        self.failures = 0
        self.deliveries = deliveries
        """How often it was handed out, without what was given back."""
        self.stored = stored
        """What Redis has as this number: one more while it is out, or soon will be."""
        self.due = 0.0
        """When it may be handed out, on the clock of the event loop."""
        self.where = Where.WAITING

    @property
    def is_prepared(self) -> bool:
        """Whether Redis knows already that it is handed out once more."""
        return self.stored == self.deliveries + 1

    def hand_out(self, partition: "Partition", expires: float) -> Delivery:
        """Give it away."""
        self.where = Where.OUT
        hold = Hold(self, partition, expires)
        fields = self.fields
        if fields is not None and len(fields) == 6 and fields[0] == b"e" and fields[2] == b"k":
            return Delivery(
                *(self.stream.topic, fields[1]), failures=self.failures, deliveries=self.deliveries + 1, receipt=hold
            )
        delivery = delivery_of(self.stream, (self.id, fields), expires)
        delivery.failures, delivery.deliveries, delivery.receipt = self.failures, self.deliveries + 1, hold
        return delivery


class Hold(Receipt):
    """What an ordered delivery is known by: its entry, and the lease of the partition under which it was handed out."""

    __slots__ = ("item", "partition")

    def __init__(self, item: Item, partition: "Partition", expires: float) -> None:
        super().__init__(item.stream, item.id, expires, item.key)
        self.item, self.partition = item, partition


class Read(NamedTuple):
    """What was read of one stream: what waits there in place, and what is new."""

    waiting: list[Item]
    new: list[Item]
    is_all: bool


class Partition:
    """A partition while this worker leases it."""

    def __init__(self, number: int, token: str, renewed: float) -> None:
        self.number, self.token = number, token
        self.renewed = renewed
        """When its lease began anew, on the clock of the event loop."""
        self.is_stale = False
        """Whether a reply was lost, so that more may be pending than is known here."""
        self.is_draining = False
        """Whether it is to be given up as soon as nothing of it is out."""
        self.holds: dict[Item, Hold] = {}
        self._unmerged: dict[int, deque[Item]] = {}
        self._unfinished: set[int] = set()
        self._inflow: deque[Item] = deque()
        self._lanes: dict[Key, list[Item]] = {}
        self._waiting: set[Key] = set()
        self._alone = 0
        self.size = 0
        """How many entries are known."""

    # In.

    def add(self, reads: dict[int, Read]) -> None:
        """Take what was read of its streams, by their numbers."""
        known = {(item.number, item.id) for item in self.items()} if self.is_stale else set[tuple[int, bytes]]()
        self.is_stale = False
        for number, read in reads.items():
            queue = self._unmerged.setdefault(number, deque())
            before = len(queue)
            queue.extend(item for item in (*read.waiting, *read.new) if (number, item.id) not in known)
            self.size += len(queue) - before
            (self._unfinished.discard if read.is_all else self._unfinished.add)(number)
        self._merge()

    def _merge(self) -> None:
        """Join the streams by when their entries were published; the order within a stream stands above that."""
        while True:
            if self.is_blocked:
                return
            queues = [queue for queue in self._unmerged.values() if queue]
            if not queues:
                return
            self._inflow.append(min(queues, key=lambda queue: queue[0].stamp).popleft())

    # Out.

    def take(self, limit: int, now: float, expires: float) -> list[Delivery]:
        """Hand out at most so many."""
        found: list[Delivery] = []
        if self.is_draining:
            return found
        prepared = [takewhile(_is_prepared, self._ready(key, now)) for key in self._waiting]
        found += [self._out(item, expires) for item in islice(_by_turns(prepared), limit)]
        while self._inflow and len(found) < limit:
            item = self._inflow.popleft()
            if item.key is None:
                self._alone += 1
                item.key = b"\xff alone %d" % self._alone  # its own lane: without a key there is no order
            lane = self._lanes.setdefault(item.key, [])
            lane.append(item)
            if item.key in self._waiting or not item.is_prepared or item.due > now:
                self._waiting.add(item.key)
            else:
                found.append(self._out(item, expires))
        return found

    def ready(self, now: float, limit: int) -> list[Item]:
        """Give at most so many that wait in their lanes and may be handed out, if only Redis knows that they are."""
        if self.is_draining:
            return []
        self._set_aside(limit)
        return list(islice(_by_turns([self._ready(key, now) for key in self._waiting]), limit))

    @property
    def fresh(self) -> int:
        """How many may be handed out that have no lane yet."""
        return 0 if self.is_draining else len(self._inflow)

    def _set_aside(self, limit: int) -> None:
        """Let what was handed out before, and waits first in line, wait in its lane."""
        for _ in range(limit):
            if not self._inflow or self._inflow[0].is_prepared:
                return
            item = self._inflow.popleft()
            if item.key is None:
                self._alone += 1
                item.key = b"\xff alone %d" % self._alone
            self._lanes.setdefault(item.key, []).append(item)
            self._waiting.add(item.key)

    def _next(self, key: Key, now: float) -> Item | None:
        return next(self._ready(key, now), None)

    def _ready(self, key: Key, now: float) -> Iterator[Item]:
        """Give those of a key that may go out now, in order: nothing may be out that comes after them."""
        lane = self._lanes.get(key, [])
        last_out = max((at for at, item in enumerate(lane) if item.where is not Where.WAITING), default=-1)
        for at, item in enumerate(lane):
            if item.where is Where.OUT:
                continue
            if at < last_out or item.where is Where.SETTLING or item.due > now:
                return
            yield item

    def _out(self, item: Item, expires: float) -> Delivery:
        delivery = item.hand_out(self, expires)
        self.holds[item] = delivery.receipt
        if item.key in self._waiting:
            self._look_at(item.key)
        return delivery

    # Back.

    def is_out(self, hold: Hold) -> bool:
        """Whether a delivery is still its receiver's."""
        return self.holds.get(hold.item) is hold

    def mark(self, items: Iterable[Item], where: Where) -> None:
        """Say where items are, while nobody knows yet what becomes of them."""
        for item in items:
            item.where = where
            self._waiting.add(item.key)

    def forget(self, item: Item) -> None:
        """Let one go that was settled for good."""
        self.holds.pop(item, None)
        self.size -= 1
        lane = self._lanes[item.key]
        lane.remove(item)
        if not lane or item.key in self._waiting:
            self._look_at(item.key)

    def put_back(self, item: Item, due: float = 0.0) -> None:
        """Let one wait in its place."""
        self.holds.pop(item, None)
        item.where, item.due = Where.WAITING, due
        self._waiting.add(item.key)

    def _look_at(self, key: Key) -> None:
        lane = self._lanes.get(key)
        if not lane:
            self._lanes.pop(key, None)
        if not lane or all(item.where is Where.OUT for item in lane):
            self._waiting.discard(key)

    # All.

    def items(self) -> Iterator[Item]:
        """Give all that is known."""
        for lane in self._lanes.values():
            yield from lane
        yield from self._inflow
        for queue in self._unmerged.values():
            yield from queue

    @property
    def has_more(self) -> bool:
        """Whether there are entries that were not read yet."""
        return bool(self._unfinished)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing more can be handed out before it is known what one of the streams has next."""
        return any(not self._unmerged.get(number) for number in self._unfinished)

    def has_ready(self, now: float) -> bool:
        """Whether something could be handed out."""
        return not self.is_draining and (
            bool(self._inflow) or any(self._next(key, now) is not None for key in self._waiting)
        )

    def stock(self) -> int:
        """Tell how many are next in line."""
        return 0 if self.is_draining else len(self._inflow)

    def next_due(self, now: float) -> float | None:
        """Tell when the next retry falls due."""
        dues = [item.due for key in self._waiting for item in self._lanes.get(key, ()) if item.due > now]
        return min(dues, default=None)


def _is_prepared(item: Item) -> bool:
    return item.is_prepared


def _by_turns(lanes: Iterable[Iterator[Item]]) -> Iterator[Item]:
    """Give one of each lane, then the second of each: a long lane must not keep the others waiting."""
    lanes = deque(lanes)
    while lanes:
        lane = lanes.popleft()
        item = next(lane, None)
        if item is not None:
            yield item
            lanes.append(lane)


def _stamp(value: bytes | None, id_: bytes) -> int:
    if value is not None and value.isdigit() and len(value) < 20:
        return int(value)
    milliseconds = id_.partition(b"-")[0]
    return (as_count(milliseconds) or int(milliseconds)) * 1000
