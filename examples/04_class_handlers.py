"""Class handlers: for those who keep what a handler needs apart from what it handles.

The parameters of the constructor are dependencies, like those of a function. A class with an `events` property, as in
Diator 0.1, publishes what is in it once `handle` has returned; such a class is built anew for each message. The hint
of `events` says which events to expect. `app.add_command` and its sisters register without a decorator, so that the
handlers need not know the app.
"""

import asyncio
from dataclasses import dataclass

import punq

from diator import Command, Diator, DomainEvent


@dataclass(frozen=True, kw_only=True)
class JoinMeeting(Command[None]):
    meeting_id: int
    user_id: int
    is_late: bool = False


@dataclass(frozen=True, kw_only=True)
class UserWarned(DomainEvent):
    user_id: int


class MeetingApi:
    def join(self, meeting_id: int, user_id: int) -> None:
        print(f"user {user_id} joined meeting {meeting_id}")


class JoinMeetingHandler:
    def __init__(self, meetings: MeetingApi) -> None:
        self._meetings = meetings
        self._events: list[UserWarned] = []

    @property
    def events(self) -> list[UserWarned]:
        return self._events

    async def handle(self, command: JoinMeeting) -> None:
        self._meetings.join(command.meeting_id, command.user_id)
        if command.is_late:
            self._events.append(UserWarned(user_id=command.user_id))


class Notifier:
    def warn(self, event: UserWarned) -> None:
        print(f"user {event.user_id} was warned for being late")


container = punq.Container()
container.register(MeetingApi)

app = Diator(container=container)
app.add_command(JoinMeetingHandler)
app.add_event_handler(Notifier().warn)  # a bound method is a handler too


async def main() -> None:
    async with app:
        await app.send(JoinMeeting(meeting_id=1, user_id=7))
        await app.send(JoinMeeting(meeting_id=1, user_id=8, is_late=True))


if __name__ == "__main__":
    asyncio.run(main())
