"""Measures what a store costs on PostgreSQL with asyncpg, prints the figures and writes RESULTS-outbox.md.

They are ratios of speed: what is compared takes turns in one process, and the median over all rounds counts.
"""

import argparse
import asyncio
import platform
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from diator_sqlalchemy import SQLAlchemyStore, add_tables
from diator_sqlalchemy.testing import PostgresServer
from dishka import Provider, Scope, make_async_container
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.report import table
from diator import Command, Diator, Hooks, NotificationEvent, Publish, contract
from diator.brokers import MemoryBroker
from diator.hooks import Handled, Relayed

RESULTS = Path(__file__).parent / "RESULTS-outbox.md"
TEXT = """\
# Results with a store

Written by `python -m benchmarks.outbox`, on {python} ({system}), {packages},
with a PostgreSQL on the same machine. The [README](README.md#with-a-store) says how each figure comes about.

{table}
"""


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


add_tables(Base.metadata)
APART = "apart_"
"""Begins the names of tables that no relay of this process reads."""
add_tables(Base.metadata, prefix=APART)


@contract("shop.taken", key="number")
@dataclass(frozen=True)
class Taken(NotificationEvent):
    number: int


@dataclass(frozen=True)
class Take(Command[None]):
    number: int


@dataclass(frozen=True)
class TakeAndTell(Command[None]):
    number: int
    events: int = 1


async def take(command: Take, session: AsyncSession) -> None:
    session.add(Order(number=command.number))


async def take_and_tell(command: TakeAndTell, session: AsyncSession, publish: Publish[Taken]) -> None:
    session.add(Order(number=command.number))
    for _ in range(command.events):
        publish(Taken(command.number))


async def record(event: Taken, session: AsyncSession) -> None:
    session.add(Order(number=event.number))


class Watch(Hooks):
    """Notes when rows were published, and how many messages were handled."""

    def __init__(self) -> None:
        self.count = 0
        self.seen = asyncio.Event()
        self.at = 0.0
        self.to_handle = 0

    def relayed(self, details: Relayed, /) -> None:
        """Note it."""
        self.at = time.perf_counter()
        self.count += len(details.rows)
        self.seen.set()

    def handled(self, _details: Handled, /) -> None:
        """Note it."""
        self.to_handle -= 1
        if not self.to_handle:
            self.seen.set()


def make_app(
    engine: AsyncEngine,
    watch: Watch,
    *,
    relay: bool,
    once: bool | None = None,
    broker: MemoryBroker | None = None,
    prefix: str = "diator_",
) -> Diator:
    async def session() -> AsyncGenerator[AsyncSession, BaseException | None]:
        async with AsyncSession(engine) as session:
            error = yield session
            if error is None:
                await session.commit()

    provider = Provider(scope=Scope.REQUEST)
    provider.provide(session, provides=AsyncSession)
    store = SQLAlchemyStore(AsyncSession, engine=engine, prefix=prefix)
    app = Diator(
        "shop",
        container=make_async_container(provider),
        broker=broker or MemoryBroker(),
        store=store,
        relay=relay,
        hooks=[watch],
    )
    app.add_command(take)
    app.add_command(take_and_tell)
    if once is not None:
        app.add_event_handler(record, once=once)
    return app


async def rate(call: Callable[[int], Awaitable[Any]], callers: int, seconds: float) -> float:
    """Return how often a call ends in a second, with so many callers at once."""
    ends, done = time.perf_counter() + seconds, 0

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() < ends:
            await call(number)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*map(caller, range(callers)))
    return done / (time.perf_counter() - began)


