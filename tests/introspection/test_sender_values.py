"""A value that only senders bring is refused at the start wherever a worker would need it; elsewhere errors tell it."""

# pyright: reportUnknownMemberType=false
# Some methods of these libraries are not typed in full.

import asyncio
from collections.abc import AsyncIterator, Callable
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

from diator import (
    CallNext,
    Command,
    Diator,
    DomainEvent,
    Message,
    NotificationEvent,
    NotProvidedError,
    Problem,
    Publish,
    Query,
    Router,
)
from diator.containers import is_placeholder


class Tenant:
    """Only senders bring it."""


class Repo:
    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant


class Service:
    def __init__(self, repo: Repo) -> None:
        self.repo = repo


class Plain:
    """Needs nothing of a sender."""


@dataclass(frozen=True)
class Told(NotificationEvent):
    pass


@dataclass(frozen=True)
class Heard(DomainEvent):
    pass


@dataclass(frozen=True)
class Repeated(DomainEvent):
    pass


@dataclass(frozen=True)
class Go(Command[object]):
    pass


@dataclass(frozen=True)
class Rows(Query[object]):
    pass


def brought() -> Tenant:
    raise NotProvidedError("a sender brings it")


def of_punq() -> object:
    container = punq.Container()
    for cls in (Repo, Service, Plain):
        container.register(cls)
    return container


def of_dishka() -> object:
    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.from_context(Tenant)
    provider.provide_all(Repo, Service, Plain)
    return dishka.make_async_container(provider)


def of_di() -> object:
    container = di.Container()
    for cls in (Repo, Service, Plain):
        dependent: Dependent[Any] = Dependent(cls, scope="request")
        container.bind(di.bind_by_type(dependent, cls))
    return container


def of_rodi() -> object:
    container = rodi.Container().add_scoped_by_factory(brought)
    return container.add_scoped(Repo).add_scoped(Service).add_scoped(Plain)


def of_wireup() -> object:
    known = [wireup.injectable(one, lifetime="scoped") for one in (brought, Repo, Service, Plain)]
    return wireup.create_async_container(injectables=known)


def of_svcs() -> object:
    registry = svcs.Registry()
    for cls in (Repo, Service):
        registry.register_factory(cls, svcs.aautowire(cls), suppress_context_exit=False)
    registry.register_factory(Plain, Plain, suppress_context_exit=False)
    return registry


KNOWING = [of_punq, of_dishka, of_di, of_rodi, of_wireup]
"""Containers that tell what their factories need."""


def app_with(container: object = None) -> Diator:
    app = Diator("shop", broker="memory://", container=container)
    app.provides(Tenant)
    return app


def only(app: Diator) -> Problem:
    (problem,) = [problem for problem in app.check() if problem.severity == "error"]
    assert problem.code == "missing-dependency"
    assert "only senders provide Tenant, but a brokered event has no sender" in problem.text
    assert "register Tenant with the container" in problem.fix
    assert problem.location is not None
    assert problem.location.file == __file__
    return problem


# --- what asks for it itself


def test_a_handler_of_a_brokered_event() -> None:
    app = app_with()

    @app.on_event
    async def told(event: Told, tenant: Tenant) -> None: ...

    assert only(app).text.startswith("told needs Tenant: only")


def test_the_constructor_of_a_class_handler() -> None:
    app = app_with()

    @app.on_event
    class Tell:
        def __init__(self, tenant: Tenant) -> None: ...
        async def handle(self, event: Told) -> None: ...

    assert only(app).text.startswith("Tell needs Tenant")


@pytest.mark.parametrize("hint", [Message, NotificationEvent, Told])
def test_a_middleware_around_it(hint: Any) -> None:
    app = app_with()

    @app.on_event
    async def told(event: Told) -> None: ...

    async def check_tenant(message: Any, call_next: CallNext, tenant: Tenant) -> Any:
        return await call_next(message)

    check_tenant.__annotations__["message"] = hint
    app.add_middleware(check_tenant)
    problem = only(app)
    assert problem.text.startswith("check_tenant needs Tenant, and runs for told too")
    assert "annotate its message as Command[Any] or Query[Any]" in problem.fix


