"""A larger application: a package whose features know each other's messages, and nothing else of each other.

In reading order: `conference/contracts.py` has the messages. `meetings.py`, `attendance.py` and `notices.py` are the
features, each with a `Router` that carries its handlers. `app.py` puts them together. Here it runs::

    python examples/06_larger_application

In this folder, `diator check conference.app:app` finds what is wrong with it, and `diator graph conference.app:app`
draws what leads to what.
"""

import asyncio

from conference.app import app
from conference.contracts import CountAttendees, JoinMeeting, OpenMeeting


async def main() -> None:
    async with app:
        meeting_id = await app.send(OpenMeeting(seats=2))
        await app.send(JoinMeeting(meeting_id=meeting_id, user_id=7))
        await app.send(JoinMeeting(meeting_id=meeting_id, user_id=8, is_late=True))
        try:
            await app.send(JoinMeeting(meeting_id=meeting_id, user_id=9))
        except LookupError as error:
            print("refused:", error)
        print("attendees:", await app.send(CountAttendees(meeting_id)))


if __name__ == "__main__":
    asyncio.run(main())
