"""Commands: a message that asks for a change, and the one function that makes it.

`join_meeting` says by its hints which command it handles and what it needs. The container gives it the `MeetingApi`.
`JoinMeeting` is a msgspec struct, which can be read from JSON; a dataclass, an attrs class or a pydantic model is a
message just as well. The commands come from a file, one JSON object a line::

    python examples/01_commands.py examples/meetings.jsonl

A bad line is reported and skipped, the others are handled. This file has some, so the exit code is 1::

    python examples/01_commands.py examples/meetings-with-bad-lines.jsonl

The exit code is 0 if every line was good, 1 if one was not, 2 if there is no such file.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import punq

from diator import Command, Diator


class JoinMeeting(Command[None], msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    meeting_id: int
    user_id: int
    is_late: bool = False


class MeetingApi:
    def join(self, meeting_id: int, user_id: int) -> None:
        print(f"user {user_id} joined meeting {meeting_id}")

    def warn(self, user_id: int) -> None:
        print(f"user {user_id} was warned for being late")


container = punq.Container()
container.register(MeetingApi)
app = Diator(container=container)


@app.command
async def join_meeting(command: JoinMeeting, meetings: MeetingApi) -> None:
    meetings.join(command.meeting_id, command.user_id)
    if command.is_late:
        meetings.warn(command.user_id)


# All that follows reads the file.

LONGEST_LINE = 10_000  # bytes
decoder = msgspec.json.Decoder(JoinMeeting)


async def send_all(file: BinaryIO) -> int:
    bad = 0
    async with app:
        for number, line in enumerate(lines(file), start=1):
            try:
                command = decode(line)
            except ValueError as error:
                reason = str(error).encode("unicode_escape").decode()  # it may quote anything that was in the line
                print(f"{file.name}:{number}: {reason}", file=sys.stderr)
                bad += 1
            else:
                await app.send(command)
    return 1 if bad else 0


def decode(line: bytes) -> JoinMeeting:
    if len(line) > LONGEST_LINE:
        raise ValueError(f"longer than {LONGEST_LINE} bytes")
    if not line.strip():
        raise ValueError("empty line")
    return decoder.decode(line)


def lines(file: BinaryIO) -> Iterator[bytes]:
    """Give each line; of one that is too long, only the start is kept in memory."""
    while line := file.readline(LONGEST_LINE + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_LINE)
        yield line


def main() -> int:
    parser = argparse.ArgumentParser(description="Let users join meetings.")
    parser.add_argument("file", type=Path, help="one JSON object a line, such as meetings.jsonl")
    path: Path = parser.parse_args().file
    try:
        file = path.open("rb")
    except OSError as error:
        parser.error(f"can't open {path}: {error.strerror}")
    with file:
        return asyncio.run(send_all(file))


if __name__ == "__main__":
    sys.exit(main())
