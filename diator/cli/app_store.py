"""From the name of an app to its store: what the commands for its outbox share. None of them runs the app."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from diator._inspection import messaging_of, parts_of
from diator.app import Diator
from diator.cli.app_broker import end_with_problems, exit_error
from diator.cli.arguments import load_or_exit, plugin_text
from diator.containers.port import Container
from diator.delivery.messaging import UNNAMED
from diator.errors import ConfigurationError, Problem, StoreError, StoreUnavailableError
from diator.stores.port import OperatesStore, Store

T = TypeVar("T")

_store_logger = logging.getLogger("diator.stores")


class AppStore:
    """An app whose store is to be worked at; ends with exit code 1 where it has none."""

    def __init__(self, name: str) -> None:
        self._name = name
        try:
            app = load_or_exit(name)
            self._app = app.name or UNNAMED
            self._store: Any = store_of(app)  # Any: both protocols; see below
        except ConfigurationError as error:
            end_with_problems(error.problems)
        self._container = cast("Container", parts_of(app).container)  # an app with a store has one
        if not isinstance(self._store, OperatesStore):
            exit_error(f"{type(self._store).__name__} has no commands for operators (see diator.stores.OperatesStore)")

    def create(self) -> Sequence[str]:
        """Create the tables; ends with exit code 1 if the store can't."""
        return self._run(lambda: self._store.create(self._app, self._container))

    def operate(self, work: Callable[[OperatesStore], Coroutine[Any, Any, T]]) -> T:
        """Do something at the store; ends with exit code 1 if the database is unavailable, or can't be used so."""

        async def opened() -> T:
            await self._store.open(self._app, self._container)
            return await work(self._store)

        return self._run(opened)

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def closed() -> T:
            try:
                return await work()
            finally:
                await self._store.aclose()
                await self._container.aclose()

        level = _store_logger.level
        _store_logger.setLevel(logging.ERROR)  # the start of the app warns of its database, not each command
        try:
            return asyncio.run(closed())
        except ConfigurationError as error:  # such as a library that connecting needs
            end_with_problems(error.problems)
        except StoreUnavailableError as error:
            exit_error(f"{plugin_text(error, self._name)}\n    -> start the database, or correct the app's store=...")
        except StoreError as error:
            exit_error(plugin_text(error, self._name))
        finally:
            _store_logger.setLevel(level)


def store_of(app: Diator) -> Store:
    """Return the store of an app. Raises `ConfigurationError` if it has none."""
    messaging = messaging_of(app)
    if messaging is None or messaging.outbox is None:
        fix = 'pass one: Diator("meetings", container=..., broker=..., store=SQLAlchemyStore(AsyncSession))'
        raise ConfigurationError([Problem("no-store", f"{app!r} has no store, so it has no outbox", fix)])
    return messaging.outbox.store
