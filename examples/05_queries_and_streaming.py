"""Queries: a message that asks a question; and streams, for answers of many rows.

A query is sent like a command, and `R` of `Query[R]` is the type of its answer. Where the handler is an async
generator, the rows are read with `app.stream`, and `R` is the type of a row. The block is the unit of work: what the
handler needs, such as a database session, is open while the rows are read, and the handler ends with the block.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from diator import Diator, Query

app = Diator()


@dataclass(frozen=True)
class Meeting:
    id: int
    title: str
    minutes: int


MEETINGS = [Meeting(1, "Stand-up", 15), Meeting(2, "Retrospective", 60), Meeting(3, "Planning", 90)]


@dataclass(frozen=True)
class FindMeeting(Query[Meeting | None]):
    meeting_id: int


@dataclass(frozen=True)
class ListMeetings(Query[Meeting]):
    longer_than: int = 0


@app.query
async def find_meeting(query: FindMeeting) -> Meeting | None:
    return next((meeting for meeting in MEETINGS if meeting.id == query.meeting_id), None)


@app.query
async def list_meetings(query: ListMeetings) -> AsyncIterator[Meeting]:
    try:
        for meeting in MEETINGS:
            if meeting.minutes > query.longer_than:
                yield meeting
    finally:
        print("the handler has ended")


async def main() -> None:
    async with app:
        meeting = await app.send(FindMeeting(2))
        print("found:", meeting.title if meeting else "nothing")

        async with app.stream(ListMeetings(longer_than=30)) as meetings:
            async for meeting in meetings:
                print("row:", meeting.title)
                break  # the rest is not asked for


if __name__ == "__main__":
    asyncio.run(main())
