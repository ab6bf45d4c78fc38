"""What the processes tell each other. Change it with care: old messages may still wait when the new code starts."""

from dataclasses import dataclass

from diator import NotificationEvent, contract


@contract("meetings.user-joined", version=1, key="meeting_id")  # those of one meeting are handled in order
@dataclass(frozen=True, kw_only=True)
class UserJoined(NotificationEvent):
    meeting_id: int
    user: str
