"""One connection to a server. When it is lost another one is made: the client's own reconnecting loses requests."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from diator.brokers import Timeouts
from diator.errors import BrokerError, BrokerUnavailableError
from diator_nats._errors import EXISTS, FAILURES, InDoubtError, RejectedError, rejected, translate

Record = tuple[str, bytes, dict[str, str] | None]
"""What is to be stored: subject, body and headers."""
_CLOSE_TIMEOUT = 1.0
_PAUSE = 0.01
_COMPLETE = ("204", "404")
"""What ends the messages that are read: there were some, or none."""
_LOST = "NATS: the connection was lost"


class _Failure(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    seq: int = 0
    error: _Failure | None = None


_answers = msgspec.json.Decoder(_Answer)


class Connection:
    """Requests, and their answers, all of which come to one inbox."""

    def __init__(self, timeout: float) -> None:
        self.client = Client()
        self.timeout = timeout
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._timeouts = Timeouts(self._loop)
        self._tokens = count()
        self._handlers: dict[str, Callable[[Msg | None], None]] = {}
        self._forbidden: BrokerError | None = None
        self._closing: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        """Done when the client has closed its socket."""
        self._was_open = False

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known."""
        return not self.lost.done() and self.client.is_connected

    # Any: options of nats-py.
    async def open(self, options: Mapping[str, Any]) -> None:
        """Connect to one of the servers. Raises `~diator.BrokerError`."""
        connect: Any = self.client.connect
        seen: list[BaseException] = []

        async def report(error: BaseException) -> None:
            seen.append(error)
            if "permissions violation" in str(error).lower():
                self._forbidden = BrokerError(f"NATS: {error}")

        # Zero would stand for endless attempts. Each server is tried twice, and left out then.
        own: dict[str, Any] = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.0}
        own |= {"error_cb": report, "closed_cb": self._end, "connect_timeout": self.timeout}
        own["skip_subject_validation"] = True  # names are encoded
        try:
            await asyncio.wait_for(connect(**options, **own), self.timeout)
            self._was_open = True
            self._inbox = self.client.new_inbox()
            await self.hear(f"{self._inbox}.*", self._answered)
        except BaseException as error:
            await self.close()  # the client leaves its socket open
            if isinstance(error, FAILURES):
                failure = translate(seen[-1] if seen else error)
                raise type(failure)(f"{failure} (at {', '.join(options['servers'])})") from error
            raise

    async def close(self) -> None:
        """Close it, and wait until its socket is closed, or for two seconds. Idempotent."""
        self.abandon()
        assert self._closing is not None
        await asyncio.wait([self._closing])

    def abandon(self) -> None:
        """Begin to close it, as the server does not answer; the next call makes another."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.client.close(), _CLOSE_TIMEOUT)
        if self._was_open:  # the client may have begun by itself, and `close` then returns before it has ended
            await asyncio.wait([self._ended], timeout=_CLOSE_TIMEOUT)
        else:  # then it does so in a task of its own, which reports nothing
            await asyncio.sleep(_PAUSE)
        self._lose()

    async def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        self._lose()

    def _lose(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
            for handle in list(self._handlers.values()):
                handle(None)

    async def _answered(self, msg: Msg) -> None:
        handle = self._handlers.get(msg.subject.rpartition(".")[2])
        if handle is not None:
            handle(msg)

    # Storing.

    async def put(self, records: Iterable[Record], timeout: float | None = None) -> list[int | BrokerError]:
        """Store records, in order; return the number in the stream of each, or why it was not stored."""
        call, tokens = _Call(self._loop), list[str]()
        for subject, body, headers in records:
            at = call.add()
            if call.failure is not None:
                call.end(at, call.failure)
                continue
            token = str(next(self._tokens))
            tokens.append(token)
            self._handlers[token] = partial(call.answered, at)
            try:
                await self.client.publish(subject, body, f"{self._inbox}.{token}", headers)
            except FAILURES as error:
                failure = translate(error)
                call.end(at, failure)
                call.failure = failure if isinstance(failure, BrokerUnavailableError) else None
        try:
            await call.wait(self._timeouts, self.timeout if timeout is None else timeout)
        finally:
            for token in tokens:
                del self._handlers[token]
        if call.left:
            self.abandon()
            doubt = self._forbidden or InDoubtError("NATS: the server did not answer in time")
            return [doubt if outcome is None else outcome for outcome in call.outcomes]
        return [outcome for outcome in call.outcomes if outcome is not None]

    async def store(self, records: Sequence[Record]) -> None:
        """Store all; what must be the first of its subject, and is not, is there. Raises `~diator.BrokerError`."""
        for outcome in await self.put(records) if records else ():
            if isinstance(outcome, BrokerError) and getattr(outcome, "code", None) != EXISTS:
                raise outcome

    # Asking.

    async def ask(self, subject: str, body: bytes, enough: Callable[[Msg], bool]) -> list[Msg]:
        """Send a request, and collect its answers until one is enough. Raises `~diator.BrokerError`."""
        token, found = str(next(self._tokens)), list[Msg]()
        call = _Call(self._loop)
        at = call.add()

        def answered(msg: Msg | None) -> None:
            if msg is not None:
                found.append(msg)
            if msg is None or enough(msg):
                call.confirmed(at, msg)

        self._handlers[token] = answered
        try:
            await self.client.publish(subject, body, f"{self._inbox}.{token}")
            await call.wait(self._timeouts, self.timeout)
        except FAILURES as error:
            raise translate(error) from error
        finally:
            del self._handlers[token]
        if call.left:
            self.abandon()
            raise self._forbidden or BrokerUnavailableError("NATS: the server did not answer in time")
        (outcome,) = call.outcomes
        if isinstance(outcome, BrokerError):
            raise BrokerUnavailableError(_LOST)
        return found

    async def api(self, subject: str, **fields: Any) -> dict[str, Any]:
        """Call the API of JetStream. Raises `RejectedError` for what the server rejects."""
        (msg,) = await self.ask(f"$JS.API.{subject}", msgspec.json.encode(fields), lambda _: True)
        if (msg.headers or {}).get("Status") == "503":
            raise BrokerUnavailableError(
                "NATS: no server answers the API of JetStream: is it enabled (nats-server -js)?"
            )
        answer: dict[str, Any] = msgspec.json.decode(msg.data)
        if "error" in answer:
            failure = msgspec.convert(answer["error"], _Failure)
            raise rejected(failure.code, failure.err_code, failure.description)
        return answer

    async def find(self, subject: str, *missing: int) -> dict[str, Any] | None:
        """Call the API for something that may be missing, which these error codes say."""
        try:
            return await self.api(subject)
        except RejectedError as error:
            if error.code in missing:
                return None
            raise

    async def read(self, stream: str, **fields: Any) -> list[Msg]:
        """Read messages of a stream by their subjects. Raises `~diator.BrokerError`."""
        found = await self.ask(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(fields), _is_status)
        status = (found[-1].headers or {}).get("Status")
        if status not in _COMPLETE:
            said = (found[-1].headers or {}).get("Description", "no server answers")
            error = BrokerUnavailableError if status == "503" else BrokerError
            raise error(f"NATS: stream {stream!r} can't be read: {said} ({status})")
        return found[:-1]

    async def say(self, subject: str, body: bytes) -> None:
        """Send a message that is not stored. Raises `~diator.BrokerError`."""
        try:
            await self.client.publish(subject, body)
        except FAILURES as error:
            raise translate(error) from error

    async def hear(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Listen to a subject. Raises `~diator.BrokerError`."""
        client: Any = self.client  # whose `subscribe` has options without types
        try:
            found: Subscription = await client.subscribe(
                subject, cb=callback, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except FAILURES as error:
            raise translate(error) from error
        return found

    async def tell(self, answers: Sequence[tuple[str, str, bytes]]) -> set[str]:
        """Acknowledge deliveries of consumers, and wait until the server has done it. Raises `~diator.BrokerError`.

        It does so in order, so the answer to the last one of each consumer is enough. Return the consumers that have
        not answered, though the server does: after a crash one may not know of its last deliveries.
        """
        last = {consumer: at for at, (consumer, _, _) in enumerate(answers)}
        call, tokens = _Call(self._loop), dict[str, str]()
        try:
            for at, (consumer, reply, what) in enumerate(answers):
                token = ""
                if last[consumer] == at:
                    token = str(next(self._tokens))
                    tokens[token] = consumer
                    self._handlers[token] = partial(call.confirmed, call.add())
                await self.client.publish(reply, what, f"{self._inbox}.{token}" if token else "")
            await call.wait(self._timeouts, self.timeout)
        except FAILURES as error:
            raise translate(error) from error
        finally:
            for token in tokens:
                self._handlers.pop(token, None)
        failure = next((outcome for outcome in call.outcomes if isinstance(outcome, BrokerError)), self._forbidden)
        if failure is not None:
            raise failure
        if call.left:
            await self.api("INFO")
        return {consumer for consumer, answer in zip(tokens.values(), call.outcomes, strict=True) if answer is None}


class _Call:
    """What became of the requests of one call."""

    __slots__ = ("done", "failure", "is_sent", "left", "outcomes")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.outcomes: list[int | BrokerError | None] = []
        self.left = 0
        self.failure: BrokerError | None = None
        self.is_sent = False
        self.done: asyncio.Future[None] = loop.create_future()

    def add(self) -> int:
        self.left += 1
        self.outcomes.append(None)
        return len(self.outcomes) - 1

    async def wait(self, timeouts: Timeouts, seconds: float) -> None:
        """Wait for the answers, of which some may have come while others were sent."""
        self.is_sent = True
        if self.left:
            timeouts.start(seconds, self._stop)
            try:
                await self.done
            finally:
                timeouts.stop(self._stop)

    def _stop(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def end(self, at: int, outcome: int | BrokerError) -> None:
        if self.outcomes[at] is None:
            self.outcomes[at] = outcome
            self.left -= 1
        if self.is_sent and not self.left and not self.done.done():
            self.done.set_result(None)

    def answered(self, at: int, msg: Msg | None) -> None:
        if msg is None:
            self.end(at, InDoubtError(_LOST))
        elif not msg.data:
            self.end(at, BrokerUnavailableError("NATS: no stream takes this subject, or JetStream has not started"))
        else:
            answer = _answers.decode(msg.data)
            failure = answer.error
            self.end(at, rejected(failure.code, failure.err_code, failure.description) if failure else answer.seq)

    def confirmed(self, at: int, msg: Msg | None) -> None:
        self.end(at, InDoubtError(_LOST) if msg is None else 1)


def _is_status(msg: Msg) -> bool:
    return "Status" in (msg.headers or {})
