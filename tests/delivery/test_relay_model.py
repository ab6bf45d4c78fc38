"""A model of processes that write, relay and handle over one store: they crash at every await, and the broker fails.

Nothing may be lost, published without a commit, out of order by key at its first appearance, or have an effect twice;
and when nothing fails any more, all has to be published soon.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diator import BrokerUnavailableError, NotPublishedError, StoreUnavailableError
from diator._hooks import HookDispatcher
from diator.brokers import Envelope, OutgoingMessage
from diator.delivery.relay import LEASE, Relay
from diator.stores import StoredMessage
from tests.stores.sqlite_store import SQLiteStore
from tests.virtual_time import run

SOON = 3 * LEASE
"""Seconds within which all is published when nothing fails any more."""


class Crash(BaseException):
    """The process is killed."""


class World:
    """One database, one broker, and what is known to have been committed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.committed: list[OutgoingMessage] = []
        self.published: list[str] = []
        self.fails: Callable[[OutgoingMessage], str | None] = lambda _: None
        """Says of a message whether it is unsent, or unknown with or without having been published."""
        self.numbers = iter(range(10**9))
        self.clock_is_off = 0.0
        """Seconds that the clock of the database is ahead of the time that passes."""

    def message(self, key: str | None) -> OutgoingMessage:
        found = f"{next(self.numbers)}"
        envelope = Envelope(
            specversion="1.0", id=found, source="shop", type="placed", partitionkey=key, data=msgspec.Raw(b"{}")
        )
        return OutgoingMessage("orders", envelope)

    def take(self, messages: Sequence[OutgoingMessage]) -> None:
        """Do what a broker does: messages of one key in order, and none behind one that failed."""
        unsent: list[OutgoingMessage] = []
        unknown: list[OutgoingMessage] = []
        for one in messages:
            how = self.fails(one)
            behind = one.key is not None and any(other.key == one.key for other in (*unsent, *unknown))
            if how is None and not behind:
                self.published.append(one.id)
            elif how == "taken" and not behind:
                self.published.append(one.id)
                unknown.append(one)
            else:
                (unsent if how != "lost" else unknown).append(one)
        if unsent or unknown:
            raise NotPublishedError(unsent, unknown) from BrokerUnavailableError("away")

    def check(self) -> None:
        """Check all that must hold at any time."""
        keys = {one.id: one.key for one in self.committed}
        phantoms = [one for one in self.published if one not in keys]
        assert not phantoms, f"published without a commit: {phantoms}"
        for key in {key for key in keys.values() if key is not None}:
            first = [one for one in dict.fromkeys(self.published) if keys[one] == key]
            expected = [one.id for one in self.committed if one.key == key]
            assert first == expected[: len(first)], f"{key!r} appeared as {first}, and was committed as {expected}"

    @property
    def is_done(self) -> bool:
        return {one.id for one in self.committed} <= set(self.published)


