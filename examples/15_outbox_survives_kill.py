"""Outbox and inbox: a web application takes orders and bills them, is killed again and again, and loses nothing.

`python examples/15_outbox_survives_kill.py` starts the application below in a process of its own, sends it orders over
HTTP, kills it with SIGKILL at random moments, and starts it again. At the end each order is there, and billed exactly
once. The data is in a file of SQLite. Events travel over a Redis server that it starts, or the one that `REDIS_URL`
names: a broker in memory would be killed with the application, and what it had taken would be lost.
"""

import asyncio
import contextlib
import os
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from diator_redis.testing import RedisServer
from diator_sqlalchemy import SQLAlchemyStore, add_tables
from dishka import Provider, Scope, make_async_container, provide  # pyright: ignore[reportUnknownVariableType]  # dishka's
from fastapi import FastAPI
from sqlalchemy import event, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diator import Command, Diator, NotificationEvent, Publish, contract

ORDERS, KILLED_AT = 30, (8, 20)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    number: Mapped[int] = mapped_column(primary_key=True)
    billed: Mapped[int] = mapped_column(default=0)


add_tables(Base.metadata)


@dataclass(frozen=True)
class TakeOrder(Command[None]):
    number: int


@contract("orders.taken")
@dataclass(frozen=True)
class OrderTaken(NotificationEvent):
    number: int


async def take_order(command: TakeOrder, session: AsyncSession, publish: Publish[OrderTaken]) -> None:
    if await session.get(Order, command.number) is None:  # the client may ask again, after a kill
        await session.execute(insert(Order).values(number=command.number, billed=0))
        publish(OrderTaken(command.number))


async def bill(order: OrderTaken, session: AsyncSession) -> None:
    # Not idempotent: without the inbox, a message that comes twice would be billed twice.
    await session.execute(update(Order).where(Order.number == order.number).values(billed=Order.billed + 1))


class Storage(Provider):
    scope = Scope.REQUEST

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__()
        self.engine = engine

    @provide
    async def session(self) -> AsyncGenerator[AsyncSession, BaseException | None]:
        async with AsyncSession(self.engine) as session:
            if (yield session) is None:
                await session.commit()


def make_web(database: str, redis: str) -> FastAPI:
    """The application: web server, worker and relay in one process."""
    engine = open_engine(database)
    store = SQLAlchemyStore(AsyncSession, engine=engine)
    app = Diator("orders", container=make_async_container(Storage(engine)), broker=f"{redis}?lease=2", store=store)
    app.add_command(take_order)
    app.add_event_handler(bill)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with app, app.worker():
            yield

    web = FastAPI(lifespan=lifespan)

    @web.post("/orders/{number}")
    async def take(number: int) -> None:
        await app.send(TakeOrder(number))

    return web


def open_engine(database: str) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}")

    @event.listens_for(engine.sync_engine, "connect")
    def use_wal(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA busy_timeout=5000")

    return engine


async def send_orders(database: str, redis: str) -> int:
    """Send all orders while the application is killed and started again; return how often it was killed."""
    process, port, kills = *start(database, redis), 0
    try:
        async with httpx.AsyncClient(timeout=2) as client:
            for number in range(ORDERS):
                if number in KILLED_AT:
                    asyncio.get_running_loop().call_later(random.random() / 50, process.kill)
                while True:
                    try:
                        (await client.post(f"http://127.0.0.1:{port}/orders/{number}")).raise_for_status()
                        break
                    except httpx.HTTPError:
                        if process.poll() is not None:
                            process, port = start(database, redis)
                            kills += 1
                        await asyncio.sleep(0.05)
        await all_billed(database)
    finally:
        process.kill()
        process.wait()
    return kills


def start(database: str, redis: str) -> tuple["subprocess.Popen[bytes]", int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return subprocess.Popen([sys.executable, __file__, database, redis, str(port)]), port


async def all_billed(database: str) -> None:
    engine = open_engine(database)
    unbilled = select(func.count()).select_from(Order).where(Order.billed == 0)
    left: int | None = None
    while left != 0:
        await asyncio.sleep(0.1)
        async with engine.connect() as connection:
            left = await connection.scalar(unbilled)
    await engine.dispose()


async def main(redis: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder, "orders.db"))
        engine = open_engine(database)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        kills = await send_orders(database, redis)
        async with engine.connect() as connection:
            counts = (await connection.execute(select(Order.billed, func.count()).group_by(Order.billed))).all()
        await engine.dispose()
    print(f"killed {kills} times")
    for billed, count in counts:
        print(f"{count} orders were billed {'once' if billed == 1 else f'{billed} times'}")


if __name__ == "__main__":
    if sys.argv[1:]:
        path, address, port = sys.argv[1:]
        uvicorn.run(make_web(path, address), port=int(port), log_level="error")
    elif url := os.environ.get("REDIS_URL"):
        asyncio.run(main(url))
    else:
        with RedisServer() as server:
            asyncio.run(main(server.url))
