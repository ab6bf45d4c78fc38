"""The port of stores: the outbox and the inbox of an app, in the database that its handlers write to.

*In a unit of work.* The core resolves ``session`` in the unit's own scope and passes it to ``join`` before inner
middlewares and the handler run. What the `Transaction` does happens through that session, so it commits or rolls back
with the handler's data. ``record_handled`` comes first, ``write`` last; then ``complete`` allows the commit, which the
store never makes itself. Until ``complete``, and again after ``fail``, a commit raises `~diator.EarlyCommitError` in
the line that commits, where the unit owns its session. Savepoints pass, and so does a rollback: what follows it in the
same unit is part of the same `Transaction`. One whose unit has ended is never used again.

*Partitions.* Each message belongs to the partition that ``partition_of`` computes from its key, or from its id if it
has none. A row becomes visible when its transaction commits. ``read`` returns rows of a partition in the order in which
they were written; a unit that writes after another has committed has its rows behind that one's. A row with a ``due``
time is not read before ``promote`` has found it due, and then takes its place behind the rows that are there.

*Leases.* Relays in any number of processes share the partitions. ``lease`` gives a relay its share, renews what it
holds, and returns all that it holds, each with a token that grows whenever the partition changes hands. ``read``,
``promote``, ``delete`` and ``reject`` act only on partitions whose token is still current, and do nothing for others:
a relay that was frozen changes nothing of its successor's. Relays of the lowest ``rank`` share the partitions; others
hold what is left if those are gone. The database's clock counts, not the relays'.

*Wake-ups* (optional for a store: `WakesRelays`) only save time. The relay polls as well, and nothing depends on them.

*Errors* of the driver become `~diator.StoreError`, raised ``from`` the original, or `~diator.StoreUnavailableError` if
trying again later can help. In a unit of work the driver's own errors reach the caller unchanged, as those of the
handler's statements do; but where ``record_handled`` can't connect or run now, it raises
`~diator.StoreUnavailableError`, and the message waits. Any other error counts as a fault of the store, and as
permanent.
"""

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import ValidationIssue
from diator.containers.port import Container


def partition_of(message: "OutgoingMessage | StoredMessage | OutboxDeadLetter", partitions: int) -> int:
    """Return the partition of a message, from 0: by its key, or by its id if it has none. The same in each process."""
    return zlib.crc32((message.key or message.id).encode()) % partitions


class StoredMessage(NamedTuple):
    """A row of the outbox, as a relay reads it."""

    partition: int
    position: int
    """Identifies the row, and orders the rows of one partition."""
    id: str
    topic: str
    key: str | None
    body: bytes
    """The bytes to publish; see `OutgoingMessage.from_bytes`."""
    written_at: datetime
    """When it was written, or became due; with a time zone."""


class OutboxDeadLetter(NamedTuple):
    """A message that the broker rejects for what it is."""

    id: str
    """The id of the message."""
    topic: str
    key: str | None
    body: bytes
    error: str
    dead_lettered_at: datetime
    """With a time zone."""


class PartitionStatus(NamedTuple):
    """How one partition stands."""

    partition: int
    holder: str | None
    """The relay that holds its lease, if one does."""
    waiting: int
    """Rows that are ready."""


class StoreStatus(NamedTuple):
    """How the outbox and the inbox stand."""

    partitions: Sequence[PartitionStatus]
    oldest: float | None
    """The age of the oldest row that is ready, in seconds; ``None`` if none waits."""
    delayed: int
    """Rows that are not due yet."""
    dead_letters: int
    handled: int
    """Rows of the inbox."""


class Transaction(Protocol):
    """The part that the store plays in the transaction of one unit of work."""

    @property
    def committed(self) -> bool:
        """Whether the root transaction was committed after ``complete``, and not rolled back in between."""
        ...

    @property
    def rolled_back(self) -> bool:
        """Whether the root transaction was rolled back since ``join``, and with it what was recorded until then."""
        ...

    async def record_handled(self, subscription: str, message_id: str, /) -> bool:
        """Record that a subscription handles a message; false if that is recorded already. Waits for one under way."""
        ...

    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        """Write rows to the outbox, in order, in one statement.

        Called without any if the store ``is_blocking``: what the session itself writes at its commit, it writes here,
        where waiting for a lock does not stop the event loop.
        """
        ...

    async def cancel(self, message_id: str, /) -> bool:
        """Delete a delayed message; false if it is not there, since it was published or never existed."""
        ...

    def complete(self) -> None:
        """Allow the commit. Called also where nothing was written; not if the unit has failed."""
        ...

    def fail(self) -> None:
        """Forbid the commit: the unit has failed, maybe after ``complete``, and a middleware may go on without it."""
        ...


