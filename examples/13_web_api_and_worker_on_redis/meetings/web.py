"""The web API: it sends commands, and has no worker of its own."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, HTTPException

from diator import Command, Diator, Publish, PublishError, Query
from meetings.contracts import UserJoined
from meetings.storage import REDIS_URL, Meetings, make_container

app = Diator("meetings-web", broker=REDIS_URL, container=make_container())


@dataclass(frozen=True)
class JoinMeeting(Command[None]):
    meeting_id: int
    user: str


@dataclass(frozen=True)
class ShowMeeting(Query[dict[str, list[str]]]):
    meeting_id: int


@app.command
async def join_meeting(command: JoinMeeting, meetings: Meetings, publish: Publish[UserJoined]) -> None:
    if await meetings.add(command.meeting_id, "attendees", command.user):
        publish(UserJoined(meeting_id=command.meeting_id, user=command.user))  # leaves when the command has succeeded


@app.query
async def show_meeting(query: ShowMeeting, meetings: Meetings) -> dict[str, list[str]]:
    return {what: await meetings.find(query.meeting_id, what) for what in ("attendees", "welcomed")}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with app:
        yield


web = FastAPI(title="Meetings", lifespan=lifespan)


@web.post("/meetings/{meeting_id}/attendees/{user}", status_code=201)
async def post_attendee(meeting_id: int, user: str) -> dict[str, list[str]]:
    try:
        await app.send(JoinMeeting(meeting_id, user))
    except PublishError as error:  # the command has taken effect; the event did not leave
        raise HTTPException(503, "joined, but the welcome may not come: the broker is away") from error
    return await app.send(ShowMeeting(meeting_id))


@web.get("/meetings/{meeting_id}")
async def get_meeting(meeting_id: int) -> dict[str, list[str]]:
    return await app.send(ShowMeeting(meeting_id))