def test_a_middleware_of_an_included_router() -> None:
    app, router = app_with(), Router()

    @router.middleware
    async def check_tenant(message: Message, call_next: CallNext, tenant: Tenant) -> Any: ...

    @router.on_event
    async def told(event: Told) -> None: ...

    app.include(router)
    assert only(app).text.startswith("check_tenant needs Tenant")


def test_a_handler_of_a_domain_event_that_it_publishes_however_far_away() -> None:
    app = app_with()

    @app.on_event
    async def told(event: Told, publish: Publish[Heard]) -> None: ...

    @app.on_event
    async def heard(event: Heard, publish: Publish[Repeated]) -> None: ...

    @app.on_event
    async def repeated(event: DomainEvent, tenant: Tenant) -> None: ...

    @app.on_event
    class Repeat:
        events: list[Repeated]

        async def handle(self, event: Heard) -> None: ...

    assert only(app).text.startswith("repeated needs Tenant, and runs for told too")


def test_a_middleware_around_a_domain_event_that_it_publishes() -> None:
    app = app_with()

    @app.on_event
    async def told(event: Told, publish: Publish[Heard]) -> None: ...

    @app.on_event
    async def heard(event: Heard) -> None: ...

    @app.middleware
    async def around(event: DomainEvent, call_next: CallNext, tenant: Tenant) -> Any: ...

    assert only(app).text.startswith("around needs Tenant, and runs for told too")


def test_what_is_only_sent_or_has_a_default_may_ask_for_it() -> None:
    app = app_with()

    @app.on_event
    async def told(event: Told, tenant: Tenant | None = None) -> None: ...

    @app.command
    async def go(command: Go, publish: Publish[Heard | Told], tenant: Tenant) -> object: ...

    @app.on_event
    async def heard(event: Heard, tenant: Tenant) -> None: ...

    @app.middleware
    async def around(command: Command[Any], call_next: CallNext, tenant: Tenant) -> Any: ...

    @app.middleware
    async def around_domain_events(event: DomainEvent, call_next: CallNext, tenant: Tenant) -> Any: ...

    assert app.check() == []


# --- what asks the container for something that needs it


@pytest.mark.parametrize("container", KNOWING)
@pytest.mark.parametrize("service", [Repo, Service])
def test_a_service_of_the_container_however_deep(container: Callable[[], object], service: Any) -> None:
    app = app_with(container())

    async def told(event: Told, needed: Any) -> None: ...

    told.__annotations__["needed"] = service
    app.add_event_handler(told)
    assert only(app).text.startswith(f"told needs {service.__qualname__}, which needs Tenant: only")


@pytest.mark.parametrize("container", KNOWING)
def test_a_service_that_the_constructor_of_a_class_handler_takes(container: Callable[[], object]) -> None:
    app = app_with(container())

    @app.on_event
    class Tell:
        def __init__(self, service: Service) -> None: ...
        async def handle(self, event: Told) -> None: ...

    assert only(app).text.startswith("Tell needs Service, which needs Tenant")


@pytest.mark.parametrize("container", KNOWING)
def test_a_service_that_a_middleware_or_a_domain_event_needs(container: Callable[[], object]) -> None:
    app = app_with(container())

    @app.on_event
    async def told(event: Told, publish: Publish[Heard]) -> None: ...

    @app.on_event
    async def heard(event: Heard, service: Service) -> None: ...

    @app.middleware(inside=True)
    async def around(message: NotificationEvent, call_next: CallNext, repo: Repo) -> Any: ...

    assert {problem.text.partition(", and runs for told too")[0] for problem in app.check()} == {
        "around needs Repo, which needs Tenant",
        "heard needs Service, which needs Tenant",
    }


@pytest.mark.parametrize("container", KNOWING)
def test_a_handler_class_that_the_container_builds(container: Callable[[], object]) -> None:
    app = app_with(container())
    app.add_event_handler(Telling)
    assert "Repo" in only(app).text


class Telling:
    def __init__(self, repo: Repo) -> None: ...
    async def handle(self, event: Told) -> None: ...