@runtime_checkable
class Store(Protocol):
    """A plugin: outbox and inbox in one database. The module's docstring is its contract."""

    @property
    def session(self) -> Any:
        """What handlers ask the container for, such as ``AsyncSession``: a key, as a parameter's hint is one.

        ``Any``: hints have no common type.
        """
        ...

    @property
    def partitions(self) -> int:
        """The number of partitions, fixed when the tables are created."""
        ...

    @property
    def is_blocking(self) -> bool:
        """Whether statements of the session block the thread in which they run: handlers need ``thread=True`` then."""
        ...

    def validate(self, container: Container, app: str, /) -> Iterable[ValidationIssue]:
        """Find what can't work, such as an engine in AUTOCOMMIT mode. No I/O, and no factory runs.

        The core itself reports a session that the container does not know, or does not keep for one scope.
        """
        ...

    async def open(self, app: str, container: Container, /) -> None:
        """Connect, and check the tables. Called when the app starts. Raises `~diator.StoreError`.

        Tables that are missing, of another version, of another app or with other partitions: a permanent error that
        says what to do. After `~diator.StoreUnavailableError` each later call connects by itself.
        """
        ...

    async def aclose(self) -> None:
        """Close what ``open`` has opened. Idempotent; the store can be opened again, in any event loop."""
        ...

    def join(self, session: Any, /, *, own: bool) -> Transaction:
        """Take part in the transaction of a unit of work, without I/O.

        ``own`` is false if the sender brought the session, and so makes the commit. ``Any``: see `session`.
        """
        ...

    def is_temporary(self, error: BaseException, /) -> bool:
        """Tell whether an error means that trying again later can help: the database is away, or its pool used up.

        Asked about errors of code that provides the session, which may connect at once.
        """
        ...

    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        """Write rows in a transaction of its own. Raises `~diator.StoreError`."""
        ...

    async def cancel(self, message_id: str, /) -> bool:
        """Delete a delayed message in a transaction of its own, as `Transaction.cancel` does."""
        ...

    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        """Take or renew a relay's share; return the token of each partition that it holds now."""
        ...

    async def release(self, relay: str, /) -> None:
        """Give up what a relay holds."""
        ...

    async def promote(self, held: Mapping[int, int], /) -> float | None:
        """Make rows that are due ready, in the order of their times; return the seconds until the next one is."""
        ...

    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        """Return at most ``limit`` rows that are ready, those of each partition in order.

        ``without`` are topics and keys that wait for a row before them; their rows are left out, and take no room. A
        key of ``None`` stands for the rows of the topic that have no key.
        """
        ...

    async def delete(self, held: Mapping[int, int], rows: Sequence[StoredMessage], /) -> int:
        """Delete rows that were published; return how many were still there, in partitions that are still held."""
        ...

    async def reject(self, held: Mapping[int, int], row: StoredMessage, error: str, /) -> None:
        """Make a row a dead letter, in one transaction."""
        ...

    async def expire(self, limit: int, /) -> int:
        """Delete at most ``limit`` rows of the inbox that are older than is kept; return how many there were."""
        ...


@runtime_checkable
class WakesRelays(Protocol):
    """Optional: a store whose database can notify other processes."""

    async def notify(self, partitions: Collection[int], /) -> None:
        """Tell all relays that these partitions have new rows."""
        ...

    def listen(self, heard: Callable[[Collection[int]], None], /) -> AbstractAsyncContextManager[object]:
        """Call ``heard`` with the partitions of each notification while the block is open.

        The block ends with `~diator.StoreUnavailableError` if the connection is lost.
        """
        ...


@runtime_checkable
class OperatesStore(Protocol):
    """Optional: what ``diator outbox`` shows and does. Each method raises `~diator.StoreError`."""

    async def create(self, app: str, container: Container, /) -> Sequence[str]:
        """Create or upgrade the tables, and name what was created, such as ``table diator_outbox``.

        Nothing that exists is changed twice. Called instead of ``open``, which rejects tables that are missing;
        ``aclose`` follows.
        """
        ...

    async def status(self) -> StoreStatus:
        """Tell how the outbox and the inbox stand."""
        ...

    async def dead_letters(self, *, after: str | None = None, limit: int = 100) -> Sequence[OutboxDeadLetter]:
        """Return the next page, oldest first; ``after`` is the id of the last one of the page before."""
        ...

    async def replay(self, ids: Collection[str], /) -> Collection[str]:
        """Put dead letters back, behind all that is there; return the ids of those that were still there."""
        ...

    async def purge(self, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters; return the ids of those that were still there."""
        ...
