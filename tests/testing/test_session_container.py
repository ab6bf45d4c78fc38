"""Sessions with a container of their own, in place of the one that the app has."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import dishka
import punq
import pytest

from diator import Command, ConfigurationError, Diator, NotificationEvent, Publish, contract


class Database:
    """What the tests must not reach, unless it is theirs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_open = True
        self.rows: list[str] = []


class Rooms:
    """What handlers ask for; the container builds it from the database."""

    def __init__(self, database: Database) -> None:
        self.database = database


@dataclass(frozen=True)
class Book(Command[str]):
    room: str


@contract("rooms.booked")
@dataclass(frozen=True)
class Booked(NotificationEvent):
    room: str


def in_punq(database: Database) -> punq.Container:
    container = punq.Container()
    container.register(Database, instance=database)
    container.register(Rooms)
    return container


def in_dishka(database: Database) -> dishka.AsyncContainer:
    async def opened() -> AsyncGenerator[Database]:
        yield database
        database.is_open = False

    provider = dishka.Provider()
    provider.provide(opened, scope=dishka.Scope.APP)
    provider.provide(Rooms, scope=dishka.Scope.REQUEST)
    return dishka.make_async_container(provider)


MakeContainer = Callable[[Database], object]
CONTAINERS = pytest.mark.parametrize("make", [in_punq, in_dishka])
OTHERS = pytest.mark.parametrize("other", [in_punq, in_dishka])


def app_in(container: object | None) -> Diator:
    app = Diator("rooms", broker="memory://", container=container)

    @app.command
    async def book(command: Book, rooms: Rooms, publish: Publish[Booked]) -> str:
        rooms.database.rows.append(command.room)
        publish(Booked(command.room))
        return rooms.database.name

    @app.on_event
    async def print_sign(event: Booked, rooms: Rooms) -> None:
        rooms.database.rows.append(f"sign of {event.room}")

    return app


@CONTAINERS
@OTHERS
async def test_a_container_stands_for_that_of_the_app_of_the_same_library_or_another(
    make: MakeContainer, other: MakeContainer
) -> None:
    real, fake = Database("real"), Database("fake")
    app = app_in(make(real))
    async with app.testing(container=other(fake)) as session:
        assert await session.send(Book("7")) == "fake"
        await session.settled()
    assert (fake.rows, real.rows) == (["7", "sign of 7"], [])
    assert fake.is_open is (other is in_punq)
    async with app:
        assert await app.send(Book("8")) == "real"


@CONTAINERS
async def test_each_test_may_have_a_container_of_its_own(make: MakeContainer) -> None:
    app = app_in(make(Database("real")))
    for name in ("first", "second"):
        async with app.testing(container=make(Database(name))) as session:
            assert await session.send(Book("7")) == name
            await session.settled()


async def test_an_app_without_a_container_gets_one() -> None:
    async with app_in(None).testing(container=in_punq(Database("fake"))) as session:
        assert await session.send(Book("7")) == "fake"
        await session.settled()


class Fake(Rooms):
    def __init__(self) -> None:
        super().__init__(Database("replaced"))


@CONTAINERS
async def test_what_is_replaced_wins_over_the_container_of_the_test(make: MakeContainer) -> None:
    app = app_in(make(Database("real")))
    async with app.testing(container=make(Database("fake")), replace={Rooms: Fake()}) as session:
        assert await session.send(Book("7")) == "replaced"
        await session.settled()


async def test_what_the_container_of_the_test_lacks_is_an_error_at_its_start() -> None:
    app = app_in(in_punq(Database("real")))
    with pytest.raises(ConfigurationError, match="Rooms") as found:
        async with app.testing(container=punq.Container()):
            pass
    assert {problem.code for problem in found.value.problems} == {"missing-dependency"}
    async with app:
        assert await app.send(Book("8")) == "real"


async def test_an_app_that_runs_keeps_the_container_that_it_has_opened() -> None:
    async with (app := app_in(in_punq(Database("real")))):
        with pytest.raises(
            ConfigurationError, match=r"app\.testing got a container, but <Diator 'rooms'> runs already"
        ):
            async with app.testing(container=in_punq(Database("fake"))):
                pass
        assert await app.send(Book("8")) == "real"


async def test_what_is_no_container_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no container plugin for 'punq'"):
        async with app_in(None).testing(container="punq"):
            pass
