"""What users write, and what type checkers must make of it. Never run: mypy and pyright read it, strictly."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Generic, TypeVar

import attrs
import msgspec
import punq
import pydantic
from typing_extensions import assert_type

from diator import (
    CallNext,
    Command,
    Context,
    Diator,
    DomainEvent,
    ECSTEvent,
    Event,
    LoggingMiddleware,
    Message,
    Named,
    NotificationEvent,
    Problem,
    Publish,
    Query,
    Request,
    Retry,
    Router,
    Sender,
    contract,
)
from diator.containers import Container
from diator.delivery.worker import Worker
from diator.engine.registrations import Registration
from diator.testing import FakePublish

X = TypeVar("X")


@dataclass(frozen=True)
class Meeting:
    id: int


class SpecialMeeting(Meeting): ...


@dataclass(frozen=True, kw_only=True)
class JoinMeeting(Command[Meeting]):
    id: int = 1


@attrs.frozen
class LeaveMeeting(Command[None]):
    id: int


class ListMeetings(pydantic.BaseModel, Query[list[Meeting]]):
    limit: int = 10


class FindMeeting(Query[Meeting | None], msgspec.Struct, frozen=True):
    id: int


@dataclass(frozen=True, slots=True)
class GetById(Query[X], Generic[X]):
    type: type[X]
    id: int


@dataclass(frozen=True)
class Joined(DomainEvent):
    id: int


@dataclass(frozen=True)
class Warned(DomainEvent):
    id: int


@contract("meetings.told", version=2, key="id", aliases=("told",), topic="meetings")
@dataclass(frozen=True)
class Told(NotificationEvent):
    id: int


@contract("meetings.state")
class State(pydantic.BaseModel, ECSTEvent):
    id: int


assert_type(Told(1), Told)
assert_type(Told(1).id, int)


class Repo: ...


class User: ...


app = Diator("meetings")
router = Router()

# --- the app, its container, and what it says about itself

Diator()
Diator(container=punq.Container())


def with_container(container: Container) -> Diator:
    return Diator("meetings", container=container)


app.include(router)
app.publishes(Joined, Told)
app.provides(User, Annotated[str, Named("tenant")])
assert_type(app.check(), list[Problem])
assert_type(app.requests[JoinMeeting], Registration)
assert_type(app.events[Joined], tuple[Registration, ...])
for request in app.requests:
    assert_type(request, type[Request[object]])
for event in app.events:
    assert_type(event, type[Event])


# --- bare, function: the signature is kept, with its dependencies


@app.command
async def join(command: JoinMeeting, repo: Repo, *, retries: int = 3) -> Meeting:
    return Meeting(command.id)


@app.command
def leave(command: LeaveMeeting, context: Context, app: Diator) -> None: ...


@router.query
def list_meetings(query: ListMeetings, repo: Annotated[Repo, Named("readonly")]) -> list[Meeting]:
    return []


async def call_handlers() -> None:
    assert_type(await join(JoinMeeting(), Repo(), retries=1), Meeting)
    assert_type(await join(JoinMeeting(), repo=Repo()), Meeting)
    assert_type(list_meetings(ListMeetings(), Repo()), list[Meeting])
    assert_type(await join_to_message(JoinMeeting(), Repo()), Meeting)
    assert_type(await join_with_options(JoinMeeting(), Repo()), Meeting)
    assert_type(await find(FindMeeting(1), Repo()), Meeting | None)


# --- with the message: the result is checked too; a narrower one is fine, and so is a wider parameter


@app.command(JoinMeeting)
async def join_to_message(command: JoinMeeting, repo: Repo) -> Meeting:
    return Meeting(command.id)


@app.command(JoinMeeting, timeout=3.0, thread=True)
def join_narrower(command: JoinMeeting) -> SpecialMeeting:
    return SpecialMeeting(command.id)


@app.command(LeaveMeeting)
async def leave_wider(command: LeaveMeeting | JoinMeeting) -> None: ...


@app.query(FindMeeting)
async def find(query: FindMeeting, repo: Repo) -> Meeting | None:
    return None


@app.query(FindMeeting)
async def find_always(query: FindMeeting) -> Meeting:
    return Meeting(1)


@app.query(GetById[Meeting])
async def get_meeting(query: GetById[Meeting]) -> Meeting:
    return Meeting(query.id)


# --- with options


@app.command(timeout=1.0)
async def join_with_options(command: JoinMeeting, repo: Repo) -> Meeting:
    return Meeting(command.id)


@app.command()
async def join_with_nothing(command: JoinMeeting) -> Meeting:
    return Meeting(command.id)


@app.query(thread=True)
def list_in_thread(query: ListMeetings) -> list[Meeting]:
    return []


# --- classes stay classes


@app.command
class JoinHandler:
    def __init__(self, repo: Repo) -> None:
        self.repo = repo

    async def handle(self, command: JoinMeeting) -> Meeting:
        return Meeting(command.id)


@app.command(JoinMeeting)
@dataclass
class JoinDataclass:
    repo: Repo

    def handle(self, command: JoinMeeting) -> Meeting:
        return Meeting(command.id)


@app.command(timeout=2)
class JoinWithOptions:
    async def handle(self, command: JoinMeeting) -> Meeting:
        return Meeting(command.id)


@app.command
class JoinAsking:
    async def handle(self, command: JoinMeeting, repo: Repo, *, retries: int = 3) -> Meeting:
        return Meeting(command.id)


@app.command(JoinMeeting)
class JoinAskingToMessage:
    def handle(self, command: JoinMeeting, repo: Repo) -> Meeting:
        return Meeting(command.id)


@app.query(FindMeeting)
class FindHandler:
    async def handle(self, query: FindMeeting) -> Meeting | None:
        return None


@app.query
class FindBare:
    def handle(self, query: FindMeeting) -> Meeting | None:
        return None


@app.command
class JoinWithEvents:
    """The form of version 0.1."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    @property
    def events(self) -> list[Event]:
        return self._events

    async def handle(self, command: JoinMeeting) -> Meeting:
        return Meeting(command.id)


