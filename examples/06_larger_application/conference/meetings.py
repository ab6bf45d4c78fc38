"""The feature that opens meetings and lets users in."""

from conference.contracts import JoinMeeting, OpenMeeting, UserCameLate, UserJoined
from diator import Publish, Router

router = Router()


class MeetingBook:
    """The seats that are free in each meeting; a database in real life."""

    def __init__(self) -> None:
        self._free_seats: dict[int, int] = {}

    def open(self, seats: int) -> int:
        meeting_id = len(self._free_seats) + 1
        self._free_seats[meeting_id] = seats
        return meeting_id

    def take_seat(self, meeting_id: int) -> None:
        if not self._free_seats.get(meeting_id):
            raise LookupError(f"no free seat in meeting {meeting_id}")
        self._free_seats[meeting_id] -= 1


@router.command
async def open_meeting(command: OpenMeeting, book: MeetingBook) -> int:
    return book.open(command.seats)


@router.command
async def join_meeting(command: JoinMeeting, book: MeetingBook, publish: Publish[UserJoined | UserCameLate]) -> None:
    book.take_seat(command.meeting_id)
    publish(UserJoined(command.meeting_id, command.user_id))
    if command.is_late:
        publish(UserCameLate(command.meeting_id, command.user_id))
