"""Events that are published later: a consumer of its own holds each back until it is due, then it is published."""

import asyncio
import logging
import time

from diator.errors import BrokerError
from diator_nats._access import HOLD_LATER, LATER, Access, nanoseconds
from diator_nats._connection import Connection
from diator_nats._names import decode
from diator_nats._pulling import Held, Puller

logger = logging.getLogger("diator.nats")

DUE = "Diator-Due"
"""The header with the time from which an event may be delivered, in seconds since 1970."""
_BATCH = 100
_EXPIRES = 5.0
_PAUSE = 1.0
_NEVER = 0.0


class Mover:
    """Publishes what is due. Each process with a receiver has one."""

    def __init__(self, access: Access) -> None:
        self._access = access
        name, _, self._part = LATER.rpartition("-")
        self._puller = Puller(access.names.events, name, HOLD_LATER, _EXPIRES, lambda: None)
        self._task = asyncio.ensure_future(self._run())

    async def aclose(self) -> None:
        """Stop. What it has taken another one moves."""
        while not self._task.done():  # until Python 3.12 asyncio may lose a cancel
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)

    async def _run(self) -> None:
        while True:
            try:
                await self._move()
            except BrokerError as error:
                logger.debug("events that are due can't be published now: %s", error)
                await asyncio.sleep(_PAUSE)

    async def _move(self) -> None:
        connection = await self._access.connection()
        await self._puller.attach(connection)
        await self._puller.ask({self._part: _BATCH}, _EXPIRES)
        await self._puller.until_arrival(_EXPIRES, lambda: False)
        now, taken = time.time(), self._puller.take()
        early = [one for one in taken if _due(one) > now]
        due = sorted((one for one in taken if _due(one) <= now), key=lambda one: (_due(one), one.sequence))
        answers = [(one.consumer, one.reply, b'-NAK {"delay": %d}' % nanoseconds(_due(one) - now)) for one in early]
        await connection.tell([*answers, *await self._publish(connection, due)])

    async def _publish(self, connection: Connection, due: list[Held]) -> list[tuple[str, str, bytes]]:
        names = self._access.names
        records = [
            (names.event(decode(one.topic), one.lane), one.body, {"Nats-Msg-Id": f"{names.events} {one.sequence}"})
            for one in due
        ]
        outcomes = await connection.put(records)
        return [
            (one.consumer, one.reply, b"+ACK")
            for one, outcome in zip(due, outcomes, strict=True)
            if isinstance(outcome, int)
        ]


def _due(one: Held) -> float:
    try:
        return float((one.headers or {}).get(DUE, _NEVER))
    except ValueError:
        return _NEVER  # published now: it is at least not lost