class JoinDerived(JoinHandler): ...


async def use_classes(handler: JoinHandler) -> None:
    assert_type(handler.repo, Repo)
    assert_type(JoinHandler(Repo()), JoinHandler)
    assert_type(JoinDataclass(repo=Repo()).repo, Repo)
    assert_type(await JoinHandler(Repo()).handle(JoinMeeting()), Meeting)
    assert_type(JoinWithEvents().events, list[Event])


# --- bound methods, and the explicit form


class Service:
    async def join(self, command: JoinMeeting) -> Meeting:
        return Meeting(command.id)

    async def hear(self, event: Joined) -> None: ...


service = Service()
app.command(service.join)
app.command(JoinMeeting)(service.join)
app.on_event(service.hear)
app.add_command(service.join)
app.add_command(join, JoinMeeting, timeout=1.0, thread=False)
app.add_query(find, FindMeeting)
app.add_event_handler(service.hear, Joined, thread=False)


# --- events


@app.on_event
async def joined(event: Joined, repo: Repo) -> None: ...


@app.on_event
def joined_sync(event: Joined) -> None: ...


@router.on_event
async def either(event: Joined | Warned, publish: Publish[Warned]) -> None: ...


@app.on_event
async def everything(event: DomainEvent) -> None: ...


@app.on_event(Joined)
async def joined_to_event(event: Joined, repo: Repo) -> None: ...


@app.on_event(Joined)
async def joined_wider(event: Event) -> None: ...


@app.on_event(Joined, thread=True)
def joined_in_thread(event: Joined) -> None: ...


@app.on_event(subscription="billing.bill", retry=Retry(attempts=3), concurrency=2, timeout=5.0, ordered=False)
async def bill(event: Joined) -> None: ...


@app.on_event(Joined, delivery="at-most-once")
def shout(event: Joined) -> None: ...


assert_type(app.worker(subscriptions=["billing.bill"], grace=1.0), Worker)


@app.on_event(thread=True)
def joined_with_options(event: Joined) -> None: ...


@app.on_event
class JoinedHandler:
    async def handle(self, event: Joined) -> None: ...


@app.on_event
class JoinedAsking:
    async def handle(self, event: Joined, repo: Repo) -> None: ...


