"""The Lua scripts: each move between two structures is one of them, so that no crash can come between."""

import hashlib
from importlib.resources import files


class Script:
    """One script, by its text and by the name that a server knows it under."""

    def __init__(self, name: str) -> None:
        folder = files("diator_redis") / "lua"
        self.name = name
        self.text = f"{(folder / 'common.lua').read_text()}\n{(folder / f'{name}.lua').read_text()}".encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


PUBLISH = Script("publish")
READ = Script("read")
SETTLE = Script("settle")
RENEW = Script("renew")
KEEP = Script("keep")
LEAVE = Script("leave")
TRIM = Script("trim")
REPLAY = Script("replay")
BACKLOG = Script("backlog")
TAKE = Script("take")
PARTITION = Script("partition")
REPARTITION = Script("repartition")
