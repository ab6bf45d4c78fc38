"""Misuse, each line of which both type checkers must flag: every comment that ignores an error has to be needed."""

# pyright: reportUnusedVariable=false, reportUntypedClassDecorator=false, reportUntypedFunctionDecorator=false

from collections.abc import AsyncIterator
from dataclasses import dataclass

from diator import (
    CallNext,
    Command,
    Diator,
    DomainEvent,
    ECSTEvent,
    Event,
    NotificationEvent,
    Publish,
    Query,
    Router,
    contract,
)

app = Diator()


@dataclass(frozen=True)
class Meeting:
    id: int


@dataclass(frozen=True)
class JoinMeeting(Command[Meeting]):
    id: int


@dataclass(frozen=True)
class FindMeeting(Query[Meeting | None]):
    id: int


@dataclass(frozen=True)
class Rows(Query[Meeting]): ...


@dataclass(frozen=True)
class Joined(DomainEvent):
    id: int


@dataclass(frozen=True)
class Left(DomainEvent):
    id: int


class Repo: ...


# --- the message is given: wrong results


@app.command(JoinMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def wrong_result(command: JoinMeeting, repo: Repo) -> str:
    return ""


@app.command(JoinMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
def wrong_result_of_sync(command: JoinMeeting, repo: Repo) -> str:
    return ""


@app.command(JoinMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def none_where_a_value_is_promised(command: JoinMeeting) -> Meeting | None:
    return None


@app.query(FindMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def wrong_result_of_query(query: FindMeeting) -> int:
    return 1


@app.query(Rows)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def wrong_row(query: Rows) -> AsyncIterator[str]:
    yield ""


@app.command(JoinMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
class WrongResult:
    async def handle(self, command: JoinMeeting) -> str:
        return ""


@app.command(JoinMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
class WrongResultOfSync:
    def handle(self, command: JoinMeeting, repo: Repo) -> str:
        return ""


@app.query(Rows)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
class WrongRow:
    async def handle(self, query: Rows) -> AsyncIterator[str]:
        yield ""


# --- wrong messages


@app.command  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def message_forgotten(repo: Repo) -> Meeting:
    return Meeting(1)


@app.command  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
def nothing_taken() -> Meeting:
    return Meeting(1)


@app.command(JoinMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def message_forgotten_though_given(repo: Repo) -> Meeting:
    return Meeting(1)


@app.command(timeout=1)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def message_forgotten_with_options(repo: Repo) -> Meeting:
    return Meeting(1)


@app.command  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def message_by_keyword(*, command: JoinMeeting) -> Meeting:
    return Meeting(1)


@app.command  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def query_as_command(query: FindMeeting) -> Meeting | None:
    return None


@app.command(FindMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def query_class_as_command(query: FindMeeting) -> Meeting | None:
    return None


@app.query  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def command_as_query(command: JoinMeeting) -> Meeting:
    return Meeting(1)


@app.query(FindMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def another_message(query: JoinMeeting) -> Meeting | None:
    return None


@app.on_event  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def command_as_event(command: JoinMeeting) -> None: ...


@app.on_event(Joined)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def another_event(event: Left) -> None: ...


@app.on_event(JoinMeeting)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def command_class_as_event(command: JoinMeeting) -> None: ...


@app.on_event  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def event_forgotten(repo: Repo) -> None: ...


@app.on_event  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def event_with_result(event: Joined) -> int:
    return 1


@app.on_event(Joined)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
def event_with_result_of_sync(event: Joined) -> int:
    return 1


# --- classes


@app.command  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
class NoMessage:
    async def handle(self) -> Meeting:
        return Meeting(1)


@app.command  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
class NoHandle:
    def __init__(self, repo: Repo) -> None: ...


@app.command  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
class QueryAsCommand:
    async def handle(self, query: FindMeeting) -> Meeting | None:
        return None


@app.on_event  # pyright: ignore[reportArgumentType, reportCallIssue]
class EventWithResult:  # type: ignore[type-var]
    async def handle(self, event: Joined) -> int:
        return 1


# --- options


@app.command(JoinMeeting, timeout="5")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def text_as_timeout(command: JoinMeeting) -> Meeting:
    return Meeting(1)


@app.command(tmeout=5)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportCallIssue]
async def misspelt_option(command: JoinMeeting) -> Meeting:
    return Meeting(1)


@app.on_event(Joined, tmeout=5)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportCallIssue]
async def option_that_events_lack(event: Joined) -> None: ...


@app.on_event(retry=3)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def number_as_retry(event: Joined) -> None: ...


@app.on_event(delivery="exactly-once")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def promise_that_nobody_can_keep(event: Joined) -> None: ...


Diator("meetings", hooks=[print])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


# --- contracts


@contract("joined")  # pyright: ignore[reportArgumentType]
@dataclass
class DomainEventWithContract(DomainEvent):  # type: ignore[type-var]
    id: int


@contract("joined", version="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
class VersionAsText(NotificationEvent): ...


@contract()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
class NoName(ECSTEvent): ...


@contract  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
class NotCalled(ECSTEvent): ...


# --- publishing and middlewares


@app.command
async def undeclared(command: JoinMeeting, publish: Publish[Joined]) -> Meeting:
    publish(Left(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    publish(JoinMeeting(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    publish(Joined)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return Meeting(1)


@app.command
async def ok(command: JoinMeeting, repo: Repo) -> Meeting:
    return Meeting(1)


async def wrong_next(message: FindMeeting, call_next: CallNext[FindMeeting, Meeting]) -> str:
    await call_next(JoinMeeting(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return await call_next(message)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


# --- sending, and calling handlers


async def main(left: Publish[Left], any_event: Publish[Event]) -> None:
    name: str = await app.send(JoinMeeting(1))  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    await app.send(Meeting(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await app.send(Joined(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await app.send(JoinMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await app.send(JoinMeeting(1), timeout=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await app.publish(JoinMeeting(1))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await app.publish(Joined)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    app.stream(JoinMeeting(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sent: int = await app.using(headers={}).send(JoinMeeting(1))  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    app.using(headers={"tenant": 5})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    app.using(timeout=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await ok(JoinMeeting(1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await ok(JoinMeeting(1), Meeting(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ok(command=JoinMeeting(1), repo=Repo())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await undeclared(JoinMeeting(1), left)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.include(Repo())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.publishes(JoinMeeting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Router("name")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async with app.stream(Rows()) as rows:
        async for row in rows:
            text: str = row  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
