"""What the rodi plugin gives, and how it lives with the container that it was given."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NewType

import pytest
import rodi
from diator_rodi import RodiContainer

from diator import CallNext, Command, ConfigurationError, Diator, Message, Named
from diator.containers import Key, Lifetime
from diator.errors import (
    ContainerError,
    DependencyNotFoundError,
    ScopeClosedError,
    UnsupportedRegistrationError,
)

# pyright: reportUnknownMemberType=false
# rodi's own hints leave out the arguments of types.


@dataclass(frozen=True)
class Ask(Command[object]):
    pass


@dataclass(frozen=True)
class AskAgain(Command[object]):
    pass


class Clock:
    pass


class LocalClock(Clock):
    pass


class Repository:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock


class User:
    pass


class Greeting:
    def __init__(self, user: User) -> None:
        self.user = user


def answering(native: rodi.Container, handler: Callable[..., Any]) -> Diator:
    app = Diator(container=native)
    app.add_command(handler)
    return app


async def give_clock(_: Ask, clock: Clock) -> object:
    return clock


async def ask(app: Diator) -> object:
    async with app:
        return await app.send(Ask())


# What is registered


async def test_a_native_container_is_all_that_an_app_needs() -> None:
    async def answer(_: Ask, repository: Repository) -> object:
        return repository.clock

    native = rodi.Container().add_scoped(Clock).add_scoped(Repository)
    assert isinstance(await ask(answering(native, answer)), Clock)


async def test_a_scoped_object_is_one_for_each_command_and_what_it_needs() -> None:
    async def answer(_: Ask, repository: Repository, clock: Clock) -> object:
        return repository.clock, clock

    async with answering(rodi.Container().add_scoped(Clock).add_transient(Repository), answer) as app:
        first: Any = await app.send(Ask())
        second: Any = await app.send(Ask())
    assert first[0] is first[1]
    assert second[0] is second[1]
    assert first[0] is not second[0]


@pytest.mark.parametrize("registered", [True, False])
async def test_a_handler_class_is_built_by_rodi_if_it_is_registered_and_by_diator_if_not(registered: bool) -> None:
    class Answer:
        builder = "Diator"

        def __init__(self, clock: Clock) -> None:
            self.clock = clock

        async def handle(self, _: Ask) -> object:
            return self.builder

    def answer_of_rodi(scope: rodi.ActivationScope) -> Answer:
        answer = Answer(scope.get(Clock))
        answer.builder = "rodi"
        return answer

    native = rodi.Container().add_singleton(Clock)
    if registered:
        native.add_transient_by_factory(answer_of_rodi)
    assert await ask(answering(native, Answer)) == ("rodi" if registered else "Diator")


async def test_a_qualified_provider_is_registered_as_the_handler_writes_it() -> None:
    plain, local = Clock(), Clock()
    qualified: Any = Annotated[Clock, Named("local")]

    async def answer(_: Ask, one: Clock, other: Annotated[Clock, Named("local")]) -> object:
        return one, other

    native = rodi.Container().register(Clock, instance=plain).register(qualified, instance=local)
    assert await ask(answering(native, answer)) == (plain, local)


@pytest.mark.parametrize("name", ["clock", "timer"])
async def test_an_alias_stands_for_a_hint_as_in_rodi(name: str) -> None:
    class Inferred:
        def __init__(self, clock) -> None:  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]  # no hint, on purpose
            self.clock: Any = clock

    class Set:
        def __init__(self, timer) -> None:  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]  # no hint, on purpose
            self.clock: Any = timer

    cls = Inferred if name == "clock" else Set
    container = RodiContainer(rodi.Container().add_scoped(Clock).add_scoped(cls).set_alias("timer", Clock))
    assert not container.validate([Key(cls)], ()).errors
    async with container.scope({}) as scope:
        assert (await scope.resolve(Key(cls))).clock is await scope.resolve(Key(Clock))


async def test_class_level_annotations_are_filled_as_in_rodi() -> None:
    class Report:
        clock: Clock

        def __init__(self, repository: Repository) -> None:
            self.repository = repository

    container = RodiContainer(rodi.Container().add_scoped(Clock).add_scoped(Repository).add_scoped(Report))
    assert not container.validate([Key(Report)], ()).errors
    async with container.scope({}) as scope:
        report = await scope.resolve(Key(Report))
    assert report.clock is report.repository.clock


async def test_a_factory_is_given_the_scope_of_the_unit_of_work() -> None:
    def repository(scope: rodi.ActivationScope) -> Repository:
        return Repository(scope.get(Clock))

    async def answer(_: Ask, repository: Repository, clock: Clock) -> object:
        return repository.clock is clock

    native = rodi.Container().add_scoped(Clock).add_transient_by_factory(repository)
    assert await ask(answering(native, answer)) is True


async def test_what_a_factory_asks_of_the_scope_in_vain_is_an_error_of_the_container() -> None:
    def repository(scope: rodi.ActivationScope) -> Repository:
        return Repository(scope.get(Clock))

    async with RodiContainer(rodi.Container().add_scoped_by_factory(repository)).scope({}) as scope:
        with pytest.raises(ContainerError, match=r"Repository could not be built.*Clock") as raised:
            await scope.resolve(Key(Repository))
    assert isinstance(raised.value.__cause__, rodi.CannotResolveTypeException)


class Logged(Clock):
    def __init__(self, inner: Clock) -> None:
        self.inner = inner


async def test_a_decorated_object_is_given_with_its_decorator_every_time() -> None:
    container = RodiContainer(rodi.Container().add_scoped(Clock).decorate(Clock, Logged))
    assert not container.validate([Key(Clock)], ()).errors
    async with container.scope({}) as scope:
        first = await scope.resolve(Key(Clock))
        assert isinstance(first, Logged)
        assert await scope.resolve(Key(Clock)) is first


async def test_a_scoped_class_that_is_registered_by_itself_too_is_one_object_as_in_rodi() -> None:
    container = RodiContainer(rodi.Container().add_scoped(Clock, LocalClock).add_scoped(LocalClock))
    assert not container.validate([Key(Clock), Key(LocalClock)], ()).errors
    async with container.scope({}) as scope:
        assert await scope.resolve(Key(Clock)) is await scope.resolve(Key(LocalClock))


class Rows(list[int]):
    def __bool__(self) -> bool:
        raise ValueError("ask whether it is None")


async def test_the_truth_of_a_scoped_object_is_not_asked_for() -> None:
    async with RodiContainer(rodi.Container().add_scoped(Rows)).scope({}) as scope:
        assert await scope.resolve(Key(Rows)) is await scope.resolve(Key(Rows))


# Values that senders provide


def nobody() -> User:
    raise LookupError("no user was provided")


def greeted(native: rodi.Container) -> Diator:
    async def answer(_: Ask, greeting: Greeting) -> object:
        return greeting.user

    app = answering(native, answer)
    app.provides(User)
    return app


async def test_what_a_sender_provides_reaches_constructors_and_no_other_command() -> None:
    async with greeted(rodi.Container().add_scoped(Greeting).add_scoped_by_factory(nobody)) as app:
        user = User()
        assert await app.using(provide={User: user}).send(Ask()) is user
        with pytest.raises(LookupError, match="no user was provided"):
            await app.send(Ask())


async def test_a_provided_value_takes_the_place_of_what_rodi_builds() -> None:
    async with greeted(rodi.Container().add_scoped(Greeting).add_scoped(User)) as app:
        user = User()
        assert await app.using(provide={User: user}).send(Ask()) is user
        assert await app.send(Ask()) is not user


Limit = NewType("Limit", int)


@pytest.mark.parametrize("registered", [True, False])
async def test_a_provided_value_may_be_false(registered: bool) -> None:
    native = rodi.Container()
    hint: Any = Limit
    if registered:
        native.register_factory(lambda: 5, hint, rodi.ServiceLifeStyle.SCOPED)
    async with RodiContainer(native).scope({Key(Limit): 0}) as scope:
        assert await scope.resolve(Key(Limit)) == 0


async def test_a_provided_value_is_not_taken_for_another_key_with_the_same_class() -> None:
    container = RodiContainer(rodi.Container().add_scoped(Clock, LocalClock))
    provided = LocalClock()
    async with container.scope({Key(LocalClock): provided}) as scope:
        assert await scope.resolve(Key(LocalClock)) is provided
        assert await scope.resolve(Key(Clock)) is not provided


# Singletons, and the life of the container


async def test_singletons_are_those_that_the_container_gives_elsewhere() -> None:
    native = rodi.Container().add_singleton(Clock)
    async with answering(native, give_clock) as app:
        assert await app.send(Ask()) is native.resolve(Clock)


async def test_singletons_are_built_anew_when_an_app_runs_again_and_instances_stay() -> None:
    user = User()

    async def answer(_: Ask, clock: Clock, user: User) -> object:
        return clock, user

    app = answering(rodi.Container().add_singleton(Clock).add_instance(user), answer)
    async with app:
        first: Any = await app.send(Ask())
        assert await app.send(Ask()) == first
    second: Any = await ask(app)
    assert second[0] is not first[0]
    assert second[1] is first[1] is user


def test_an_instance_is_a_singleton() -> None:
    assert RodiContainer(rodi.Container().add_instance(User())).lifetime(Key(User)) is Lifetime.SINGLETON


async def test_what_is_registered_between_the_start_and_the_first_message_counts() -> None:
    native = rodi.Container().add_singleton(Clock)

    def user(scope: rodi.ActivationScope) -> User:
        return scope.get(Registered)

    class Registered(User):
        pass

    async def answer(_: Ask, user: User, clock: Clock) -> object:
        return user, clock

    async with answering(native.add_scoped_by_factory(user), answer) as app:
        native.add_scoped(Registered)
        given: Any = await app.send(Ask())
    assert isinstance(given[0], Registered)


async def test_what_is_registered_between_the_start_and_the_first_message_is_checked() -> None:
    native = rodi.Container().add_singleton(Clock)
    async with answering(native, give_clock) as app:
        native.add_scoped(Greeting)
        with pytest.raises(DependencyNotFoundError, match="User, needed by Greeting"):
            await app.send(Ask())


@pytest.mark.parametrize("checked", [True, False])
async def test_what_is_registered_while_the_app_runs_is_refused(checked: bool) -> None:
    native = rodi.Container().add_singleton(Clock)
    app = answering(native, give_clock)
    async with app:
        first = await app.send(Ask())
        native.add_scoped(User)
        if checked:
            assert app.check() == []
        for _ in range(2):
            with pytest.raises(
                UnsupportedRegistrationError, match="before the app handles its first message"
            ) as raised:
                await app.send(Ask())
            assert raised.value.key == Key(User)
    async with app:
        assert await app.send(Ask()) is not first


async def test_a_decorator_that_comes_while_the_app_runs_is_refused() -> None:
    native = rodi.Container().add_scoped(Clock)
    async with answering(native, give_clock) as app:
        await app.send(Ask())
        native.decorate(Clock, Logged)
        with pytest.raises(UnsupportedRegistrationError, match=r"Clock: .*decorated while the app was running"):
            await app.send(Ask())


async def test_an_app_goes_on_with_its_singletons_after_another_one_has_closed_the_container() -> None:
    native = rodi.Container().add_singleton(Clock)
    async with answering(native, give_clock) as app:
        clock = await app.send(Ask())
        assert await ask(answering(native, give_clock)) is clock
        assert await app.send(Ask()) is clock
        assert native.resolve(Clock) is clock


def test_a_container_with_scopes_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="leave scope_cls out"):
        Diator(container=rodi.Container(scope_cls=rodi.TrackingActivationScope))
    assert Diator(container=rodi.Container(scope_cls=rodi.ActivationScope)).check() == []


async def test_a_scope_that_was_left_gives_nothing_to_factories_either() -> None:
    scopes: list[rodi.ActivationScope] = []

    def clock(scope: rodi.ActivationScope) -> Clock:
        scopes.append(scope)
        return Clock()

    container = RodiContainer(rodi.Container().add_scoped_by_factory(clock))
    async with container.scope({}) as scope:
        await scope.resolve(Key(Clock))
    with pytest.raises(ScopeClosedError):
        await scope.resolve(Key(Clock))
    with pytest.raises(TypeError, match="disposed"):
        scopes[0].get(Clock)


# Scopes under concurrency


async def test_commands_that_run_together_have_objects_of_their_own() -> None:
    arrived: list[Clock] = []
    all_there = asyncio.Event()

    async def answer(_: Ask, clock: Clock, repository: Repository) -> object:
        arrived.append(clock)
        if len(arrived) == 5:
            all_there.set()
        await all_there.wait()
        return repository.clock is clock

    async with answering(rodi.Container().add_scoped(Clock).add_scoped(Repository), answer) as app:
        together = asyncio.gather(*(app.send(Ask()) for _ in range(5)))
        assert all(await asyncio.wait_for(together, 5))
    assert len(set(map(id, arrived))) == 5


async def test_a_nested_command_has_objects_of_its_own() -> None:
    async def outer(_: Ask, app: Diator, clock: Clock) -> object:
        return clock, await app.send(AskAgain()), await asyncio.create_task(app.send(AskAgain()))

    async def inner(_: AskAgain, clock: Clock) -> object:
        return clock

    app = answering(rodi.Container().add_scoped(Clock), outer)
    app.add_command(inner)
    clocks: Any = await ask(app)
    assert len(set(map(id, clocks))) == 3


async def test_a_cancelled_command_leaves_its_scope_and_no_other() -> None:
    scopes: list[rodi.ActivationScope] = []
    waiting = asyncio.Event()

    def clock(scope: rodi.ActivationScope) -> Clock:
        scopes.append(scope)
        return Clock()

    async def wait(_: Ask, clock: Clock) -> None:
        if len(scopes) == 2:
            waiting.set()
        await asyncio.Event().wait()

    async with answering(rodi.Container().add_scoped_by_factory(clock), wait) as app:
        first, second = (asyncio.create_task(app.send(Ask())) for _ in range(2))
        await asyncio.wait_for(waiting.wait(), 5)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(TypeError, match="disposed"):
            scopes[0].get(Clock)
        assert isinstance(scopes[1].get(Clock), Clock)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second


class Session:
    def __init__(self) -> None:
        self.log = ["opened"]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_middleware_closes_what_rodi_does_not(cancelled: bool) -> None:
    sessions: list[Session] = []
    working = asyncio.Event()

    async def transaction(message: Message, call_next: CallNext, session: Session) -> Any:
        sessions.append(session)
        try:
            result = await call_next(message)
            session.log.append("committed")
        finally:
            await asyncio.sleep(0)
            session.log.append("closed")
        return result

    async def work(_: Ask, session: Session) -> None:
        assert session is sessions[0]
        working.set()
        if cancelled:
            await asyncio.Event().wait()
        raise ValueError("failed")

    app = answering(rodi.Container().add_scoped(Session), work)
    app.add_middleware(transaction, inside=True)
    async with app:
        task = asyncio.create_task(app.send(Ask()))
        await asyncio.wait_for(working.wait(), 5)
        if cancelled:
            task.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else ValueError):
            await task
    assert sessions[0].log == ["opened", "closed"]
