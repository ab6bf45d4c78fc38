"""Notes: what the server does not know of a message that is redelivered. They are written before it is told to."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

import msgspec
from nats.aio.msg import Msg

from diator_nats._connection import Connection, Record
from diator_nats._names import Names
from diator_nats._pulling import Held

_SOME = 300
"""Notes that are read at once; the server takes 1,024 subjects."""


class _Note(msgspec.Struct, array_like=True):
    lane: str
    failures: int
    deliveries: int
    number: int
    """The server's own count of deliveries at the time."""
    due: float


class Known(NamedTuple):
    """A message that is redelivered, in the order of its key."""

    part: str
    lane: str
    sequence: int
    due: float
    """On the clock of the event loop."""


_notes = msgspec.json.Decoder(_Note)


class Notes:
    """The notes of one subscription."""

    def __init__(self, names: Names, subscription: str) -> None:
        self._names, self._name = names, subscription

    def write(self, one: Held, failures: int, deliveries: int, wait: float) -> Record:
        """Return the record of a message that is redelivered after some seconds."""
        note = _Note(one.lane, failures, deliveries, one.number, time.time() + wait)
        return self._names.note(self._name, one.part, one.sequence), msgspec.json.encode(note), None

    def forget(self, part: str, sequence: int) -> Record:
        """Return the record that removes the note of a message: it is empty, and vanishes by itself."""
        return self._names.note(self._name, part, sequence), b"", {"Nats-TTL": "1s"}

    async def read(self, connection: Connection, again: Sequence[Held]) -> list[Held]:
        """Set the counts of redelivered messages, and return those that are dead letters already."""
        dead: list[Held] = []
        for start in range(0, len(again), _SOME):
            some = {str(one.sequence): one for one in again[start : start + _SOME]}
            subjects = [self._names.note(self._name, one.part, one.sequence) for one in some.values()]
            subjects += [self._names.dead(self._name, sequence) for sequence in some]
            for msg in await connection.read(self._names.state, multi_last=subjects):
                *_, sequence = words = _subject(msg).split(".")
                one = some[sequence]
                if words[-3] == "dead":
                    dead.append(one)
                elif msg.data:
                    note = _notes.decode(msg.data)
                    one.is_noted, one.failures = True, note.failures
                    # A server that was killed may have forgotten deliveries, and then counts from one again.
                    one.deliveries = note.deliveries + max(1, one.number - note.number)
        return dead

    async def all(self, connection: Connection) -> AsyncGenerator[Known, None]:
        """Read all notes."""
        last, ahead = 0, asyncio.get_running_loop().time() - time.time()
        subject = self._names.note(self._name, "*", "*")
        while found := await connection.read(self._names.state, seq=last + 1, batch=_SOME, next_by_subj=subject):
            for msg in found:
                last = int((msg.headers or {})["Nats-Sequence"])
                *_, part, sequence = _subject(msg).split(".")
                if msg.data:
                    note = _notes.decode(msg.data)
                    yield Known(part, note.lane, int(sequence), note.due + ahead)


def _subject(msg: Msg) -> str:
    return str((msg.headers or {})["Nats-Subject"])
