"""Testing: handlers are plain functions, and an app can be recorded while it runs.

A decorated handler is still the function that was written: call it with whatever stands for its dependencies, and with
the `append` of a list as `Publish`. How handlers work together is tested by sending through the app. `record` starts
it, replaces what its handlers ask for, and writes down what was sent, published and handled::

    pytest examples/07_testing.py
"""

import sys
from dataclasses import dataclass

import punq
import pytest

from diator import Command, Diator, DomainEvent, Publish
from diator.testing import FakePublish, record

# The application


@dataclass(frozen=True, kw_only=True)
class JoinMeeting(Command[None]):
    meeting_id: int
    user_id: int
    is_late: bool = False


@dataclass(frozen=True)
class UserCameLate(DomainEvent):
    user_id: int


class MeetingApi:
    def join(self, meeting_id: int, user_id: int) -> None:
        print(f"user {user_id} joined meeting {meeting_id}")

    def warn(self, user_id: int) -> None:
        print(f"user {user_id} was warned for being late")


container = punq.Container()
container.register(MeetingApi)
app = Diator(container=container)


@app.command
async def join_meeting(command: JoinMeeting, meetings: MeetingApi, publish: Publish[UserCameLate]) -> None:
    meetings.join(command.meeting_id, command.user_id)
    if command.is_late:
        publish(UserCameLate(command.user_id))


@app.on_event
async def warn(event: UserCameLate, meetings: MeetingApi) -> None:
    meetings.warn(event.user_id)


# Its tests


class FakeMeetingApi(MeetingApi):
    def __init__(self) -> None:
        self.joined: list[tuple[int, int]] = []
        self.warned: list[int] = []

    def join(self, meeting_id: int, user_id: int) -> None:
        self.joined.append((meeting_id, user_id))

    def warn(self, user_id: int) -> None:
        self.warned.append(user_id)


@pytest.mark.asyncio
async def test_a_handler_alone() -> None:
    meetings = FakeMeetingApi()
    events = FakePublish()
    await join_meeting(JoinMeeting(meeting_id=1, user_id=8, is_late=True), meetings, events)
    assert meetings.joined == [(1, 8)]
    assert events == [UserCameLate(8)]


@pytest.mark.asyncio
async def test_latecomers_are_warned() -> None:
    meetings = FakeMeetingApi()
    async with record(app, replace={MeetingApi: meetings}) as seen:
        await app.send(JoinMeeting(meeting_id=1, user_id=8, is_late=True))
    assert seen.published == [UserCameLate(8)]
    assert meetings.warned == [8]


@pytest.mark.asyncio
async def test_who_comes_in_time_is_not_warned() -> None:
    async with record(app, replace={MeetingApi: FakeMeetingApi()}) as seen:
        await app.send(JoinMeeting(meeting_id=1, user_id=7))
    seen.published.none(UserCameLate)  # where this fails, it shows all that has happened


def test_the_app_is_well_wired() -> None:
    assert app.check() == []


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", __file__]))
