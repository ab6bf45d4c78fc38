"""Any container: the same application on six of them, with only the set-up swapped.

The handlers name what they need and no library. Registration is the library's own: one `Schedule` for the application,
one `Meetings` for each unit of work, where the library knows such a thing. punq does not, and makes one for each
handler::

    python examples/09_any_container.py dishka
"""

import argparse
import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from diator import Command, Diator, DomainEvent, Publish

# pyright: reportUnknownMemberType=false
# (rodi and svcs leave out type arguments in their own signatures)


@dataclass(frozen=True, kw_only=True)
class JoinMeeting(Command[int]):
    meeting_id: int
    user_id: int


@dataclass(frozen=True, kw_only=True)
class UserJoined(DomainEvent):
    meeting_id: int
    user_id: int


class Schedule:
    def __init__(self) -> None:
        self.members: dict[int, list[int]] = {}


class Meetings:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def join(self, meeting_id: int, user_id: int) -> int:
        members = self.schedule.members.setdefault(meeting_id, [])
        members.append(user_id)
        return len(members)


def make_app(container: object) -> Diator:
    app = Diator("meetings", container=container)

    @app.command
    async def join_meeting(command: JoinMeeting, meetings: Meetings, publish: Publish[UserJoined]) -> int:
        publish(UserJoined(meeting_id=command.meeting_id, user_id=command.user_id))
        return meetings.join(command.meeting_id, command.user_id)

    @app.on_event
    class Announce:
        def __init__(self, meetings: Meetings) -> None:
            self.meetings = meetings

        async def handle(self, event: UserJoined) -> None:
            members = self.meetings.schedule.members[event.meeting_id]
            print(f"user {event.user_id} is number {len(members)} in meeting {event.meeting_id}")

    return app


def punq() -> object:
    import punq

    container = punq.Container()
    container.register(Schedule, scope=punq.Scope.singleton)
    container.register(Meetings)
    return container


def dishka() -> object:
    from dishka import Provider, Scope, make_async_container

    provider = Provider()
    provider.provide(Schedule, scope=Scope.APP)
    provider.provide(Meetings, scope=Scope.REQUEST)
    return make_async_container(provider)


def di() -> object:
    from di import Container, bind_by_type
    from di.dependent import Dependent

    container = Container()
    container.bind(bind_by_type(Dependent(Schedule, scope="app"), Schedule))
    container.bind(bind_by_type(Dependent(Meetings, scope="request"), Meetings))
    return container


def rodi() -> object:
    import rodi

    container = rodi.Container()
    container.add_singleton(Schedule)
    container.add_scoped(Meetings)
    return container


def svcs() -> object:
    from svcs import Container, Registry

    def meetings(container: Container) -> Meetings:
        return Meetings(container.get(Schedule))

    registry = Registry()
    registry.register_value(Schedule, Schedule())
    registry.register_factory(Meetings, meetings)
    return registry


def wireup() -> object:
    from wireup import create_async_container, injectable

    @injectable
    def schedule() -> Schedule:
        return Schedule()

    @injectable(lifetime="scoped")
    def meetings(schedule: Schedule) -> Meetings:
        return Meetings(schedule)

    return create_async_container(injectables=[schedule, meetings], concurrent_scoped_access=True)


SET_UPS: dict[str, Callable[[], object]] = {
    "punq": punq, "dishka": dishka, "di": di, "rodi": rodi, "svcs": svcs, "wireup": wireup,
}  # fmt: skip


async def main(library: str) -> None:
    async with make_app(SET_UPS[library]()) as app:
        await app.send(JoinMeeting(meeting_id=1, user_id=7))
        await app.send(JoinMeeting(meeting_id=1, user_id=8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Let two users join a meeting.")
    parser.add_argument("library", choices=SET_UPS, nargs="?", default="punq")
    asyncio.run(main(parser.parse_args().library))