class Process(SQLiteStore):
    """A process with a store and a relay. It crashes at its ``crash_at``-th step."""

    def __init__(self, world: World, crash_at: int | None = None) -> None:
        super().__init__(world.path, partitions=3, clock=lambda: asyncio.get_running_loop().time() + world.clock_is_off)
        self.world = world
        self.steps, self.crash_at = 0, crash_at
        self.crashed = asyncio.Event()
        self.slow = 0.0
        """Seconds that passing messages to the broker takes: a process that is frozen has no timeouts."""
        self.failing: list[bool] = []
        """Whether each of the next calls of the store fails, after it has done its work."""
        self.relay = Relay(self, self.publish, HookDispatcher(), 10.0)

    def step(self) -> None:
        if self.crashed.is_set():
            raise Crash
        self.steps += 1
        if self.steps == self.crash_at:
            self.crashed.set()
            raise Crash

    @contextmanager
    def stepping(self) -> Generator[None, None, None]:
        self.step()
        if self.failing and not self.failing[-1]:
            self.failing.pop()
            raise StoreUnavailableError("no route")
        yield
        self.step()
        if self.failing and self.failing.pop():
            raise StoreUnavailableError("the answer was lost")

    async def publish(self, messages: Sequence[OutgoingMessage], timeout: float) -> None:
        self.step()
        await asyncio.sleep(self.slow)
        self.step()
        try:
            self.world.take(messages)
        finally:
            self.step()

    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        with self.stepping():
            return await super().lease(relay, seconds=seconds, rank=rank)

    async def release(self, relay: str, /) -> None:
        with self.stepping():
            await super().release(relay)

    async def promote(self, held: Mapping[int, int], /) -> float | None:
        with self.stepping():
            return await super().promote(held)

    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        with self.stepping():
            return await super().read(held, limit, without=without)

    async def delete(self, held: Mapping[int, int], rows: Sequence[StoredMessage], /) -> int:
        with self.stepping():
            return await super().delete(held, rows)

    async def run_relay(self, until: asyncio.Event) -> None:
        """Relay until the process crashes, or is to end."""
        await self.open("shop")
        await self.relay.start()
        waiting = [asyncio.ensure_future(event.wait()) for event in (until, self.crashed)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()
        with suppress(Crash):
            await self.relay.stop()
        await self.aclose()

    async def unit(self, keys: Sequence[str | None], *, commits: bool = True) -> None:
        """Run a unit of work that publishes events."""
        messages = [self.world.message(key) for key in keys]
        with suppress(_RolledBack):
            async with self.sessions() as session:
                transaction = self.join(session, own=True)
                await transaction.write(messages)
                transaction.complete()
                if not commits:
                    raise _RolledBack
                self.world.committed += messages  # the commit follows without an await
        if commits:
            self.relay.notify(range(3))


class _RolledBack(Exception): ...


async def finish(world: World, process: Process) -> None:
    """Have one process that does not fail publish the rest, and check that this is soon."""
    ending = asyncio.Event()
    relaying = asyncio.ensure_future(process.run_relay(ending))
    for _ in range(int(10 * SOON)):
        await asyncio.sleep(0.0 if world.is_done else 0.1)
    ending.set()
    await relaying
    world.check()
    lost = {one.id for one in world.committed} - set(world.published)
    assert not lost, f"not published within {SOON:g} s: {lost}"


def play(scene: Callable[[World], Coroutine[Any, Any, Any]]) -> Any:
    with tempfile.TemporaryDirectory(prefix="diator-model-") as folder:
        world = World(Path(folder) / "shop.db")

        async def main() -> Any:
            store = Process(world)
            await store.create("shop")
            return await scene(world)

        return run(main())


KEYS = ["a", "b", None, "a", "c", "b", "a"]


def test_a_crash_at_any_step_of_a_relay_loses_nothing() -> None:
    async def scene(world: World, crash_at: int, slow: float) -> int:
        first, second = Process(world, crash_at), Process(world)
        first.slow = slow
        await second.open("shop")
        await second.unit(KEYS)
        ending = asyncio.Event()
        relaying = asyncio.ensure_future(first.run_relay(ending))
        await asyncio.sleep(0.01)
        await second.unit(KEYS)
        await second.unit(KEYS, commits=False)
        await asyncio.sleep(1.5)
        ending.set()
        await relaying
        world.check()
        await finish(world, second)
        counts = Counter(world.published)
        assert max(counts.values()) <= 2, "one crash published an event more than twice"
        return first.steps

    for slow in (0.0, 0.5):
        steps = play(partial(scene, crash_at=10**9, slow=slow))
        assert steps > 20
        for crash_at in range(1, steps + 1):
            play(partial(scene, crash_at=crash_at, slow=slow))


class Running(NamedTuple):
    process: Process
    ending: asyncio.Event
    task: "asyncio.Task[None]"


class Writes(NamedTuple):
    keys: list[str | None]
    commits: bool

    async def do(self, world: World, writer: Process, running: list[Running]) -> None:
        await writer.unit(self.keys, commits=self.commits)
        for one in running:
            one.process.relay.notify(range(3))


class Starts(NamedTuple):
    crash_at: int | None
    slow: float
    failing: list[bool]

    async def do(self, world: World, writer: Process, running: list[Running]) -> None:
        process, ending = Process(world, self.crash_at), asyncio.Event()
        process.slow, process.failing = self.slow, list(self.failing)
        running.append(Running(process, ending, asyncio.ensure_future(process.run_relay(ending))))


class BrokerFails(NamedTuple):
    how: str | None
    key: str | None
    """Which key; all if there is none."""

    async def do(self, world: World, writer: Process, running: list[Running]) -> None:
        def fails(message: OutgoingMessage) -> str | None:
            return self.how if self.key in (None, message.key) else None

        world.fails = fails


class Passes(NamedTuple):
    seconds: float

    async def do(self, world: World, writer: Process, running: list[Running]) -> None:
        await asyncio.sleep(self.seconds)


class ClockIsSet(NamedTuple):
    by: float

    async def do(self, world: World, writer: Process, running: list[Running]) -> None:
        world.clock_is_off += self.by


class Ends(NamedTuple):
    which: int

    async def do(self, world: World, writer: Process, running: list[Running]) -> None:
        if self.which < len(running):
            running[self.which].ending.set()


keys = st.sampled_from(["a", "b", "c", None])
steps = st.one_of(
    st.builds(Writes, st.lists(keys, min_size=1, max_size=5), st.sampled_from([True, True, True, False])),
    st.builds(
        Starts,
        st.one_of(st.none(), st.integers(1, 60)),
        st.sampled_from([0.0, 0.0, 0.3, 2.0, 1.5 * LEASE]),
        st.lists(st.booleans(), max_size=4),
    ),
    st.builds(BrokerFails, st.sampled_from([None, "unsent", "taken", "lost"]), keys),
    st.builds(Passes, st.sampled_from([0.0, 0.01, 0.5, 3.0, LEASE, 2 * LEASE])),
    st.builds(Ends, st.integers(0, 2)),
    st.builds(ClockIsSet, st.sampled_from([-3600.0, -LEASE, 1.0, 3600.0])),
)


@settings(max_examples=80, deadline=None, derandomize=True)
@example([Starts(7, 0.0, []), Passes(0.5), Writes(["a"], commits=True), Passes(0.5), ClockIsSet(-3600.0)])
@given(st.lists(steps, min_size=3, max_size=25))
def test_any_program_of_writers_relays_crashes_and_outages(program: list[Any]) -> None:
    async def scene(world: World) -> None:
        writer = Process(world)
        await writer.open("shop")
        running: list[Running] = []
        for one in program:
            await one.do(world, writer, running)
            world.check()
        world.fails = lambda _: None
        for one in running:
            one.ending.set()
            await one.task
        await finish(world, writer)

    play(scene)


class Handler(SQLiteStore):
    """A process that handles messages: an effect in the database for each, and an inbox."""

    def __init__(self, path: Path, crash_at: int) -> None:
        super().__init__(path, clock=lambda: asyncio.get_running_loop().time())
        self.left = crash_at

    async def step(self) -> None:
        self.left -= 1
        if not self.left:
            raise Crash
        await asyncio.sleep(0.001)

    async def handle(self, message_id: str) -> None:
        """Handle a message; after that it is acknowledged."""
        await self.step()
        async with self.sessions() as session:
            transaction = self.join(session, own=True)
            if await transaction.record_handled("handler", message_id):
                await self.step()
                session.execute("INSERT INTO effects VALUES (?)", (message_id,))
                await self.step()
            transaction.complete()
        await self.step()


@pytest.mark.parametrize("duplicates", [1, 3])
def test_effects_happen_once_whatever_is_delivered_how_often(duplicates: int) -> None:
    async def scene(world: World) -> None:
        await (first := Handler(world.path, 10**9)).create("shop")
        connection = first.connect()
        connection.execute("CREATE TABLE effects (id TEXT)")
        unacknowledged = [f"{number}" for number in range(4)] * duplicates
        crash_at = 0
        while unacknowledged:
            crash_at += 1
            handler = Handler(world.path, crash_at)
            handling = [asyncio.ensure_future(handler.handle(one)) for one in unacknowledged]
            await asyncio.wait(handling)
            unacknowledged = [one for one, task in zip(unacknowledged, handling, strict=True) if task.exception()]
        effects = [one for (one,) in connection.execute("SELECT id FROM effects ORDER BY id")]
        connection.close()
        assert effects == ["0", "1", "2", "3"]

    with tempfile.TemporaryDirectory(prefix="diator-model-") as folder:
        run(scene(World(Path(folder) / "shop.db")))
