"""What all connections of a server share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from servicebus_test_server.faults import Faults
from servicebus_test_server.namespace import Namespace

if TYPE_CHECKING:
    from servicebus_test_server.connection import Connection


@dataclass(slots=True)
class Node:
    """The state behind a listening socket.

    Attributes:
        loop: The event loop in which everything happens.
        max_frame_size: The largest frame that is taken, in bytes; larger messages come in several.
    """

    loop: asyncio.AbstractEventLoop
    max_frame_size: int
    namespace: Namespace = field(init=False)
    faults: Faults = field(default_factory=Faults)
    connections: set[Connection] = field(default_factory=set["Connection"])
    container_id: str = field(default_factory=lambda: f"servicebus-{uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.namespace = Namespace(self._wake)

    def _wake(self) -> None:
        self.loop.call_soon(self.namespace.pump)
