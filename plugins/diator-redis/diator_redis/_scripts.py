"""The Lua scripts: one script makes each change of several keys, so a crash cannot leave it half done."""

import hashlib
from collections.abc import Sequence
from importlib.resources import files

Argument = bytes | str | int | float
Command = Sequence[Argument]

TEXTS: dict[Argument, bytes] = {}
"""Scripts by their SHA-1 hashes, which EVALSHA takes."""


class Script:
    """One script, made of one or several files."""

    def __init__(self, *names: str) -> None:
        folder = files("diator_redis") / "lua"
        text = "\n".join((folder / f"{name}.lua").read_text() for name in ("common", *names)).encode()
        self._sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        TEXTS[self._sha] = text

    def command(self, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Command:
        """Return the command that runs it."""
        return (b"EVALSHA", self._sha, len(keys), *keys, *arguments)


PUBLISH, DELIVER_DUE, TRIM, REPLAY, BACKLOG = map(Script, ("publish", "deliver_due", "trim", "replay", "backlog"))
CLAIM, SETTLE, RELEASE_ALL = (Script("queues", f"queue_{name}") for name in ("claim", "settle", "release"))
SETTLE_STREAMS, REDELIVER = (Script("streams", f"stream_{name}") for name in ("settle", "redeliver"))
