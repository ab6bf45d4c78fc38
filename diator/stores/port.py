"""The port of stores: the outbox and the inbox of an app, in the database of its handlers.

*In a unit of work.* The core resolves ``session`` in the unit's own scope and passes it to ``join`` before inner
middlewares and the handler run. The `Transaction` works through that session, so it commits or rolls back with the
handler's data. ``record_handled`` comes first, ``write`` last; then ``complete`` allows the commit, which the store
itself never makes. Before ``complete``, and after ``fail``, a commit raises `~diator.EarlyCommitError` at the line that
commits, if the unit owns its session. Savepoints are allowed, and so is a rollback: later statements of the same unit
belong to the same `Transaction`. A `Transaction` is never used after its unit has ended.

*Partitions.* Each message belongs to the partition that ``partition_of`` computes from its key, or from its id if it
has none. A row becomes visible when its transaction commits. ``read`` returns rows of a partition in the order in which
they were written; if a unit writes after another has committed, its rows come later. A row with a ``due`` time is not
read until ``promote`` finds it due; it then takes its place behind the existing rows.

*Leases.* Relays in any number of processes share the partitions. ``lease`` gives a relay its share, renews its leases,
and returns all partitions that it holds, each with a token that grows whenever the partition changes its holder.
``read``, ``promote``, ``delete`` and ``reject`` only affect partitions whose token is still current, so a relay that
was frozen cannot interfere with its successor. Relays of the lowest ``rank`` share the partitions; others hold the rest
if those no longer run. The database's clock counts, not the relays'. If it goes back, leases that end later than one
that is acquired now are shortened to that: their holders may have been killed.

*Wake-ups* (optional: `WakesRelays`) only save time. The relay also polls, and nothing depends on them.

*Errors* of the driver become `~diator.StoreError`, raised ``from`` the original, or `~diator.StoreUnavailableError` if
retrying later can help. In a unit of work, the driver's own errors reach the caller unchanged, like those of the
handler's statements. The exception is ``record_handled``: if it cannot connect or run now, it raises
`~diator.StoreUnavailableError`, and the message waits. Any other error counts as a bug in the store, and as permanent.
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
    """Return the partition of a message, from 0: by its key, or its id if it has none. Equal in all processes."""
    return zlib.crc32((message.id if message.key is None else message.key).encode()) % partitions


class StoredMessage(NamedTuple):
    """A row of the outbox, as read by a relay."""

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
    """A message that the broker rejects permanently."""

    id: str
    """The id of the message."""
    topic: str
    key: str | None
    body: bytes
    error: str
    dead_lettered_at: datetime
    """With a time zone."""


class PartitionStatus(NamedTuple):
    """The status of one partition."""

    partition: int
    holder: str | None
    """The relay that holds its lease, if there is one."""
    waiting: int
    """Rows that are ready."""


class StoreStatus(NamedTuple):
    """The status of the outbox and the inbox."""

    partitions: Sequence[PartitionStatus]
    oldest: float | None
    """The age of the oldest row that is ready, in seconds; ``None`` if there is none."""
    delayed: int
    """Rows that are not due yet."""
    dead_letters: int
    handled: int
    """Rows of the inbox."""


class Transaction(Protocol):
    """The store's part in the transaction of one unit of work."""

    @property
    def committed(self) -> bool:
        """Whether the root transaction was committed after ``complete``, and not rolled back in between."""
        ...

    @property
    def rolled_back(self) -> bool:
        """Whether the root transaction was rolled back since ``join``, including earlier records."""
        ...

    async def record_handled(self, subscription: str, message_id: str, /) -> bool:
        """Record that a subscription handles a message; false if it is already recorded. Waits for a concurrent one."""
        ...

    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        """Write rows to the outbox, in order, in one statement.

        If the store ``is_blocking``, it is also called without rows: it then writes what the session would write at its
        commit, because waiting for a lock here does not block the event loop.
        """
        ...

    async def cancel(self, message_id: str, /) -> bool:
        """Delete a delayed message; false if it was already published or never existed."""
        ...

    def complete(self) -> None:
        """Allow the commit. Called even if nothing was written, but not if the unit has failed."""
        ...

    def fail(self) -> None:
        """Forbid the commit: the unit has failed, maybe after ``complete``, and a middleware may continue."""
        ...


