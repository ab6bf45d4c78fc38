"""The store on sqlite3 keeps the contract of the port."""

import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from diator_conformance import StoreOptions, StoreSuite

from diator.stores import Store
from tests.stores.sqlite_store import SQLiteSession, SQLiteStore


class TestSQLiteStore(StoreSuite):
    folder = tempfile.TemporaryDirectory(prefix="diator-sqlite-")

    def make_store(self, space: str, wanted: StoreOptions) -> Store:
        return SQLiteStore(self._path(space), partitions=wanted.partitions, keep_inbox=wanted.keep_inbox)

    def session(self, space: str, store: Store) -> AbstractAsyncContextManager[Any]:
        assert isinstance(store, SQLiteStore)
        return opened(store)

    async def commit(self, session: SQLiteSession) -> None:
        session.commit()

    async def rollback(self, session: SQLiteSession) -> None:
        session.rollback()

    async def savepoint(self, session: SQLiteSession) -> None:
        session.execute("SAVEPOINT one")
        session.execute("RELEASE one")

    async def change(self, session: SQLiteSession) -> None:
        store = SQLiteStore(self._path(self.space))
        await store.begin(session)
        session.execute("UPDATE diator_partitions SET token = token")

    async def misuse(self, session: SQLiteSession) -> None:
        session.execute("SELECT nothing FROM nowhere")

    async def clean_up(self, space: str) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.remove(f"{self._path(space)}{suffix}")

    def _path(self, space: str) -> Path:
        return Path(self.folder.name) / f"{space}.db"


@asynccontextmanager
async def opened(store: SQLiteStore) -> AsyncGenerator[SQLiteSession, None]:
    session = store.connect()
    try:
        yield session
    finally:
        session.close()
