"""Events over a broker: what happened, told to handlers that stand alone, here or in other processes.

`UserJoined` is a NotificationEvent: it leaves for the broker once the unit of work of its command has closed well.
Each handler of it is a subscription of its own, with its own retries and dead letters; a worker runs them. Here one
process does both, over the broker in memory. With `broker="redis://localhost:6379"` the same code runs as a web
application that sends commands and any number of workers: `diator run module:app`.
"""

import asyncio
from dataclasses import dataclass

from diator import Command, Context, Diator, NotificationEvent, Publish, contract

app = Diator("meetings", broker="memory://")
all_done = asyncio.Event()


@dataclass(frozen=True, kw_only=True)
class JoinMeeting(Command[None]):
    meeting_id: int
    user_id: int


@contract("meetings.user-joined", version=1)  # how other processes know it; renaming the class changes nothing
@dataclass(frozen=True)
class UserJoined(NotificationEvent):
    meeting_id: int
    user_id: int


@contract("meetings.greeting-sent")
@dataclass(frozen=True)
class GreetingSent(NotificationEvent):
    user_id: int


@app.command
async def join_meeting(command: JoinMeeting, publish: Publish[UserJoined]) -> None:
    publish(UserJoined(command.meeting_id, command.user_id))
    print(f"join_meeting: user {command.user_id} is in")


@app.on_event(subscription="meetings.greet")  # a name of its own: renaming the function strands nothing
async def greet(event: UserJoined, context: Context, publish: Publish[GreetingSent]) -> None:
    print(f"{context.subscription}: welcome, user {event.user_id}")
    publish(GreetingSent(event.user_id))  # leaves when this handler has succeeded, before the ack


@app.on_event(subscription="meetings.keep-minutes")
async def keep_minutes(event: GreetingSent, context: Context) -> None:
    print(f"{context.subscription}: user {event.user_id} was greeted")
    all_done.set()


async def main() -> None:
    async with app, app.worker():
        await app.send(JoinMeeting(meeting_id=1, user_id=8))
        await all_done.wait()


if __name__ == "__main__":
    asyncio.run(main())
