"""A chain of three transient objects through diator-punq. punq has no scopes, and closes nothing."""

import punq
from diator_punq import PunqContainer

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

container = punq.Container()
for cls in (Config, Database, Repository):
    container.register(cls)
plugin = PunqContainer(container)


async def setup() -> None:
    """Do what the start of an app does."""
    assert not plugin.validate([KEY], ()).errors
