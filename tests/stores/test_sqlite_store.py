"""The store on sqlite3 keeps the contract of the port."""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from diator_conformance import StoreOptions, StoreSuite

from diator.stores import Store
from tests.stores.sqlite_store import SQLiteSession, SQLiteStore


class SQLiteSuite(StoreSuite):
    """The suite for stores of this kind."""

    folder = tempfile.TemporaryDirectory(prefix="diator-sqlite-")
    store_type = SQLiteStore

    def make_store(self, space: str, wanted: StoreOptions) -> Store:
        return self.store_type(self._path(space), partitions=wanted.partitions, keep_inbox=wanted.keep_inbox)

    def session(self, space: str, store: Store) -> AbstractAsyncContextManager[Any]:
        assert isinstance(store, SQLiteStore)
        return opened(store)

    async def commit(self, session: SQLiteSession) -> None:
        await asyncio.sleep(0)  # as a session does that does not block
        session.commit()

    async def rollback(self, session: SQLiteSession) -> None:
        session.rollback()

    async def savepoint(self, session: SQLiteSession) -> None:
        session.execute("SAVEPOINT one")
        session.execute("RELEASE one")

    async def change(self, session: SQLiteSession) -> None:
        store = self.new_store()
        assert isinstance(store, SQLiteStore)
        await store.begin(session)
        session.execute("UPDATE diator_partitions SET token = token")

    async def misuse(self, session: SQLiteSession) -> None:
        session.execute("SELECT nothing FROM nowhere")

    async def stop_server(self) -> None:
        """Close what is open, and leave nothing that can be opened."""
        for store in self._opened:
            await store.aclose()
        self._path(self.space).rename(self._path(f"{self.space}-away"))
        self._path(self.space).mkdir()

    async def start_server(self) -> None:
        self._path(self.space).rmdir()
        self._path(f"{self.space}-away").rename(self._path(self.space))

    async def clean_up(self, space: str) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.remove(f"{self._path(space)}{suffix}")

    def _path(self, space: str) -> Path:
        return Path(self.folder.name) / f"{space}.db"


class TestSQLiteStore(SQLiteSuite): ...


@asynccontextmanager
async def opened(store: SQLiteStore) -> AsyncGenerator[SQLiteSession, None]:
    session = store.connect()
    try:
        yield session
    finally:
        session.close()
