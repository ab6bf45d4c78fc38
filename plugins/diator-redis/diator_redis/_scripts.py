"""The Lua scripts: each move between two structures is one of them, so that no crash can come between."""

import hashlib
from importlib.resources import files


class Script:
    """One script, by its text and by the name that a server knows it under."""

    def __init__(self, *names: str) -> None:
        folder = files("diator_redis") / "lua"
        self.name = names[-1]
        self.text = "\n".join((folder / f"{name}.lua").read_text() for name in ("common", *names)).encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


PUBLISH = Script("publish")
READ = Script("read")
SETTLE = Script("settle")
RENEW = Script("renew")
KEEP = Script("delays", "keep")
MOVE = Script("delays", "move")
LEAVE = Script("leave")
TRIM = Script("trim")
REPLAY = Script("replay")
BACKLOG = Script("backlog")
QUEUE_TAKE = Script("queues", "queue_take")
QUEUE_SETTLE = Script("queues", "queue_settle")
QUEUE_RENEW = Script("queues", "queue_renew")
QUEUE_LEAVE = Script("queues", "queue_leave")
