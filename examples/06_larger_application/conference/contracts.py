"""The messages: all that the features know of each other. Imports nothing of the application."""

from dataclasses import dataclass

from diator import Command, DomainEvent, Query


@dataclass(frozen=True, kw_only=True)
class OpenMeeting(Command[int]):
    """Gives the id of the new meeting."""

    seats: int


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
    meeting_id: int
    user_id: int


@dataclass(frozen=True)
class CountAttendees(Query[int]):
    meeting_id: int
