"""The feature that tells users what they should know."""

from conference.contracts import UserCameLate, UserJoined
from diator import Router

router = Router()


@router.on_event
async def welcome(event: UserJoined) -> None:
    print(f"user {event.user_id}: welcome to meeting {event.meeting_id}")


@router.on_event
async def warn(event: UserCameLate) -> None:
    print(f"user {event.user_id}: meeting {event.meeting_id} has begun without you")