@runtime_checkable
class Store(Protocol):
    """A plugin: outbox and inbox in one database. The docstring of the module is its contract."""

    @property
    def session(self) -> Any:
        """The type of the session that handlers use, such as ``AsyncSession``, as in a type hint.

        ``Any``: hints have no common type.
        """
        ...

    @property
    def partitions(self) -> int:
        """The number of partitions, fixed when the tables are created."""
        ...

    @property
    def is_blocking(self) -> bool:
        """Whether statements of the session block their thread: handlers then need ``thread=True``."""
        ...

    def validate(self, container: Container, app: str, /) -> Iterable[ValidationIssue]:
        """Return what cannot work, such as an engine in AUTOCOMMIT mode. No I/O, and no factory runs.

        A store that was opened for one app rejects any other: the rows of both would be in the tables of the first.
        The core itself reports a session that is not registered in the container, or is not scoped.
        """
        ...

    async def open(self, app: str, container: Container, /) -> None:
        """Connect, and check the tables. Called at startup. Raises `~diator.StoreError`.

        If tables are missing, or are of another version, of another app or with other partitions, this is a permanent
        error that says what to do. After `~diator.StoreUnavailableError`, each later call connects by itself.
        """
        ...

    async def aclose(self) -> None:
        """Close everything that ``open`` opened. Idempotent; the store can be opened again, in any event loop."""
        ...

    def join(self, session: Any, /, *, own: bool) -> Transaction:
        """Join the transaction of a unit of work, without I/O.

        ``own`` is false if the sender provided the session, and so makes the commit. ``Any``: see `session`.
        """
        ...

    def is_temporary(self, error: BaseException, /) -> bool:
        """Return whether retrying later can help: the database is unavailable, or its pool is exhausted.

        Called for errors of code that provides the session, which may connect immediately.
        """
        ...

    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        """Write rows in a separate transaction. Raises `~diator.StoreError`."""
        ...

    async def cancel(self, message_id: str, /) -> bool:
        """Delete a delayed message in a separate transaction, as `Transaction.cancel` does."""
        ...

    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        """Acquire or renew a relay's share; return the token of each partition that it now holds."""
        ...

    async def release(self, relay: str, /) -> None:
        """Release all leases of a relay."""
        ...

    async def promote(self, held: Mapping[int, int], /) -> float | None:
        """Make due rows ready, in the order of their times; return the seconds until the next one is due.

        A row that a unit of work is cancelling is left for later, and does not stop the others: a unit may take long.
        """
        ...

    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        """Return at most ``limit`` rows that are ready, those of each partition in order.

        ``without`` contains topics and keys that wait for an earlier row; their rows are omitted, and don't count. A
        key of ``None`` means the rows of the topic without a key.
        """
        ...

    async def delete(self, held: Mapping[int, int], rows: Sequence[StoredMessage], /) -> int:
        """Delete published rows; return how many still existed, in partitions that are still held."""
        ...

    async def reject(self, held: Mapping[int, int], row: StoredMessage, error: str, /) -> None:
        """Make a row a dead letter, in one transaction."""
        ...

    async def expire(self, limit: int, /) -> int:
        """Delete at most ``limit`` expired rows of the inbox; return how many there were."""
        ...


@runtime_checkable
class WakesRelays(Protocol):
    """Optional: a store whose database can notify other processes."""

    async def notify(self, partitions: Collection[int], /) -> None:
        """Notify all relays that these partitions have new rows."""
        ...

    def listen(self, heard: Callable[[Collection[int]], None], /) -> AbstractAsyncContextManager[object]:
        """Call ``heard`` with the partitions of each notification while the block is open.

        The block ends with `~diator.StoreUnavailableError` if the connection is lost.
        """
        ...


@runtime_checkable
class OperatesStore(Protocol):
    """Optional: the operations of ``diator outbox``. Each method raises `~diator.StoreError`."""

    async def create(self, app: str, container: Container, /) -> Sequence[str]:
        """Create or upgrade the tables, and return names of what was created, such as ``table diator_outbox``.

        Repeating it changes nothing. Called instead of ``open``, which rejects missing tables; ``aclose`` follows.
        """
        ...

    async def status(self) -> StoreStatus:
        """Return the status of the outbox and the inbox."""
        ...

    async def dead_letters(self, *, after: str | None = None, limit: int = 100) -> Sequence[OutboxDeadLetter]:
        """Return the next page, oldest first; ``after`` is the id of the last one on the previous page.

        Dead letters with the same id count as one.
        """
        ...

    async def replay(self, ids: Collection[str], /) -> Collection[str]:
        """Append dead letters to the outbox again; return the ids of those that still existed."""
        ...

    async def purge(self, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters; return the ids of those that still existed."""
        ...
