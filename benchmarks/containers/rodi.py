"""A scope and a chain of three scoped objects: rodi by itself, and through diator-rodi.

rodi opens and closes no resources, so there is no row with one.
"""

# pyright: reportUnknownMemberType=false
# rodi's own hints leave out the arguments of types.

import rodi
from diator_rodi import RodiContainer

from diator.containers import Key


class Config:
    pass


class Database:
    def __init__(self, config: Config) -> None:
        self.config = config


class Repository:
    def __init__(self, database: Database) -> None:
        self.database = database


KEY = Key(Repository)

container = rodi.Container().add_scoped(Config).add_scoped(Database).add_scoped(Repository)
services = container.provider
plugin = RodiContainer(container)


async def setup() -> None:
    """Do what the start of an app does."""
    assert not plugin.validate([KEY], ()).errors
    await plugin_chain()


async def native_chain() -> Repository:
    """Enter a scope, resolve, leave, in rodi's own way."""
    with services.create_scope() as scope:
        repository: Repository = scope.get(Repository)
        return repository


async def plugin_chain() -> Repository:
    """Do the same through the plugin."""
    async with plugin.scope({}) as scope:
        repository: Repository = await scope.resolve(KEY)
        return repository
