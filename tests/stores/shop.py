"""What tests of units of work with a store share: an app that takes orders, with one session for each unit of work."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dishka import Provider, Scope, make_async_container, provide  # pyright: ignore[reportUnknownVariableType] - dishka's

from diator import Command, Diator, DomainEvent, NotificationEvent, contract
from diator.brokers import OutgoingMessage
from tests.brokered import Flaky, Watch
from tests.stores.sqlite_store import SQLiteSession, SQLiteStore


@dataclass(frozen=True)
class Order(Command[str]):
    """Returns the id of the message that tells of it."""

    number: int = 1


@contract("shop.ordered", key="number")
@dataclass(frozen=True)
class Ordered(NotificationEvent):
    number: int


@contract("shop.billed", key="number")
@dataclass(frozen=True)
class Billed(NotificationEvent):
    number: int


@dataclass(frozen=True)
class Counted(DomainEvent):
    number: int


class Orders:
    """A repository, which is given the session."""

    def __init__(self, session: SQLiteSession) -> None:
        self.session = session

    async def add(self, number: int) -> None:
        """Insert a row, in the transaction of the session."""
        if not self.session.in_transaction:
            self.session.execute("BEGIN IMMEDIATE")
        self.session.execute("INSERT INTO orders VALUES (?)", (number,))


class Sessions(Provider):
    """A session for each unit of work, which commits where its scope closes without an error."""

    scope = Scope.REQUEST
    orders = provide(Orders)

    def __init__(self, store: SQLiteStore, commits: Callable[[SQLiteSession], object]) -> None:
        super().__init__()
        self.store = store
        self.commits = commits

    @provide
    async def session(self) -> AsyncGenerator[SQLiteSession, BaseException | None]:
        """Open a session."""
        session = self.store.connect()
        try:
            error = yield session
            if error is None:
                self.commits(session)
        finally:
            session.close()


class Shop:
    """An app with a store in a file, and a broker in memory. Enter `app`, after its handlers were added."""

    def __init__(
        self,
        folder: Path,
        *,
        broker: Any = None,
        commits: Callable[[SQLiteSession], object] = SQLiteSession.commit,
        provider: Callable[..., Provider] = Sessions,
        **options: Any,
    ) -> None:
        self.path = folder / "shop.db"
        self.store = SQLiteStore(self.path)
        self.watch = Watch()
        self.broker = Flaky() if broker is None else broker
        container = make_async_container(provider(self.store, commits))
        self.app = Diator(
            "shop", container=container, broker=self.broker, store=self.store, hooks=[self.watch], **options
        )

    async def create(self) -> "Shop":
        """Create the tables."""
        await self.store.create("shop")
        with sqlite3.connect(self.path) as connection:
            connection.execute("CREATE TABLE orders (number INTEGER)")
        connection.close()
        return self

    def query(self, sql: str) -> list[Any]:
        """Return the first column of what another connection sees."""
        connection = sqlite3.connect(self.path)
        try:
            return [row[0] for row in connection.execute(sql)]
        finally:
            connection.close()

    @property
    def orders(self) -> list[int]:
        """What handlers have committed."""
        return self.query("SELECT number FROM orders ORDER BY rowid")

    @property
    def stored(self) -> list[str]:
        """The ids of the rows in the outbox, in order."""
        return self.query("SELECT id FROM diator_outbox ORDER BY position")

    @property
    def inbox(self) -> list[str]:
        """The ids of the messages that were handled."""
        return self.query("SELECT id FROM diator_inbox")

    @property
    def published(self) -> Sequence[OutgoingMessage]:
        """What the broker was given."""
        return [message for messages, _, _ in self.broker.publications for message in messages]

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait until something is so that no hook tells of."""
        for _ in range(2_000):
            if met():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("it did not happen within 10 s")
