"""The connection of this process to a broker object, which all apps that were given the object share."""

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from typing import TypeVar
from weakref import WeakValueDictionary

from diator._shielding import Shield
from diator._timeouts import Timeouts
from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import Broker
from diator.delivery.error_texts import described, no_answer
from diator.delivery.subscription_creation import Creation, wait_until_created
from diator.errors import BrokerError, BrokerUnavailableError, DiatorError, MessageTooLargeError, NotPublishedError

T = TypeVar("T")

_MARGIN = 0.2
"""Seconds beyond the timeout, in which a broker that keeps the time itself says what became of each message."""


class Connection:
    """Opens a broker for its first user and closes it after its last, so that no plugin has to count its users."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.creations: set[Creation] = set()
        """The subscriptions that workers over this broker are creating here: what is published to them waits."""
        self._users = 0
        self._is_away = False
        """Whether the last attempt to connect found the broker unavailable; the next user tries again."""
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, timeout: float) -> None:
        """Open the broker for one more user, within this many seconds.

        Raises `BrokerUnavailableError` if the broker is unavailable; the user counts then too, and must call `close`.
        Raises `BrokerError` for what is permanent, which leaves nothing open.
        """
        self._ensure_loop()
        async with self._lock:
            if not self._users or self._is_away:
                await self._connect(timeout)
            self._users += 1

    async def close(self) -> None:
        """Close the broker, if this was its last user."""
        async with self._lock:
            self._users -= 1
            if not self._users:
                await self.broker.aclose()

    def _ensure_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._users:
            text = f"{type(self.broker).__name__} is open in another event loop; close it there first, that is, end the"
            raise BrokerError(f"{text} app that uses it, or give each app its own broker object")
        self._loop, self._lock, self._timeouts = loop, asyncio.Lock(), Timeouts(loop)

    async def _connect(self, timeout: float) -> None:
        try:
            await asyncio.wait_for(translated(self.broker, "connect", self.broker.connect()), timeout)
            self._is_away = False
        except BrokerUnavailableError:
            self._users, self._is_away = self._users + 1, True
            raise
        except asyncio.TimeoutError as error:
            self._users, self._is_away = self._users + 1, True
            raise no_answer(self.broker, timeout) from error
        except BaseException:
            if not self._users:
                await self.broker.aclose()
            raise

    async def publish(self, messages: Sequence[OutgoingMessage], timeout: float, *, wait_for_room: bool) -> None:
        """Store messages. Raises `NotPublishedError`, at most shortly after ``timeout`` seconds.

        A cancel does not interrupt it: it is raised when the messages are stored, or have failed.
        """
        shield = Shield()
        await shield.close(self._publish(messages, timeout, wait_for_room))
        if shield.cancelled is not None:
            raise shield.cancelled

    async def _publish(self, messages: Sequence[OutgoingMessage], timeout: float, wait_for_room: bool) -> None:
        if self.creations:
            timeout = await wait_until_created(self.creations, messages, timeout)
        self._ensure_sizes(messages)
        limit = _TimeLimit(self._timeouts, self._loop, timeout + _MARGIN)
        try:
            await self.broker.publish(messages, timeout=timeout, wait_for_room=wait_for_room)
        except NotPublishedError:
            raise
        except asyncio.CancelledError as error:
            if not limit.is_over:
                raise
            cause = no_answer(self.broker, timeout)
            cause.__cause__ = error
            raise NotPublishedError((), messages) from cause
        except Exception as error:
            # A fault of the plugin. How far it came is not known.
            raise NotPublishedError((), messages) from error
        finally:
            limit.end()

    def _ensure_sizes(self, messages: Sequence[OutgoingMessage]) -> None:
        """Reject messages that are too large, such as stored ones: the broker may have had a higher limit then."""
        limit = self.broker.max_message_bytes
        if limit is None:
            return
        rejected = [message for message in messages if len(message.structured) > limit]
        if rejected:
            first = rejected[0]
            cause = MessageTooLargeError(f"{first.envelope.type} {first.id}", len(first.structured), limit)
            raise NotPublishedError([one for one in messages if one not in rejected], rejected=rejected) from cause


class _TimeLimit:
    """Cancels the current task after this many seconds."""

    __slots__ = ("_task", "_timeouts", "is_over")

    def __init__(self, timeouts: Timeouts, loop: asyncio.AbstractEventLoop | None, seconds: float) -> None:
        self.is_over = False
        self._timeouts, self._task = timeouts, asyncio.current_task(loop)
        timeouts.start(seconds, self._cancel)

    def _cancel(self) -> None:
        assert self._task is not None, "what is awaited runs in a task"
        self.is_over = True
        self._task.cancel()

    def end(self) -> None:
        """Stop counting."""
        self._timeouts.stop(self._cancel)
        if self.is_over and self._task is not None and sys.version_info >= (3, 11):
            self._task.uncancel()  # it may be used further


async def translated(plugin: object, call: str, answer: Awaitable[T], kind: type[DiatorError] = BrokerError) -> T:
    """Await a call of a plugin. An error that is not of Diator is a fault of the plugin, and is permanent."""
    try:
        return await answer
    except DiatorError:
        raise
    except Exception as error:
        text = f"{type(plugin).__name__}.{call} failed unexpectedly: {described(error)}; this is a bug in the plugin"
        raise kind(text) from error


_connections: "WeakValueDictionary[int, Connection]" = WeakValueDictionary()
"""By the identity of the broker, which each connection keeps alive: several apps of a process may share one."""


def connection_of(broker: Broker) -> Connection:
    """Return the one connection of this process to a broker object."""
    found = _connections.get(id(broker))
    if found is None:
        found = _connections[id(broker)] = Connection(broker)
    return found
