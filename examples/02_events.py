"""Domain events: what happened, told to whoever cares, in the unit of work of the command.

`join_meeting` does its own part and publishes what happened; that latecomers are warned is no longer its concern. Its
hint `Publish[UserJoined | UserCameLate]` says which events it may publish. Publishing is not awaited, it only takes
note: their handlers run after `join_meeting` has returned, in the order of the events and then of the handlers. An
event handler may publish too. If one fails, the command fails.
"""

import asyncio
from dataclasses import dataclass

from diator import Command, Diator, DomainEvent, Publish

app = Diator()


@dataclass(frozen=True, kw_only=True)
class JoinMeeting(Command[None]):
    meeting_id: int
    user_id: int
    is_late: bool = False


@dataclass(frozen=True)
class UserJoined(DomainEvent):
    meeting_id: int
    user_id: int


@dataclass(frozen=True)
class UserCameLate(DomainEvent):
    user_id: int


@dataclass(frozen=True)
class UserWarned(DomainEvent):
    user_id: int


@app.command
async def join_meeting(command: JoinMeeting, publish: Publish[UserJoined | UserCameLate]) -> None:
    publish(UserJoined(command.meeting_id, command.user_id))
    if command.is_late:
        publish(UserCameLate(command.user_id))
    print(f"join_meeting: user {command.user_id} is in")


@app.on_event
async def announce(event: UserJoined) -> None:
    print(f"announce: welcome, user {event.user_id}")


@app.on_event
async def count(event: UserJoined) -> None:
    print(f"count: one more in meeting {event.meeting_id}")


@app.on_event
async def warn(event: UserCameLate, publish: Publish[UserWarned]) -> None:
    print(f"warn: user {event.user_id}, please be on time")
    publish(UserWarned(event.user_id))


@app.on_event
async def keep_minutes(event: UserJoined | UserWarned) -> None:
    print(f"keep_minutes: {event}")


async def main() -> None:
    async with app:
        await app.send(JoinMeeting(meeting_id=1, user_id=8, is_late=True))


if __name__ == "__main__":
    asyncio.run(main())
