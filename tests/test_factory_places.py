"""Problems of what a container builds name the line of its factory, and advice that can be followed."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import di
import punq
import pytest
import rodi
import svcs
from di import bind_by_type
from di.dependent import Dependent
from dishka import Provider, Scope, make_async_container

from diator import Command, Context, Diator, DomainEvent, Problem, Publish
from diator.errors import DependencyNotFoundError


@dataclass(frozen=True)
class Ordered(DomainEvent):
    pass


@dataclass(frozen=True)
class Order(Command[None]):
    pass


class Outbox:
    """Asks for what only handlers get."""

    def __init__(self, publish: Publish[Ordered]) -> None:
        self.publish = publish


class Audit:
    """The same."""

    def __init__(self, context: Context) -> None:
        self.context = context


class Orders:
    """Nested above both."""

    def __init__(self, outbox: Outbox, audit: Audit) -> None:
        self.needs = outbox, audit


SERVICES = (Outbox, Audit, Orders)


def with_punq() -> object:
    container = punq.Container()
    for cls in SERVICES:
        container.register(cls)
    return container


def with_di() -> object:
    container = di.Container()
    for cls in SERVICES:
        container.bind(bind_by_type(Dependent(cls, scope="request"), cls))
    return container


def with_dishka() -> object:
    provider = Provider(scope=Scope.REQUEST)
    for cls in SERVICES:
        provider.provide(cls)
    return make_async_container(provider, skip_validation=True)


def with_rodi() -> object:
    container: Any = rodi.Container()
    for cls in SERVICES:
        container.add_scoped(cls)
    return container


def problems_of(container: object) -> list[Problem]:
    app = Diator(container=container)

    @app.command
    async def order(command: Order, orders: Orders) -> None: ...

    @app.on_event
    async def ordered(event: Ordered) -> None: ...

    return list(app.check())


@pytest.mark.parametrize("make", [with_punq, with_di, with_dishka, with_rodi])
def test_a_service_that_asks_for_publish_or_context_is_told_with_its_line(make: Callable[[], object]) -> None:
    found = {problem.location and problem.location.line: problem for problem in problems_of(make())}
    for cls, own in ((Outbox, "Publish[Ordered]"), (Audit, "Context")):
        problem = found[inspect.getsourcelines(cls)[1]]
        assert problem.location is not None
        assert problem.location.file == __file__
        assert own.partition("[")[0] in problem.text
        assert f"take {own} as a parameter of the handler" in problem.fix
        assert cls.__name__ in problem.fix
        assert "register" not in problem.fix


def orders(services: svcs.Container) -> Any:
    return services.get(Outbox)


def test_a_warning_names_the_line_of_the_factory() -> None:
    registry: Any = svcs.Registry()
    registry.register_factory(Orders, orders)
    (warning,) = problems_of(registry)
    assert warning.severity == "warning"
    assert warning.location is not None
    assert warning.location.line == orders.__code__.co_firstlineno


async def test_a_factory_that_asks_svcs_for_a_context_is_named_when_it_runs() -> None:
    def audit(services: svcs.Container) -> Any:
        return Audit(services.get(Context))

    def above(services: svcs.Container) -> Any:
        return services.get(Audit)

    registry: Any = svcs.Registry()
    registry.register_factory(Audit, audit)
    registry.register_factory(Orders, above)
    app = Diator(container=registry)

    @app.command
    async def order(command: Order, orders: Orders) -> None: ...

    async with app:
        with pytest.raises(DependencyNotFoundError, match="only handlers and middlewares get it") as raised:
            await app.send(Order())
    assert [key.hint for key in raised.value.path] == [Orders, Audit]
