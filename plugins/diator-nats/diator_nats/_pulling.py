"""Requests for messages. None is taken back: what the server sends just then would be lost until its lease ends."""

import asyncio
from collections.abc import Callable, Collection, Mapping

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from diator.errors import BrokerError, BrokerUnavailableError
from diator_nats._access import nanoseconds
from diator_nats._connection import Connection
from diator_nats._errors import FAILURES, translate

_ENDED = ("404", "408")
"""What the server says when a request ends: it has nothing, or the time is over."""


class Held:
    """One delivery. It is valid until a time on this process's own clock, which began before that of the server."""

    __slots__ = (
        *(
            "body",
            "consumer",
            "count",
            "deliveries",
            "failures",
            "headers",
            "is_lost",
            "is_noted",
            "is_replay",
            "is_settled",
        ),
        *("lane", "number", "part", "reply", "sequence", "topic", "until"),
    )

    def __init__(self, msg: Msg, until: float) -> None:
        words = msg.reply.split(".")
        _, self.consumer, number, sequence, count, *_ = words[2:] if len(words) == 9 else words[4:]
        self.reply, self.until = msg.reply, until
        self.part, self.count = self.consumer.rpartition("-")[2], int(count)
        self.number, self.sequence = int(number), int(sequence)
        _, kind, *_, self.topic, part, key = msg.subject.split(".")
        self.lane, self.is_replay = f"{part}.{key}", kind == "rp"
        self.body, self.headers, self.failures, self.deliveries = msg.data, msg.headers, 0, self.number
        self.is_noted = self.is_settled = self.is_lost = False


class Puller:
    """Asks consumers for messages, each for some at a time, and keeps what comes until it is taken.

    ``longest`` is the number of seconds that a request waits at most. ``on_arrival`` is called after each message.
    """

    def __init__(self, stream: str, name: str, ack_wait: float, longest: float, on_arrival: Callable[[], None]) -> None:
        self._longest = longest
        self._stream, self._name, self._ack_wait, self._on_arrival = stream, name, ack_wait, on_arrival
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._subscription: Subscription | None = None
        self._ring: asyncio.Future[None] = self._loop.create_future()
        self._failure: BrokerError | None = None
        self.is_rejected = False
        """Whether the server has rejected a request, maybe as there is no such consumer."""
        self._ends = 0.0
        self.open: dict[str, tuple[int, float]] = {}
        """For each consumer how many may still come for its request, and when that was sent."""
        self.came: list[Held] = []
        self.counts: dict[str, int] = {}
        """The consumer's own count of the delivery that came last."""
        self.doubtful: dict[str, float] = {}
        """Consumers whose request was lost with a connection, maybe with messages, and from when that can be known."""

    async def attach(self, connection: Connection) -> None:
        """Use this connection, and no longer another one. Raises `~diator.BrokerError`."""
        if self._connection is not connection:
            at = self._loop.time() + self._longest
            self.doubtful.update(dict.fromkeys(self.open, at))
            self.open, self._failure = {}, None
            self._inbox = connection.client.new_inbox()
            self._subscription = await connection.hear(f"{self._inbox}.*", self._arrived)
            self._connection = connection
            connection.lost.add_done_callback(self.wake)

    async def ask(self, wanted: Mapping[str, int], expires: float) -> None:
        """Ask these consumers for what they have; if that is nothing, until the first message or for some seconds.

        Raises `~diator.BrokerError`.
        """
        connection = self._connection
        assert connection is not None
        now = self._loop.time()
        body = {"no_wait": True, **({"expires": nanoseconds(expires)} if expires else {})}
        new = {part: batch for part, batch in wanted.items() if part not in self.open}
        self.open.update((part, (batch, now)) for part, batch in new.items())
        self._ends = now + expires + connection.timeout
        for part, batch in new.items():
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}-{part}"
            request = msgspec.json.encode({"batch": batch, **body})
            try:
                await connection.client.publish(subject, request, f"{self._inbox}.{part}")
            except FAILURES as error:
                raise translate(error) from error

    async def until_ended(self, parts: Collection[str] | None = None) -> None:
        """Wait until the requests of these consumers, or all, have ended. Raises `~diator.BrokerError`."""
        while self.open if parts is None else any(part in self.open for part in parts):
            await self._wait()

    async def until_arrival(self, expires: float, is_over: Callable[[], bool]) -> bool:
        """Wait for messages, and until the requests that brought them have ended; return whether any came."""
        end = self._loop.time() + expires
        while not is_over():
            parts = {one.part for one in self.came}
            if (parts and parts.isdisjoint(self.open)) or not self.open or (self._loop.time() >= end and not parts):
                break
            await self._wait(end if not parts else None)
        return bool(self.came)

    async def _wait(self, end: float | None = None) -> None:
        seconds = (self._ends if end is None else end) - self._loop.time()
        if seconds > 0:  # `asyncio.wait_for` may swallow a cancel
            await asyncio.wait([self._ring], timeout=seconds)
        failure, self._failure = self._failure, None
        connection = self._connection
        if failure is None and connection is not None and self._loop.time() >= self._ends and self.open:
            connection.abandon()
            failure = BrokerUnavailableError("NATS: the server does not answer a request for messages")
        if connection is not None and connection.lost.done():
            failure = failure or BrokerUnavailableError("NATS: the connection was lost")
        if failure is not None:
            raise failure

    def wake(self, *_: object) -> None:
        """Have those who wait look again."""
        ring, self._ring = self._ring, self._loop.create_future()
        ring.set_result(None)

    async def detach(self) -> None:
        """Listen no more, once all requests have ended."""
        if self._subscription is not None and self._connection is not None and self._connection.is_open:
            await self._subscription.unsubscribe()

    async def _arrived(self, msg: Msg) -> None:
        if msg.reply.startswith("$JS.ACK"):
            one = Held(msg, 0.0)
            left, asked = self.open.pop(one.part, (1, self._loop.time()))
            one.until = asked + self._ack_wait
            self.came.append(one)
            self.counts[one.part] = one.count
            if left > 1:
                self.open[one.part] = left - 1, asked
            self._on_arrival()
        else:
            self.open.pop(msg.subject.rpartition(".")[2], None)
            status = (msg.headers or {}).get("Status", "503")
            if status not in _ENDED:
                self.is_rejected = True
                said = (msg.headers or {}).get("Description", "no server takes the request")
                self._failure = BrokerUnavailableError(f"NATS: {said} ({status})")
        self.wake()

    def take(self) -> list[Held]:
        """Return what came, in the order of the stream."""
        found, self.came = sorted(self.came, key=lambda one: one.sequence), []
        return found
