"""Middleware: what wraps the handling of every message of some kind.

The hint of its first parameter says which messages a middleware wraps: any command, any query, an event, one class.
A middleware runs outside the unit of work: each time `try_again` calls `call_next`, a new one starts. There it may ask
for singletons of the container and, as `authorize` does, for values of the sender. One that needs what a handler needs,
such as the session of the unit, says `@app.middleware(inside=True)`, and calls `call_next` once.
"""

import asyncio
import logging
import sys
from dataclasses import dataclass
from typing import Any

from diator import CallNext, Command, Diator, LoggingMiddleware

app = Diator()


@dataclass(frozen=True)
class User:
    name: str
    is_host: bool


class BusyError(Exception):
    """Somebody else changes this meeting at this moment."""


@dataclass(frozen=True)
class EndMeeting(Command[str]):
    meeting_id: int


app.provides(User)
app.add_middleware(LoggingMiddleware())  # the first one is the outermost


@app.middleware
async def try_again(command: Command[Any], call_next: CallNext) -> Any:
    try:
        return await call_next(command)
    except BusyError:
        print("busy, once more")
        return await call_next(command)


@app.middleware
async def authorize(command: EndMeeting, call_next: CallNext[EndMeeting, str], user: User) -> str:
    if not user.is_host:
        raise PermissionError(f"{user.name} is not the host of meeting {command.meeting_id}")
    return await call_next(command)


conflicts = [BusyError()]


@app.command
async def end_meeting(command: EndMeeting) -> str:
    if conflicts:
        raise conflicts.pop()
    return f"meeting {command.meeting_id} has ended"


async def main() -> None:
    async with app:
        ann, bob = User("Ann", is_host=True), User("Bob", is_host=False)
        print(await app.using(provide={User: ann}).send(EndMeeting(1)))
        try:
            await app.using(provide={User: bob}).send(EndMeeting(2))
        except PermissionError as error:
            print("refused:", error)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    asyncio.run(main())
