"""The store's part in the transaction of a unit of work, and the guards against one that is not atomic."""

import re
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm import SessionTransaction as SQLAlchemyTransaction

from diator.brokers import OutgoingMessage
from diator.errors import EarlyCommitError, NotCommittedError, StoreError
from diator_sqlalchemy._checks import AUTOCOMMIT, commits_each_statement, loses_transaction
from diator_sqlalchemy._database import begin, is_temporary, roll_back_when_cancelled, store_error
from diator_sqlalchemy._outbox import Outbox
from diator_sqlalchemy._sessions import AnySession, has_pending, run
from diator_sqlalchemy._statements import family

T = TypeVar("T")

_JOINED = "diator_sqlalchemy.transaction"
"""Where a session and its connection keep the transaction that the store has joined."""
_FAILED = "diator_sqlalchemy.failed"
"""Where a connection keeps that a statement of it has failed: why its transaction is lost, or an empty text."""
_OR_A_SAVEPOINT = {"postgresql": ", or run what may fail in a savepoint: begin_nested()"}
"""What else helps; on other databases the error has undone savepoints, too."""

_ROLLBACK = re.compile(r"\s*(ROLLBACK|ABORT)\b(?!.*\bTO\b)", re.IGNORECASE)
_COMMIT = re.compile(r"\s*(COMMIT|END)\b", re.IGNORECASE)
_CHANGE = re.compile(r"\s*(INSERT|UPDATE|DELETE|MERGE|REPLACE)\b", re.IGNORECASE)
_COMMIT_ON_MYSQL = re.compile(
    r"\s*(COMMIT|BEGIN|START|(ALTER|CREATE|DROP|RENAME|TRUNCATE|GRANT|REVOKE|LOCK)\b(?!\s+TEMPORARY))\b", re.IGNORECASE
)
"""There, statements that change tables commit, too."""


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
        self.uses_connection = isinstance(session, (AsyncConnection, Connection))
        sync = session.sync_session if isinstance(session, AsyncSession) else session
        self.has_connection = own and not isinstance(getattr(sync, "bind", None), Connection)
        """Whether connections are the unit's own: a session may be given one whose commit is left to others."""
        self._is_two_phase = getattr(sync, "twophase", False)
        self._engine: Engine | None = None
        """That of the store's rows, once there are some."""
        self._changed: set[Engine] = set()
        """Those through which the unit has changed something."""
        if own:  # another sender's session may have units of its own
            _observe(session, self)

    async def record_handled(self, subscription: str, message_id: str, /) -> bool:
        """Record that a subscription handles a message."""
        await self._connected()
        try:
            return await run(
                self._session,
                lambda connection: self._on(connection).record_handled(connection, subscription, message_id),
            )
        except Exception as error:
            if not is_temporary(error):
                raise
            raise store_error(error) from error

    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        """Write rows to the outbox, and before them what the session has not written yet."""
        if not messages and not has_pending(self._session):
            return
        await self._connected()
        await run(self._session, lambda connection: self._on(connection).write(connection, messages), flush=True)

    async def cancel(self, message_id: str, /) -> bool:
        """Delete a delayed message."""
        await self._connected()
        return await run(self._session, lambda connection: self._on(connection).cancel(connection, message_id))

    def _on(self, connection: Connection) -> Outbox:
        if self.has_connection:  # for a session that had begun before
            _watch(connection, self)
        self._engine = connection.engine
        return self._outbox(connection)

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

    def on_change(self, engine: Engine) -> None:
        """Raise if the unit has changed something through an engine that the store does not use: it has two commits."""
        self._changed.add(engine)
        if len(self._changed) > 1 and self._engine is not None and not self._is_two_phase:
            others = ", ".join(sorted(repr(one) for one in self._changed if one is not self._engine))
            raise StoreError(
                f"the session changes data through {others} and writes to the store through {self._engine!r}, so they "
                f"would not commit together; change one database in each unit of work, or use two-phase commits: "
                f"Session(twophase=True)"
            )

    def on_end(self, *, committed: bool) -> None:
        """Note how the root transaction has ended."""
        if committed:
            self.committed = self.committed or (self._completed and not self._lost)
        else:
            self.rolled_back = True
            self._lost = self._lost or self._completed
            self._engine = None
            self._changed.clear()


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
        _watch(connection, transaction)


