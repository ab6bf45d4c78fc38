"""The store's part in the transaction of a unit of work, and the guards against one that is not atomic."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm import SessionTransaction as SQLAlchemyTransaction

from diator.brokers import OutgoingMessage
from diator.errors import EarlyCommitError, StoreError
from diator_sqlalchemy._database import is_temporary, store_error
from diator_sqlalchemy._outbox import Outbox
from diator_sqlalchemy._sessions import AnySession, run

T = TypeVar("T")

_JOINED = "diator_sqlalchemy.transaction"
"""Where a session keeps the transaction that the store has joined."""


class JoinedTransaction:
    """What a store does in one unit's transaction."""

    def __init__(
        self,
        session: AnySession,
        outbox: Callable[[Connection], Outbox],
        connected: Callable[[], Awaitable[object]],
        *,
        own: bool,
    ) -> None:
        self._session, self._outbox, self._connected, self._own = session, outbox, connected, own
        self._may_commit = not own
        self._completed = self._lost = False
        self.committed = self.rolled_back = self.ended = False
        if own:  # another sender's session may have units of its own
            _observe(session, self)

    async def record_handled(self, subscription: str, message_id: str, /) -> bool:
        """Record that a subscription handles a message."""
        await self._connected()
        try:
            return await run(
                self._session,
                lambda connection: self._outbox(connection).record_handled(connection, subscription, message_id),
            )
        except Exception as error:
            if not is_temporary(error):
                raise
            raise store_error(error) from error

    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        """Write rows to the outbox."""
        await self._connected()
        await run(self._session, lambda connection: self._outbox(connection).write(connection, messages), flush=True)

    async def cancel(self, message_id: str, /) -> bool:
        """Delete a delayed message."""
        await self._connected()
        return await run(self._session, lambda connection: self._outbox(connection).cancel(connection, message_id))

    def complete(self) -> None:
        """Allow the commit."""
        self._may_commit = self._completed = True

    def fail(self) -> None:
        """Forbid the commit."""
        self._may_commit = not self._own

    def on_commit(self) -> None:
        """Raise if the root transaction must not be committed now."""
        if not self._may_commit:
            raise EarlyCommitError(
                "the session is committed before the events of its unit of work are written, or after the unit has "
                "failed; nothing was committed; leave the commit to the code that provides the session, and use "
                "begin_nested() to roll back a part of the work"
            )

    def on_end(self, *, committed: bool) -> None:
        """Note how the root transaction has ended."""
        if committed:
            self.committed = self.committed or (self._completed and not self._lost)
        else:
            self.rolled_back = True
            self._lost = self._lost or self._completed


def _observe(session: AnySession, transaction: JoinedTransaction) -> None:
    """Have a transaction told of commits and rollbacks."""
    if isinstance(session, AsyncSession):
        session.sync_session.info[_JOINED] = transaction
    elif isinstance(session, Session):
        session.info[_JOINED] = transaction
    else:
        connection = session.sync_connection if isinstance(session, AsyncConnection) else session
        if connection is None:
            raise StoreError("the connection that the container gave is not open; open it: async with engine.connect()")

        def on_commit(connection: Connection) -> None:
            try:
                transaction.on_commit()
            except EarlyCommitError:
                # SQLAlchemy would return the connection to its pool with the transaction open.
                connection.dialect.do_rollback(connection.connection)
                transaction.on_end(committed=False)
                raise
            transaction.on_end(committed=True)

        event.listen(connection, "commit", on_commit)

        def on_rollback(_connection: Connection) -> None:
            transaction.on_end(committed=False)

        event.listen(connection, "rollback", on_rollback)


def _before_commit(session: Session) -> None:
    joined = session.info.get(_JOINED)
    if joined is not None and not session.in_nested_transaction():
        joined.on_commit()


def _after_commit(session: Session) -> None:
    joined = session.info.get(_JOINED)
    if joined is not None and not session.in_nested_transaction():
        joined.on_end(committed=True)
        joined.ended = True


def _after_transaction_end(session: Session, ended: SQLAlchemyTransaction) -> None:
    """Note a rollback; a session that is closed in the middle says nothing else."""
    joined = session.info.get(_JOINED)
    if joined is not None and ended.parent is None:
        if not joined.ended:
            joined.on_end(committed=False)
        joined.ended = False


# For all sessions of the process, once: a listener for each unit would cost more than what the unit does.
event.listen(Session, "before_commit", _before_commit)
event.listen(Session, "after_commit", _after_commit)
event.listen(Session, "after_transaction_end", _after_transaction_end)