@pytest.mark.parametrize("container", KNOWING)
def test_a_service_that_needs_nothing_of_a_sender_is_fine(container: Callable[[], object]) -> None:
    app = app_with(container())

    @app.on_event
    async def told(event: Told, plain: Plain) -> None: ...

    @app.command
    async def go(command: Go, service: Service, plain: Plain) -> object: ...

    assert app.check() == []


def test_a_container_that_can_not_tell_is_warned_of() -> None:
    app = app_with(of_svcs())

    @app.on_event
    async def told(event: Told, repo: Repo) -> None: ...

    @app.on_event
    async def plainly_told(event: Told, plain: Plain) -> None: ...

    assert all(problem.severity == "warning" for problem in app.check())
    (warning,) = [problem for problem in app.check() if problem.code == "missing-dependency"]
    assert warning.text.startswith("told needs Repo")
    assert "can't tell whether that depends on Tenant, which only senders provide" in warning.text
    assert warning.location is not None


def test_what_a_test_puts_in_its_place_is_not_missing() -> None:
    app, seen = app_with(of_dishka()), list[object]()

    @app.on_event
    async def told(event: Told, repo: Repo) -> None:
        seen.append(repo.tenant)

    async def main() -> None:
        async with app.testing(replace={Tenant: (tenant := Tenant())}) as session:
            await session.publish(Told())
            await session.settled()
            assert seen == [tenant]

    asyncio.run(main())


# --- where a sender could have brought it, the error says so


@pytest.mark.parametrize("container", [*KNOWING, of_svcs])
def test_who_sends_without_it_is_told(container: Callable[[], object]) -> None:
    app = app_with(container())

    @app.command
    async def go(command: Go, service: Service) -> object:
        return service.repo.tenant

    @app.query
    async def rows(query: Rows, service: Service) -> AsyncIterator[object]:
        yield service.repo.tenant

    @app.on_event
    async def heard(event: Heard, service: Service) -> None: ...

    tenant = Tenant()

    async def read() -> list[object]:
        async with app.using(provide={Tenant: tenant}).stream(Rows()) as found:
            return [row async for row in found]

    async def main() -> None:
        async with app:
            with pytest.raises(NotProvidedError, match=r"Tenant.*app\.using\(provide=\{Tenant: \.\.\.\}\)"):
                await app.send(Go())
            with pytest.raises(NotProvidedError, match=r"Tenant.*app\.using\(provide=\{Tenant: \.\.\.\}\)"):
                await app.publish(Heard())
            with pytest.raises(NotProvidedError, match=r"Tenant.*app\.using\(provide=\{Tenant: \.\.\.\}\)"):
                async with app.stream(Rows()):
                    pass
            sender = app.using(provide={Tenant: tenant})
            assert await sender.send(Go()) is tenant
            await sender.publish(Heard())
            assert await read() == [tenant]

    asyncio.run(main())


def test_the_error_names_the_events_and_the_verb() -> None:
    app = app_with()

    @app.query
    async def rows(query: Rows, tenant: Tenant) -> AsyncIterator[object]:
        yield tenant

    @app.on_event
    async def heard(event: Heard, tenant: Tenant) -> None: ...

    async def main() -> None:
        async with app:
            with pytest.raises(
                NotProvidedError, match=r"^Heard needs Tenant from its sender: await app.using.*publish"
            ):
                await app.publish(Heard())
            with pytest.raises(NotProvidedError, match=r"^Rows needs Tenant .* async with app.using.*stream\(...\) as"):
                app.stream(Rows())

    asyncio.run(main())


async def brought_later() -> Tenant:
    raise NotProvidedError("later")


def sometimes_brought(*, known: bool = False) -> Tenant:
    if known:
        return Tenant()
    raise NotProvidedError("unknown")


def failing() -> Tenant:
    raise LookupError("no database")


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (brought, True),
        (brought_later, True),
        (sometimes_brought, False),
        (failing, False),
        (Tenant, False),
        (len, False),
    ],
)
def test_a_placeholder_only_says_that_a_sender_brings_it(factory: object, expected: bool) -> None:
    assert is_placeholder(factory) is expected