_watched = weakref.WeakSet[Engine]()


def _watch(connection: Connection, transaction: JoinedTransaction) -> None:
    """Have a transaction told what happens on a connection, however the session is committed."""
    vars(connection)[_JOINED] = transaction
    if connection.engine not in _watched:  # a listener for each connection would cost more than what a unit does
        _watched.add(connection.engine)
        event.listen(connection.engine, "commit", _on_commit)
        event.listen(connection.engine, "rollback", _on_rollback)
        event.listen(connection.engine, "savepoint", _on_savepoint)
        event.listen(connection.engine, "before_cursor_execute", _on_statement)
        event.listen(connection.engine, "handle_error", _on_error)
        roll_back_when_cancelled(connection.engine)


def _on_commit(connection: Connection) -> None:
    transaction: JoinedTransaction | None = vars(connection).get(_JOINED)
    if transaction is None:
        return
    try:
        transaction.on_commit()
        _ensure_not_lost(connection)
    except Exception:
        # SQLAlchemy would return the connection to its pool with the transaction open.
        if not connection.invalidated:
            connection.dialect.do_rollback(connection.connection)
        transaction.on_end(committed=False)
        raise
    if transaction.uses_connection:
        transaction.on_end(committed=True)


def _ensure_not_lost(connection: Connection) -> None:
    """Raise if the database has lost the transaction with a failed statement: a commit would not say so.

    PostgreSQL answers it with a rollback. MySQL and SQLite have begun another transaction.
    """
    reason: str | None = vars(connection).pop(_FAILED, None)
    if reason == "" and connection.dialect.name == "postgresql":
        reason = _abort_of(connection)
    if reason:
        raise NotCommittedError(
            f"a statement has failed, and the whole transaction with it, so nothing of it can be committed ({reason}); "
            f"let the error of the statement pass on{_OR_A_SAVEPOINT.get(connection.dialect.name, '')}"
        )


def _abort_of(connection: Connection) -> str | None:
    """Ask PostgreSQL whether it has aborted the transaction, and return what it says then."""
    try:
        connection.exec_driver_sql("SELECT 1")
    except DBAPIError as error:
        return str(error.orig)
    return None


def _on_rollback(connection: Connection) -> None:
    vars(connection).pop(_FAILED, None)
    transaction: JoinedTransaction | None = vars(connection).get(_JOINED)
    if transaction is not None and transaction.uses_connection:
        transaction.on_end(committed=False)


def _on_savepoint(connection: Connection, _name: str) -> None:
    """Begin where the driver would not: a savepoint of SQLite outside a transaction commits when it is released."""
    if _JOINED in vars(connection) and connection.dialect.name == "sqlite":
        begin(connection)


def _on_statement(connection: Connection, _cursor: object, statement: str, *_others: object) -> None:
    """Take a commit or a rollback that is written as a statement for what it is."""
    transaction: JoinedTransaction | None = vars(connection).get(_JOINED)
    if transaction is None:
        return
    commit = _COMMIT_ON_MYSQL if family(connection.dialect.name) == "mysql" else _COMMIT
    if commit.match(statement):
        transaction.on_commit()
        transaction.on_end(committed=True)
    elif _ROLLBACK.match(statement):
        transaction.on_end(committed=False)
    elif _CHANGE.match(statement):
        transaction.on_change(connection.engine)


def _on_error(context: ExceptionContext) -> None:
    if context.connection is not None:
        known, error = vars(context.connection), context.original_exception
        joined: JoinedTransaction | None = known.get(_JOINED)
        if joined is not None and context.statement is None:  # the commit itself has failed
            joined.committed = False
        if not known.get(_FAILED):
            known[_FAILED] = str(error) if loses_transaction(context.connection, error) else ""


def _after_begin(session: Session, _transaction: SQLAlchemyTransaction, connection: Connection) -> None:
    joined: JoinedTransaction | None = session.info.get(_JOINED)
    if joined is not None and joined.has_connection:
        if connection.engine not in _watched and commits_each_statement(connection.connection.driver_connection):
            raise StoreError(AUTOCOMMIT)
        _watch(connection, joined)


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
event.listen(Session, "after_begin", _after_begin)
event.listen(Session, "before_commit", _before_commit)
event.listen(Session, "after_commit", _after_commit)
event.listen(Session, "after_transaction_end", _after_transaction_end)
