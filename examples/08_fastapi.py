"""FastAPI: a web application with one database session for each command.

The app starts and ends with the web application. A route sends a command or a query and gives back its result; dishka
opens a session for it, which commits after the handler and all that it led to, or rolls back if any of that failed.
Handlers know no HTTP: who is signed in comes with the sender, and their errors are given a status in one place::

    python examples/08_fastapi.py       # then try it at http://127.0.0.1:8000/docs
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import uvicorn
from dishka import Provider, Scope, make_async_container
from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diator import Command, Diator, DomainEvent, Publish, Query, Sender

DATABASE_URL = os.environ.get("DATABASE_URL", f"sqlite+aiosqlite:///{Path(__file__).with_name('meetings.db')}")


# What is stored


class Table(DeclarativeBase):
    pass


class Meeting(Table):
    __tablename__ = "meetings"
    id: Mapped[int] = mapped_column(primary_key=True)
    seats: Mapped[int]


class Attendee(Table):
    __tablename__ = "attendees"
    meeting_id: Mapped[int] = mapped_column(ForeignKey("meetings.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)


async def open_engine() -> AsyncGenerator[AsyncEngine]:
    engine = create_async_engine(DATABASE_URL)
    async with engine.begin() as connection:
        await connection.run_sync(Table.metadata.create_all)
    yield engine
    await engine.dispose()


async def open_session(engine: AsyncEngine) -> AsyncGenerator[AsyncSession, BaseException | None]:
    async with AsyncSession(engine) as session:  # leaving it rolls back what was not committed
        error = yield session
        if error is None:
            await session.commit()


database = Provider()
database.provide(open_engine, scope=Scope.APP)
database.provide(open_session, scope=Scope.REQUEST)


# What can be done


@dataclass(frozen=True)
class User:
    name: str


class OpenMeeting(BaseModel, Command[int]):
    seats: int = Field(gt=0)


class JoinMeeting(BaseModel, Command[None]):
    meeting_id: int


class ListAttendees(BaseModel, Query[list[str]]):
    meeting_id: int


@dataclass(frozen=True)
class UserJoined(DomainEvent):
    meeting: Meeting


class NotFoundError(Exception):
    pass


class ConflictError(Exception):
    pass


app = Diator(container=make_async_container(database))
app.provides(User)


@app.command
async def open_meeting(command: OpenMeeting, session: AsyncSession) -> int:
    meeting = Meeting(seats=command.seats)
    session.add(meeting)
    await session.flush()
    return meeting.id


@app.command
async def join_meeting(command: JoinMeeting, user: User, session: AsyncSession, publish: Publish[UserJoined]) -> None:
    meeting = await session.get(Meeting, command.meeting_id)
    if meeting is None:
        raise NotFoundError(f"there is no meeting {command.meeting_id}")
    session.add(Attendee(meeting_id=meeting.id, name=user.name))
    try:
        await session.flush()
    except IntegrityError as error:
        raise ConflictError(f"{user.name} is in meeting {command.meeting_id} already") from error
    publish(UserJoined(meeting))


@app.on_event
async def limit_seats(event: UserJoined, session: AsyncSession) -> None:
    attendees = select(func.count()).where(Attendee.meeting_id == event.meeting.id)
    if (await session.scalar(attendees) or 0) > event.meeting.seats:
        raise ConflictError(f"meeting {event.meeting.id} is full")  # takes back what `join_meeting` did


@app.query
async def list_attendees(query: ListAttendees, session: AsyncSession) -> list[str]:
    names = select(Attendee.name).where(Attendee.meeting_id == query.meeting_id).order_by(Attendee.name)
    return list(await session.scalars(names))


# How it is reached


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with app:
        yield


def sender_of_user(x_user: Annotated[str, Header(min_length=1)]) -> Sender:
    """Stands for a real login: takes the name from the header X-User."""
    return app.using(provide={User: User(x_user)})


SignedIn = Annotated[Sender, Depends(sender_of_user)]
web = FastAPI(title="Meetings", lifespan=lifespan)


@web.post("/meetings", status_code=201)
async def post_meeting(command: OpenMeeting, sender: SignedIn) -> int:
    return await sender.send(command)


@web.post("/meetings/{meeting_id}/attendees", status_code=204)
async def post_attendee(meeting_id: int, sender: SignedIn) -> None:
    await sender.send(JoinMeeting(meeting_id=meeting_id))


@web.get("/meetings/{meeting_id}/attendees")
async def get_attendees(meeting_id: int) -> list[str]:
    return await app.send(ListAttendees(meeting_id=meeting_id))


@web.exception_handler(NotFoundError)
async def not_found(_: Request, error: NotFoundError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=404)


@web.exception_handler(ConflictError)
async def conflict(_: Request, error: ConflictError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=409)


if __name__ == "__main__":
    uvicorn.run(web, port=int(os.environ.get("PORT", "8000")))
