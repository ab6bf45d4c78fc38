"""A scope and a chain of three scoped objects: di by itself, and through diator-di.

di by itself is what its documentation shows: solved once, then executed in a new scope each time.
"""

from collections.abc import AsyncIterator
from typing import Any

from di import Container, ScopeState, bind_by_type
from di.dependent import Dependent
from di.executors import AsyncExecutor
from diator_di import DiContainer

from diator.containers import Key


class Config:
    pass


class Database:
    def __init__(self, config: Config) -> None:
        self.config = config


class Repository:
    def __init__(self, database: Database) -> None:
        self.database = database


class Connection:
    pass


async def connect() -> AsyncIterator[Connection]:
    yield Connection()


class Session:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection


class Accounts:
    def __init__(self, session: Session) -> None:
        self.session = session


CHAIN, RESOURCE = Key(Repository), Key(Accounts)
SCOPES = ("app", "request")

container = Container()
for cls in (Config, Database, Repository, Session, Accounts):
    container.bind(bind_by_type(Dependent[Any](cls, scope="request"), cls))
container.bind(bind_by_type(Dependent[Any](connect, scope="request"), Connection))
plugin = DiContainer(container)

chain = container.solve(Dependent(Repository, scope="request"), scopes=SCOPES)
resource = container.solve(Dependent(Accounts, scope="request"), scopes=SCOPES)
executor = AsyncExecutor()
app: ScopeState


async def setup() -> None:
    """Do what the start of an app does."""
    global app  # noqa: PLW0603 - as open as the app that it stands for
    app = await container.enter_scope("app").__aenter__()
    assert not plugin.validate([CHAIN, RESOURCE], ()).errors
    await plugin_chain()
    await plugin_resource()


async def native_chain() -> Repository:
    """Enter a scope, execute, leave, in di's own way."""
    async with container.enter_scope("request", state=app) as state:
        return await chain.execute_async(executor, state)


async def plugin_chain() -> Repository:
    """Do the same through the plugin."""
    async with plugin.scope({}) as scope:
        repository: Repository = await scope.resolve(CHAIN)
        return repository


async def native_resource() -> Accounts:
    """Do it where the deepest of the three is a resource, from an async generator."""
    async with container.enter_scope("request", state=app) as state:
        return await resource.execute_async(executor, state)


async def plugin_resource() -> Accounts:
    """Do that through the plugin."""
    async with plugin.scope({}) as scope:
        accounts: Accounts = await scope.resolve(RESOURCE)
        return accounts
