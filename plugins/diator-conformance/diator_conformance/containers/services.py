"""The services that the cases register."""

from dataclasses import dataclass
from typing import Generic, NewType, Protocol, TypeVar

from diator.messages import Command, Query

T = TypeVar("T")


class Config:
    """Needs nothing."""


class Database:
    """Needs one service."""

    def __init__(self, config: Config) -> None:
        self.config = config


class Repository:
    """Needs a service that needs a service."""

    def __init__(self, database: Database) -> None:
        self.database = database


class Report:
    """Needs the same service as `Repository`."""

    def __init__(self, database: Database) -> None:
        self.database = database


class Dashboard:
    """Needs two services that need the same one."""

    def __init__(self, repository: Repository, report: Report) -> None:
        self.repository = repository
        self.report = report


class Session:
    """A resource: what opens it also closes it."""


class Transaction:
    """A resource that needs another one."""

    def __init__(self, session: Session) -> None:
        self.session = session


class Accounts:
    """Needs a resource."""

    def __init__(self, session: Session) -> None:
        self.session = session


class Request:
    """Brought by who opens the scope."""


class Tenant:
    """Needs what was brought."""

    def __init__(self, request: Request) -> None:
        self.request = request


class Billing:
    """Needs what needs what was brought."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant


FALLBACK = Config()


class Tolerant:
    """Gets along without its service."""

    def __init__(self, config: Config = FALLBACK) -> None:
        self.config = config


class Hen:
    """Needs what needs it."""

    def __init__(self, egg: "Egg") -> None:
        self.egg = egg


class Egg:
    """Needs what needs it."""

    def __init__(self, hen: Hen) -> None:
        self.hen = hen


class Clock(Protocol):
    """A protocol as a key."""

    def now(self) -> int:
        """Tell the time."""
        ...


class FixedClock:
    """Implements `Clock` without inheriting from it."""

    def now(self) -> int:
        """Tell the time."""
        return 42


class Store(Generic[T]):
    """A generic class, each of whose closed forms is a key of its own."""

    def __init__(self) -> None:
        self.items: list[T] = []


class UserStore(Store[str]):
    """Behind the key ``Store[str]``."""


class OrderStore(Store[int]):
    """Behind the key ``Store[int]``."""


class Shop:
    """Needs both closed forms of a generic class."""

    def __init__(self, users: Store[str], orders: Store[int]) -> None:
        self.users = users
        self.orders = orders


DatabaseUrl = NewType("DatabaseUrl", str)
Limit = NewType("Limit", int)
Flags = NewType("Flags", frozenset[str])


class Engine:
    """Needs a value whose key is a `NewType`."""

    def __init__(self, url: DatabaseUrl) -> None:
        self.url = url


@dataclass(frozen=True)
class Work(Command[object]):
    """The command of cases that run a whole app."""


@dataclass(frozen=True)
class Rows(Query[object]):
    """The query of cases that read a stream."""


class Outer:
    """A resource that others need."""


class Middle:
    """Between the two."""

    def __init__(self, outer: Outer) -> None:
        self.outer = outer


class Inner:
    """Needs the two others."""

    def __init__(self, middle: Middle) -> None:
        self.middle = middle
