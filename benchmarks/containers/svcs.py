"""A scope and a chain of three scoped objects: svcs by itself, and through diator-svcs."""

# pyright: reportUnknownMemberType=false
# The methods of svcs take callables whose results are untyped.

from collections.abc import AsyncIterator

from diator_svcs import SvcsContainer
from svcs import Container, Registry

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


async def database(svcs_container: Container) -> Database:
    return Database(await svcs_container.aget(Config))


async def repository(svcs_container: Container) -> Repository:
    return Repository(await svcs_container.aget(Database))


async def session(svcs_container: Container) -> Session:
    return Session(await svcs_container.aget(Connection))


async def accounts(svcs_container: Container) -> Accounts:
    return Accounts(await svcs_container.aget(Session))


CHAIN, RESOURCE = Key(Repository), Key(Accounts)

registry = Registry()
registry.register_factory(Config, Config)
registry.register_factory(Database, database)
registry.register_factory(Repository, repository)
registry.register_factory(Connection, connect, suppress_context_exit=False)
registry.register_factory(Session, session)
registry.register_factory(Accounts, accounts)
plugin = SvcsContainer(registry)


async def setup() -> None:
    """Do what the start of an app does."""
    assert not plugin.validate([CHAIN, RESOURCE], ()).errors
    await plugin_chain()
    await plugin_resource()


async def native_chain() -> Repository:
    """Enter a scope, resolve, leave, in svcs's own way."""
    async with Container(registry) as container:
        return await container.aget(Repository)


async def plugin_chain() -> Repository:
    """Do the same through the plugin."""
    async with plugin.scope({}) as scope:
        repository: Repository = await scope.resolve(CHAIN)
        return repository


async def native_resource() -> Accounts:
    """Do it where the deepest of the three is a resource, from an async generator."""
    async with Container(registry) as container:
        return await container.aget(Accounts)


async def plugin_resource() -> Accounts:
    """Do that through the plugin."""
    async with plugin.scope({}) as scope:
        accounts: Accounts = await scope.resolve(RESOURCE)
        return accounts
