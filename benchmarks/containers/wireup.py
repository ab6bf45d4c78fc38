"""A scope and a chain of three scoped objects: wireup by itself, and through diator-wireup."""

from collections.abc import AsyncIterator

from diator_wireup import WireupContainer
from wireup import create_async_container, injectable

from diator.containers import Key


@injectable(lifetime="scoped")
class Config:
    pass


@injectable(lifetime="scoped")
class Database:
    def __init__(self, config: Config) -> None:
        self.config = config


@injectable(lifetime="scoped")
class Repository:
    def __init__(self, database: Database) -> None:
        self.database = database


class Connection:
    pass


@injectable(lifetime="scoped")
async def connect() -> AsyncIterator[Connection]:
    yield Connection()


@injectable(lifetime="scoped")
class Session:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection


@injectable(lifetime="scoped")
class Accounts:
    def __init__(self, session: Session) -> None:
        self.session = session


CHAIN, RESOURCE = Key(Repository), Key(Accounts)

container = create_async_container(injectables=[Config, Database, Repository, connect, Session, Accounts])
plugin = WireupContainer(container)


async def setup() -> None:
    """Do what the start of an app does."""
    assert not plugin.validate([CHAIN, RESOURCE], ()).errors
    await plugin_chain()
    await plugin_resource()


async def native_chain() -> Repository:
    """Enter a scope, resolve, leave, in wireup's own way."""
    async with container.enter_scope() as scope:
        return await scope.get(Repository)


async def plugin_chain() -> Repository:
    """Do the same through the plugin."""
    async with plugin.scope({}) as scope:
        repository: Repository = await scope.resolve(CHAIN)
        return repository


async def native_resource() -> Accounts:
    """Do it where the deepest of the three is a resource, from an async generator."""
    async with container.enter_scope() as scope:
        return await scope.get(Accounts)


async def plugin_resource() -> Accounts:
    """Do that through the plugin."""
    async with plugin.scope({}) as scope:
        accounts: Accounts = await scope.resolve(RESOURCE)
        return accounts
