"""A scope and a chain of three scoped objects: dishka by itself, and through diator-dishka."""

from collections.abc import AsyncIterator

from diator_dishka import DishkaContainer
from dishka import Provider, Scope, make_async_container

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

provider = Provider(scope=Scope.REQUEST)
provider.provide_all(Config, Database, Repository, Session, Accounts)
provider.provide(connect)
container = make_async_container(provider)
plugin = DishkaContainer(container)


async def setup() -> None:
    """Do what the start of an app does."""
    assert not plugin.validate([CHAIN, RESOURCE], ()).errors


async def native_chain() -> Repository:
    """Enter a scope, get, leave, in dishka's own way."""
    async with container() as scope:
        return await scope.get(Repository)


async def plugin_chain() -> Repository:
    """Do the same through the plugin."""
    async with plugin.scope({}) as scope:
        repository: Repository = await scope.resolve(CHAIN)
        return repository


async def native_resource() -> Accounts:
    """Do it where the deepest of the three is a resource, from an async generator."""
    async with container() as scope:
        return await scope.get(Accounts)


async def plugin_resource() -> Accounts:
    """Do that through the plugin."""
    async with plugin.scope({}) as scope:
        accounts: Accounts = await scope.resolve(RESOURCE)
        return accounts
