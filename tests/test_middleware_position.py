"""Where a middleware runs is what its registration says, and nothing else."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import di
import dishka
import punq
import pytest
import rodi
import svcs
import wireup
from di.dependent import Dependent

from diator import CallNext, Command, ConfigurationError, Context, Diator, DomainEvent, Message, Publish, Query
from diator.errors import CallNextError
from tests.journal import Journal, Session


class Clock:
    """A singleton."""


class Cart:
    """Lives in a scope."""


@dataclass(frozen=True)
class Buy(Command[str]):
    pass


@dataclass(frozen=True)
class Bought(DomainEvent):
    pass


@dataclass(frozen=True)
class Rows(Query[int]):
    pass


def of_punq() -> object:
    container = punq.Container()
    container.register(Clock, scope=punq.Scope.singleton)
    container.register(Cart)
    return container


def of_dishka() -> object:
    provider = dishka.Provider()
    provider.provide(Clock, scope=dishka.Scope.APP)
    provider.provide(Cart, scope=dishka.Scope.REQUEST)
    return dishka.make_async_container(provider)


def of_di() -> object:
    container = di.Container()
    container.bind(di.bind_by_type(Dependent(Clock, scope="app"), Clock))
    container.bind(di.bind_by_type(Dependent(Cart, scope="request"), Cart))
    return container


def of_rodi() -> object:
    container: Any = rodi.Container()  # its methods have types that are partly unknown
    return container.add_singleton(Clock).add_scoped(Cart)


def of_wireup() -> object:
    known = [wireup.injectable(Clock), wireup.injectable(Cart, lifetime="scoped")]
    return wireup.create_async_container(injectables=known)


def of_svcs() -> object:
    registry: Any = svcs.Registry()
    registry.register_value(Clock, Clock())
    registry.register_factory(Cart, Cart, suppress_context_exit=False)
    return registry


CONTAINERS = [of_punq, of_dishka, of_di, of_rodi, of_wireup, of_svcs]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_an_outer_middleware_may_have_singletons(container: Callable[[], object]) -> None:
    app = Diator(container=container())
    clocks: list[Clock] = []

    @app.middleware
    async def timed(command: Buy, call_next: CallNext, clock: Clock) -> Any:
        clocks.append(clock)
        await call_next(command)
        return await call_next(command)  # only outside the unit of work

    @app.command
    async def buy(command: Buy, clock: Clock) -> str:
        clocks.append(clock)
        return "bought"

    async with app:
        assert await app.send(Buy()) == "bought"
        assert await app.send(Buy()) == "bought"
    assert len(clocks) == 6
    assert len(set(map(id, clocks))) == 1


@pytest.mark.parametrize("container", CONTAINERS)
def test_an_outer_middleware_can_not_have_what_lives_in_a_unit_of_work(container: Callable[[], object]) -> None:
    app = Diator(container=container())

    @app.middleware
    async def carried(command: Buy, call_next: CallNext, cart: Cart) -> Any: ...

    @app.command
    async def buy(command: Buy) -> str:
        return "bought"

    (problem,) = [problem for problem in app.check() if problem.severity == "error"]
    assert problem.code == "outer-middleware"
    assert "carried runs outside the unit of work, so it can't use Cart" in problem.text
    assert "@app.middleware(inside=True)" in problem.fix
    assert problem.location is not None
    assert problem.location.file.endswith("test_middleware_position.py")


def journaled() -> tuple[Diator, Journal]:
    journal = Journal()
    app = Diator(container=journal)

    @app.command
    async def buy(command: Buy, session: Session, publish: Publish[Bought]) -> str:
        journal.write("handler")
        publish(Bought())
        return "bought"

    @app.on_event
    async def bought(event: Bought, session: Session) -> None:
        journal.write("event handler")

    return app, journal


async def test_one_without_dependencies_runs_inside_if_it_says_so() -> None:
    app, journal = journaled()

    @app.middleware(inside=True)
    async def inside(command: Command[Any], call_next: CallNext) -> Any:
        journal.write("inside")
        return await call_next(command)

    async with app:
        await app.send(Buy())
    assert journal.lines[:4] == ["scope 1 opens", "inside", "handler", "event handler"]


async def test_one_with_values_of_the_sender_runs_outside_unless_it_says_otherwise() -> None:
    app, journal = journaled()
    app.provides(int)

    @app.middleware
    async def outside(command: Command[Any], call_next: CallNext, number: int, context: Context) -> Any:
        journal.write(f"outside {number}")
        return await call_next(command)

    async with app:
        await app.using(provide={int: 7}).send(Buy())
    assert journal.lines[:2] == ["outside 7", "scope 1 opens"]


async def test_an_inner_one_calls_on_once() -> None:
    app, _ = journaled()

    @app.middleware(inside=True)
    async def twice(command: Command[Any], call_next: CallNext) -> Any:
        await call_next(command)
        return await call_next(command)

    async with app:
        with pytest.raises(CallNextError, match="register it without inside=True"):
            await app.send(Buy())


async def test_around_domain_events_every_one_runs_in_the_unit_of_work_of_the_command() -> None:
    app, journal = journaled()

    @app.middleware
    async def around(event: DomainEvent, call_next: CallNext) -> Any:
        journal.write("around")
        return await call_next(event)

    async with app:
        await app.send(Buy())
    assert journal.lines[:5] == ["scope 1 opens", "handler", "around", "event handler", "scope 1 closes"]


async def test_around_a_stream_an_inner_one_runs_in_its_scope() -> None:
    app, journal = journaled()

    @app.middleware(inside=True)
    async def inside(message: Message, call_next: CallNext) -> Any:
        journal.write("inside")
        return await call_next(message)

    @app.middleware
    async def outside(message: Message, call_next: CallNext) -> Any:
        journal.write("outside")
        return await call_next(message)

    @app.query
    async def rows(query: Rows, session: Session) -> AsyncGenerator[int]:
        yield session.number

    async with app, app.stream(Rows()) as found:
        assert [row async for row in found] == [1]
    assert journal.lines == ["outside", "scope 1 opens", "inside", "scope 1 closes", "container closed"]


async def test_a_singleton_is_asked_for_again_after_the_app_has_started_again() -> None:
    class Singletons(Journal):
        def lifetime(self, key: Any, /) -> Any:
            from diator.containers import Lifetime

            return Lifetime.SINGLETON

    journal = Singletons()
    app = Diator(container=journal)
    numbers: list[int] = []

    @app.middleware
    async def outside(command: Buy, call_next: CallNext, session: Session) -> Any:
        numbers.append(session.number)
        return await call_next(command)

    @app.command
    async def buy(command: Buy) -> str:
        return "bought"

    for _ in range(2):
        async with app:
            await app.send(Buy())
            await app.send(Buy())
    assert numbers == [1, 1, 2, 2]


def test_a_position_that_is_no_flag_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="inside=5"):
        Diator().middleware(inside=5)(print)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]  # wrong on purpose
