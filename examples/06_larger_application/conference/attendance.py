"""The feature that knows who was there."""

from collections import Counter

from conference.contracts import CountAttendees, UserJoined
from diator import Router

router = Router()


class AttendanceList:
    def __init__(self) -> None:
        self.attendees: Counter[int] = Counter()


@router.on_event
async def note_attendance(event: UserJoined, attendance: AttendanceList) -> None:
    attendance.attendees[event.meeting_id] += 1


@router.query
async def count_attendees(query: CountAttendees, attendance: AttendanceList) -> int:
    return attendance.attendees[query.meeting_id]