async def measure(engine: AsyncEngine, rounds: int, seconds: float) -> list[tuple[str, str, float]]:
    """Return what was measured, its target, and the figure."""
    rates: dict[str, list[float]] = {}
    waits: list[float] = []
    watch = Watch()
    async with AsyncExitStack() as stack:
        apart = await stack.enter_async_context(make_app(engine, Watch(), relay=False, prefix=APART))
        together = await stack.enter_async_context(make_app(engine, watch, relay=True))
        calls: dict[str, Callable[[int], Awaitable[Any]]] = {
            "none": lambda number: apart.send(Take(number)),
            "one": lambda number: apart.send(TakeAndTell(number)),
            "five": lambda number: apart.send(TakeAndTell(number, 5)),
            "loop": lambda number: together.send(TakeAndTell(number)),
        }
        for _ in range(rounds):
            for callers in (1, 8):
                for name, call in calls.items():
                    rates.setdefault(f"{name} {callers}", []).append(await rate(call, callers, seconds))
                    await drained(watch)
        for number in range(20 * rounds):
            watch.seen.clear()
            await together.send(TakeAndTell(number))
            returned = time.perf_counter()
            await watch.seen.wait()
            waits.append(max(0.0, watch.at - returned) * 1_000)
            await asyncio.sleep(0.03)  # past the relay's linger
    behind = await relayed_alone(engine, 2_000 if rounds < 3 else 20_000)
    rows = [
        (f"{what}, {callers} at once", target, of(rates, name, callers))
        for callers in (1, 8)
        for what, name, target in (
            ("send with one event, relay elsewhere", "one", "at least 0.72"),
            ("send with five events, relay elsewhere", "five", "at least 0.6"),
            ("send with one event, relay in the same loop", "loop", "at least 0.45"),
        )
    ]
    alone = behind / median(rates["one 1"])
    return [
        *rows,
        *await measure_inbox(engine, rounds, 50 if rounds < 3 else 500),
        ("relay alone, in rates of one writer", "at least 40", alone),
        ("ms from the return of send to the broker, relay in the same loop", "at most 2", median(waits)),
    ]


async def measure_inbox(engine: AsyncEngine, rounds: int, count: int) -> list[tuple[str, str, float]]:
    """Return the ratios of handling with an inbox to the same handler without one."""
    found: dict[int, list[float]] = {1: [], 8: []}
    for _ in range(rounds):
        for callers, ratios in found.items():
            plain, inbox = [await handled(engine, count, callers, once=once) for once in (False, True)]
            ratios.append(inbox / plain)
    return [(f"handle with inbox, {callers} at once", "at least 0.7", median(got)) for callers, got in found.items()]


async def handled(engine: AsyncEngine, count: int, callers: int, *, once: bool) -> float:
    """Return how many messages a worker handles in a second."""
    watch, broker = Watch(), MemoryBroker()
    app = make_app(engine, watch, relay=False, once=once, broker=broker)
    async with app, Diator("till", broker=broker) as till, app.worker(concurrency=callers):
        await app.send(Take(0))  # which opens a connection
        watch.to_handle = count
        began = time.perf_counter()
        await till.publish(*map(Taken, range(count)))
        await watch.seen.wait()
        return count / (time.perf_counter() - began)


def of(rates: dict[str, list[float]], name: str, callers: int) -> float:
    """Return the median ratio to the same without an event."""
    pairs = zip(rates[f"{name} {callers}"], rates[f"none {callers}"], strict=True)
    return median(subject / baseline for subject, baseline in pairs)


async def drained(watch: Watch) -> None:
    """Wait until the relay has nothing to do."""
    before = -1
    while before != watch.count:
        before = watch.count
        await asyncio.sleep(0.1)


async def relayed_alone(engine: AsyncEngine, count: int) -> float:
    """Return how many rows a relay publishes in a second if nothing else runs."""
    writer = make_app(engine, Watch(), relay=False)
    async with writer:
        for _ in range(count // 500):
            await writer.publish(*(Taken(number) for number in range(500)))
    watch = Watch()
    async with make_app(engine, watch, relay=True):
        began = time.perf_counter()
        while watch.count < count:
            watch.seen.clear()
            await watch.seen.wait()
        return count / (watch.at - began)


async def run(options: argparse.Namespace) -> None:
    """Measure on a server of its own, and print the figures."""
    with PostgresServer(shared_buffers="64MB") as server:
        engine = create_async_engine(server.url("asyncpg"), pool_size=10)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        found = await measure(engine, *((1, 0.2) if options.quick else (9, 1.0)))
        async with engine.begin() as connection:
            await connection.execute(delete(Order))
        await engine.dispose()
    text = table(
        ("what", "target", "measured"),
        [(what, target, f"{figure:.2f}") for what, target, figure in found],
    )
    print(text)
    if not options.quick:
        RESULTS.write_text(
            TEXT.format(
                python=f"{platform.python_implementation()} {platform.python_version()}",
                system=f"{platform.system()} {platform.machine()}",
                packages=", ".join(f"{name} {version(name)}" for name in ("sqlalchemy", "asyncpg")),
                table=text,
            )
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outbox", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run everything briefly, write nothing")
    asyncio.run(run(parser.parse_args()))