@app.on_event(Joined)
class JoinedSyncHandler:
    def handle(self, event: Joined) -> None: ...


assert_type(JoinedHandler(), JoinedHandler)


async def call_event_handlers() -> None:
    await joined(Joined(1), Repo())
    await joined(Joined(1), repo=Repo())
    await either(Warned(1), FakePublish())


# --- publishing: a collector of more fits where less is raised


@app.command
async def publishes(command: JoinMeeting, publish: Publish[Joined | Warned]) -> Meeting:
    publish(Joined(1))
    publish(Warned(1), after=timedelta(minutes=1), headers={"X-Tenant": "t"})
    return Meeting(1)


def narrower(publish: Publish[Joined]) -> None:
    assert_type(publish(Joined(1)), str | None)


async def ids(publish: Publish[Joined | Told]) -> bool:
    message_id = publish(Told(1), after=60)
    assert_type(message_id, str)
    return await publish.cancel(message_id)


async def test_of_a_handler(everything: Publish[Event]) -> None:
    assert_type(await publishes(JoinMeeting(), FakePublish()), Meeting)
    narrower(everything)


# --- streams


class Rows(Query[Meeting]): ...


@app.query
async def rows(query: Rows, repo: Repo) -> AsyncIterator[Meeting]:
    yield Meeting(1)


@app.query(Rows)
async def rows_to_query(query: Rows) -> AsyncIterator[SpecialMeeting]:
    yield SpecialMeeting(1)


@app.query(Rows)
class RowsHandler:
    async def handle(self, query: Rows) -> AsyncIterator[Meeting]:
        yield Meeting(1)


@app.query(Rows)
class RowsAsking:
    async def handle(self, query: Rows, repo: Repo) -> AsyncIterator[Meeting]:
        yield Meeting(1)


# --- middlewares


@app.middleware
async def around_everything(message: Message, call_next: CallNext) -> Any:
    return await call_next(message)


@app.middleware(inside=True)
async def around_commands(message: Command[Any], call_next: CallNext, repo: Repo) -> Any:
    return await call_next(message)


@app.middleware
async def around_one(message: FindMeeting, call_next: CallNext[FindMeeting, Meeting | None]) -> Meeting | None:
    found = await call_next(message)
    assert_type(found, Meeting | None)
    return found


app.add_middleware(LoggingMiddleware())


async def call_middleware() -> None:
    async def call_next(message: FindMeeting) -> Meeting | None:
        return None

    assert_type(await around_one(FindMeeting(1), call_next), Meeting | None)


# --- sending


async def send() -> None:
    async with app as started:
        assert_type(started, Diator)
    assert_type(await app.send(JoinMeeting()), Meeting)
    await app.send(LeaveMeeting(1))
    assert_type(await app.send(ListMeetings()), list[Meeting])
    assert_type(await app.send(FindMeeting(1)), Meeting | None)
    assert_type(await app.send(GetById(Meeting, 1)), Meeting)
    await app.publish(Joined(1), Warned(2), Told(3), State(id=4))
    assert_type(await app.publish(Told(3), after=60), str)
    assert_type(await app.publish(Joined(1)), str | None)
    assert_type(await app.cancel("id"), bool)
    async with app.stream(Rows()) as stream:
        async for row in stream:
            assert_type(row, Meeting)


async def send_using() -> None:
    sender = app.using(provide={User: User(), str: "Ada"}, headers={"tenant": "a"}, correlation_id="c")
    assert_type(sender, Sender)
    assert_type(await sender.send(JoinMeeting()), Meeting)
    await sender.publish(Joined(1))
    async with sender.stream(Rows()) as stream:
        async for row in stream:
            assert_type(row, Meeting)


async def send_any(request: Request[X]) -> X:
    return await app.send(request)


async def send_wider(request: JoinMeeting | FindMeeting) -> Meeting | None:
    return await app.send(request)


@asynccontextmanager
async def lifespan(web: object) -> AsyncGenerator[None, None]:
    async with app:
        yield


# --- what no type checker can tell (parameters are contravariant); the check of the app tells it


@app.command
async def wrong_result(command: JoinMeeting) -> str:
    return ""
