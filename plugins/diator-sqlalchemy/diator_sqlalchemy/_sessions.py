"""What handlers write through: a session or a connection of SQLAlchemy, in a coroutine or not."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, column, table, update
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from diator.errors import StoreError
from diator_sqlalchemy._threads import in_thread

T = TypeVar("T")

AnySession: TypeAlias = AsyncSession | Session | AsyncConnection | Connection


def ensure_session(session: object) -> AnySession:
    """Return what the container gave. Raises `StoreError` if it is nothing that statements run on."""
    if isinstance(session, (AsyncSession, Session, AsyncConnection, Connection)):
        return session
    expected = "expected an AsyncSession, a Session, an AsyncConnection or a Connection of SQLAlchemy"
    raise StoreError(f"the container gave {session!r} as the session of the store; {expected}")


def engine_of(session: AnySession) -> Engine | AsyncEngine:
    """Return the engine of a session. Raises `StoreError` if it has none of its own."""
    if isinstance(session, (AsyncConnection, Connection)):
        return session.engine
    bind: object = getattr(session, "bind", None)  # which an AsyncSession of SQLAlchemy 2.0 need not have
    if isinstance(bind, (AsyncConnection, Connection)):
        return bind.engine
    if isinstance(bind, (AsyncEngine, Engine)):
        return bind
    raise StoreError(
        "the session has no engine of its own, only some for single classes; name that of the store: "
        "SQLAlchemyStore(AsyncSession, engine=engine)"
    )


_A_CHANGE = update(table("diator", column("number"))).values(number=0)
"""Tells a session that has engines for reading and for writing which one the store needs."""


def _connection_of(session: Session) -> Connection:
    try:
        return session.connection(bind_arguments={"clause": _A_CHANGE})
    except UnboundExecutionError as error:
        raise StoreError(
            "the session has engines for single classes, and none for the store; name one: "
            "AsyncSession(engine, binds=...)"
        ) from error


async def run(session: AnySession, function: Callable[[Connection], T], *, flush: bool = False) -> T:
    """Run a function on the connection of a session, in its transaction; ``flush`` writes its objects before."""

    def on_connection(one: Session | Connection) -> T:
        if isinstance(one, Connection):
            return function(one)
        if flush:
            one.flush()
        return function(_connection_of(one))

    if isinstance(session, (AsyncSession, AsyncConnection)):
        return await session.run_sync(on_connection)
    return await in_thread(on_connection, session)  # it may wait for a unit that needs the event loop to commit


def has_pending(session: AnySession) -> bool:
    """Tell whether a session has objects that it would write at its commit."""
    return isinstance(session, (AsyncSession, Session)) and bool(session.new or session.dirty or session.deleted)
