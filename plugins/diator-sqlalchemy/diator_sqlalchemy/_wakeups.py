"""Wake-ups between processes with PostgreSQL's LISTEN, on the driver's connection: SQLAlchemy has nothing for it."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, func, select

from diator.errors import StoreUnavailableError
from diator_sqlalchemy._database import Database, translated

Heard = Callable[[Collection[int]], None]


def notify(connection: Connection, channel: str, partitions: Collection[int]) -> None:
    """Notify all who listen, if the database can."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(channel, ",".join(map(str, sorted(partitions))))))


@asynccontextmanager
async def listen(database: Database, channel: str, heard: Heard) -> AsyncGenerator[None]:
    """Call ``heard`` for each notification while the block is open; end it with an error if the connection is lost."""
    if database.engine.dialect.driver not in _LISTENERS:
        yield
        return
    listener = _LISTENERS[database.engine.dialect.driver]
    async with database.driver_connection() as driver, listener(driver, channel, heard) as lost:
        task = asyncio.current_task()
        assert task is not None
        lost.add_done_callback(lambda _: lost.cancelled() or task.cancel(_LOST))
        try:
            yield
        except asyncio.CancelledError as cancel:
            if cancel.args != (_LOST,):
                raise
            if sys.version_info >= (3, 11) and task.uncancel():
                raise  # another one has cancelled it, too
            raise StoreUnavailableError(f"the database failed: {_LOST}") from None
        finally:
            lost.cancel()


_LOST = "the connection that listens for notifications was lost"


def _partitions(payload: str) -> Collection[int]:
    return [int(number) for number in payload.split(",") if number.isdecimal()]


# Any: the connections of the drivers, which need not be installed.
@asynccontextmanager
async def _asyncpg(driver: Any, channel: str, heard: Heard) -> AsyncGenerator[asyncio.Future[None]]:
    lost = asyncio.get_running_loop().create_future()

    def on_notify(_driver: object, _pid: int, _channel: str, payload: str) -> None:
        heard(_partitions(payload))

    def on_end(_driver: object) -> None:
        if not lost.done():
            lost.set_result(None)

    with translated():
        await driver.add_listener(channel, on_notify)
    driver.add_termination_listener(on_end)
    try:
        yield lost
    finally:
        driver.remove_termination_listener(on_end)


@asynccontextmanager
async def _psycopg(driver: Any, channel: str, heard: Heard) -> AsyncGenerator[asyncio.Future[None]]:
    """Watch the socket, which takes neither thread nor task, and is the same for connections of both kinds."""
    loop = asyncio.get_running_loop()
    lost, libpq = loop.create_future(), driver.pgconn
    socket: int = libpq.socket

    def on_readable() -> None:
        try:
            libpq.consume_input()
            while found := libpq.notifies():
                heard(_partitions(found.extra.decode()))
        except Exception:  # noqa: BLE001 - all errors of libpq mean the same here
            loop.remove_reader(socket)
            if not lost.done():
                lost.set_result(None)

    with translated():
        for result in (driver.rollback(), driver.set_autocommit(True), driver.execute(f"LISTEN {channel}")):
            if hasattr(result, "__await__"):
                await result
    loop.add_reader(socket, on_readable)
    try:
        yield lost
    finally:
        loop.remove_reader(socket)


_LISTENERS = {"asyncpg": _asyncpg, "psycopg": _psycopg}
