"""The Lua scripts: each move between two structures is one of them, so that no crash can come between."""

import hashlib
from collections.abc import Sequence
from importlib.resources import files

Argument = bytes | str | int | float
Command = Sequence[Argument]

TEXTS: dict[Argument, bytes] = {}
"""Scripts by the hashes that a server knows them under."""


class Script:
    """One script, of one or several files."""

    def __init__(self, *names: str) -> None:
        folder = files("diator_redis") / "lua"
        text = "\n".join((folder / f"{name}.lua").read_text() for name in ("common", *names)).encode()
        self._sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        TEXTS[self._sha] = text

    def command(self, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Command:
        """Return the command that runs it."""
        return (b"EVALSHA", self._sha, len(keys), *keys, *arguments)


PUBLISH, MOVE, TRIM, REPLAY, BACKLOG = map(Script, ("publish", "move", "trim", "replay", "backlog"))
TAKE, SETTLE, LEAVE = (Script("queues", f"queue_{name}") for name in ("take", "settle", "leave"))
SETTLE_STREAMS, RETURN = (Script("streams", f"stream_{name}") for name in ("settle", "return"))
