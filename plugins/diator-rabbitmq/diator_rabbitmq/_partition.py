"""One partition of an ordered subscription, and the notes on it.

The notes are in a queue of their own, which has one active consumer: the owner of the partition. It holds all of them
without acknowledging, so that they go to the next owner as soon as its connection ends. One of them is a token, which
says that there is an owner even where there is nothing to note.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple
from uuid import uuid4

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from diator.errors import BrokerError
from diator_rabbitmq._link import Link, Put, acknowledge, open_channel, tag_of
from diator_rabbitmq._messages import Taken

PREFETCH = 200
"""How many messages an owner reads ahead; more as soon as those all wait behind others of their keys."""
MAX_PREFETCH = 60_000
_GROWTH = 4


class Note(NamedTuple):
    """What must survive the owner of a partition, of one message."""

    failures: int
    deliveries: int
    due: float
    """Not before this time, in seconds since 1970."""


_NOTHING = Note(0, 0, 0.0)


class Lane:
    """The messages of one key, in order."""

    __slots__ = ("messages", "out")

    def __init__(self) -> None:
        self.messages: deque[Taken] = deque()
        self.out = 0


class Partition:
    """A partition, which a receiver waits for or owns."""

    def __init__(self, queue: str, notes: str, topics: dict[str, str], bell: asyncio.Event) -> None:
        self._queue_name, self._notes_name, self._topics, self._bell = queue, notes, topics, bell
        self._loading: asyncio.Future[None] | None = None
        self._ledger: AbstractChannel | None = None
        self._channel: AbstractChannel | None = None
        self._reset()

    def _reset(self) -> None:
        self.lanes: dict[object, Lane] = {}
        self.held = self.out = 0
        self.is_leaving = False
        self.failure: BrokerError | None = None
        self.prefetch = PREFETCH
        self.is_owned = self._was_left_well = self._is_over = False
        self._consumer = ""
        self._channel = self._ledger = None
        self._loading = None
        self._noted: dict[str, Note] = {}
        """What the notes say, or will say as soon as they were stored."""
        self._tags: dict[str, int] = {}
        """Of the notes that have come."""
        self._token: int | None = None
        self._marker, self._marked = "", asyncio.Event()
        self.idle_looks = 0

    # Becoming and being the owner.

    async def join(self, link: Link) -> None:
        """Wait in line for the partition. Raises `~diator.BrokerError`."""
        self._reset()
        self._link = link
        self._ledger = ledger = await open_channel(link, self._bell)
        await link.call(ledger.basic_consume(self._notes_name, self._on_note))
        await link.store([self._stored(["token", uuid4().hex])])

    @property
    def is_broken(self) -> bool:
        """Whether a channel was closed, by the server or with the connection."""
        channels = (self._ledger, *([self._channel] if self._channel else []))
        return any(one is None or one.is_closed for one in channels)

    def _stored(self, note: Sequence[Any]) -> Put:
        return Put("", self._notes_name, json.dumps(note).encode(), Basic.Properties(delivery_mode=2))

    async def _on_note(self, message: DeliveredMessage) -> None:
        if self._is_over:
            return  # it goes to the next owner
        kind, *rest = json.loads(message.body)
        tag = tag_of(message)
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        if kind == "note":
            await self._keep(tag, rest[0], Note(*rest[1:]))
        elif kind == "left":
            self._was_left_well = True
            await self._acknowledge_note(tag)
        else:
            if self._token is None:
                self._token = tag
            else:
                await self._acknowledge_note(tag)
            if rest[0] == self._marker:
                self._marked.set()

    async def _keep(self, tag: int, name: str, note: Note) -> None:
        if not self.is_owned:
            self._noted[name] = note
        outdated: int | None = tag
        if name in self._noted:  # else its message is done
            outdated, self._tags[name] = self._tags.get(name), tag  # at once: others may come during the wait below
        if outdated is not None:
            await self._acknowledge_note(outdated)

    async def _acknowledge_note(self, tag: int) -> None:
        if self._ledger is not None and not self._ledger.is_closed:
            with suppress(BrokerError):
                await acknowledge(self._link, self._ledger, tag)

    async def _load(self) -> None:
        """Read all notes, up to one that is written now, and begin to consume."""
        try:
            self._marker = uuid4().hex
            await self._link.store([self._stored(["token", self._marker])])
            await self._link.call(self._marked.wait())
            if self._is_over:
                return
            self._channel = await open_channel(self._link, self._bell)
            await self._consume()
            self.is_owned = True
        except BrokerError as error:
            self.failure = error
        finally:
            self._bell.set()  # what has come before it was owned waits for this

    async def _consume(self) -> None:
        assert self._channel is not None
        await self._link.call(self._channel.basic_qos(prefetch_count=self.prefetch))
        answer = await self._link.call(self._channel.basic_consume(self._queue_name, self._on_message))
        self._consumer = str(answer.consumer_tag)

    async def grow(self) -> None:
        """Read further ahead if all that was read waits. No other consumer can come between."""
        is_full = self.held >= self.prefetch < MAX_PREFETCH and self.is_owned and not self.is_leaving
        if is_full and self._channel is not None and self._waits(time.time()):
            await self._link.call(self._channel.basic_cancel(self._consumer))
            self.prefetch = min(self.prefetch * _GROWTH, MAX_PREFETCH)
            await self._consume()

    def _waits(self, now: float) -> bool:
        """Return whether nothing of it may be delivered now."""
        return all(lane.out or lane.messages[0].due > now for lane in self.lanes.values())

    async def leave(self) -> None:
        """Leave it to the next in line, with all that was not settled. Raises `~diator.BrokerError`."""
        if self._ledger is None:
            return  # it has never joined
        link = self._link
        self._is_over = True
        if self._loading is not None:
            self._marked.set()
            await asyncio.wait([self._loading])
        try:
            if self.is_owned and link.is_alive:
                await link.store([*self._last_notes(), self._stored(["left"])])
        finally:
            self.is_owned, self.failure = False, None
            channel, ledger, self._channel, self._ledger = self._channel, self._ledger, None, None
            if channel is not None:
                await link.close_channel(channel)  # what was read goes back before another can become the owner
            await link.close_channel(ledger)

    def _last_notes(self) -> Iterable[Put]:
        """Give the notes on what was read and is not settled, where they are not what the next owner would assume."""
        for one in chain.from_iterable(lane.messages for lane in self.lanes.values()):
            note = Note(one.failures, one.deliveries - 1, one.due)
            if note != self._noted.get(self._name(one), _NOTHING):
                yield self._note(one, note)

    # Messages.

    async def _on_message(self, message: DeliveredMessage) -> None:
        if self._channel is None:
            return  # it goes back with the channel, which is about to close
        one = Taken(message, self._link, self._topics)
        one.read_key()
        note = self._noted.get(self._name(one))
        if note:
            one.failures, one.deliveries, one.due = note.failures, note.deliveries + 1, note.due
        else:
            one.deliveries = 2 if one.is_redelivered and not self._was_left_well else 1
        lane = self.lanes.setdefault(_lane_of(one), Lane())
        lane.messages.append(one)
        self.held += 1
        self._bell.set()

    def take(self, limit: int, now: float) -> tuple[list[Taken], float]:
        """Take at most so many of the keys that are free; return when the next retry is due, too."""
        found: list[Taken] = []
        soon = float("inf")
        if not self.is_owned or self.is_leaving:
            return found, soon
        for lane in self.lanes.values():
            if lane.out:
                continue
            for one in lane.messages:
                if one.due > now:
                    soon = min(soon, one.due)
                if one.due > now or len(found) == limit:
                    break
                found.append(one)
                lane.out += 1
                self.out += 1
        return found, soon

    def put_back(self, one: Taken) -> None:
        """Keep for the next call what was not delivered."""
        self._end_of(one)

    def _end_of(self, one: Taken) -> Lane:
        lane = self.lanes[_lane_of(one)]
        lane.out -= 1
        self.out -= 1
        return lane

    def notes_for_handing_out(self, taken: Iterable[Taken]) -> list[Put]:
        """Return the notes to store first: of what was delivered before, it must be known how often."""
        return [
            self._note(one, Note(one.failures, one.deliveries, 0.0))
            for one in taken
            if one.is_redelivered or self._name(one) in self._noted
        ]

    def note_retry(self, one: Taken, failures: int, deliveries: int, delay: float) -> Put:
        """Return the note to store before a message is kept for a retry."""
        return self._note(one, Note(failures, deliveries, time.time() + delay if delay else 0.0))

    def _note(self, one: Taken, note: Note) -> Put:
        self._noted[self._name(one)] = note
        return self._stored(["note", self._name(one), *note])

    def again(self, one: Taken, failures: int, deliveries: int, delay: float) -> None:
        """Keep a message in its place, to be delivered again."""
        lane = self._end_of(one)
        again = one.again(failures, deliveries + 1, time.time() + delay if delay else 0.0)
        lane.messages[lane.messages.index(one)] = again
        one.is_settled = True

    async def remove(self, one: Taken) -> None:
        """Forget a message that is done, with its note."""
        lane = self._end_of(one)
        lane.messages.remove(one)
        if not lane.messages:
            del self.lanes[_lane_of(one)]
        self.held -= 1
        one.is_settled = True
        self._noted.pop(self._name(one), None)
        tag = self._tags.pop(self._name(one), None)
        if tag is not None:
            await self._acknowledge_note(tag)

    async def drop_stale_notes(self) -> None:
        """Forget the notes once the partition has been empty for a while: their messages are gone."""
        self.idle_looks = 0 if self.held or not self.is_owned else self.idle_looks + 1
        if self.idle_looks > 1 and self._tags:
            stale, self._tags, self._noted = self._tags, {}, {}
            for tag in stale.values():
                await self._acknowledge_note(tag)

    @staticmethod
    def _name(one: Taken) -> str:
        return one.id or blake2b(one.body, digest_size=16).hexdigest()


def _lane_of(one: Taken) -> object:
    """Return what the lane of a message is known by: its key, or the message alone."""
    return one.tag if one.key is None else one.key
