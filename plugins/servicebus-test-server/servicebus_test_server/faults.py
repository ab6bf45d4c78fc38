"""Failures on command: at which point, how often, for which entity, and what happens there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from servicebus_test_server.errors import SERVER_BUSY


class Point(Enum):
    """Where a fault strikes."""

    ACCEPT = "accept"
    OPEN = "open"
    PUT_TOKEN = "put-token"  # noqa: S105 - the name of an operation
    ATTACH = "attach"
    INCOMING = "incoming transfer"
    OUTGOING = "outgoing transfer"
    DISPOSITION = "disposition"
    MANAGEMENT = "management request"


class Action(Enum):
    """What a fault does.

    The two "after" actions first do what the client asked for; it does not learn that. To refuse means: an error on
    the open connection, the status code 401 for a token, a refused link, a rejected transfer or settlement, an error
    status of the management node, or, for an outgoing transfer, a detached link. Nothing is applied.

    An outgoing transfer has nothing to answer: "before" means that the message is locked (or, in receive-and-delete,
    gone) but never sent, "drop after" that it is sent and the connection is reset a moment later.
    """

    DROP_BEFORE = "reset the connection"
    DROP_AFTER = "apply, then reset the connection"
    HANG_BEFORE = "never answer"
    HANG_AFTER = "apply, never answer"
    REFUSE = "refuse"


@dataclass(slots=True, eq=False)
class Fault:
    """A failure that waits for its occasions.

    Attributes:
        point: Where it strikes.
        action: What happens.
        count: How often it will still strike; None for without end.
        skip: How many occasions it still lets pass.
        entity: Strikes only for this path, such as ``orders`` or ``news/Subscriptions/mail``; None for any. Accepting
            and opening a connection concern no entity.
        container: Strikes only for connections whose container id starts so.
        condition: The AMQP error condition of a refusal.
        hits: How often it has struck.
    """

    point: Point
    action: Action
    count: int | None = 1
    skip: int = 0
    entity: str | None = None
    container: str = ""
    condition: str = SERVER_BUSY
    hits: int = 0

    @property
    def drops(self) -> bool:
        """Whether the connection is reset."""
        return self.action in (Action.DROP_BEFORE, Action.DROP_AFTER)

    @property
    def applies(self) -> bool:
        """Whether what the client asked for is done first."""
        return self.action in (Action.DROP_AFTER, Action.HANG_AFTER)

    def cancel(self) -> None:
        """Let it never strike again."""
        self.count = 0

    def concerns(self, point: Point, entity: str, container: str) -> bool:
        """Tell whether this is one of its occasions."""
        wanted = self.entity is None or self.entity.lower() == entity.lower()
        return self.point is point and wanted and container.startswith(self.container) and self.count != 0


class Faults:
    """The failures that are waiting."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let one more wait."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Cancel all."""
        for fault in self._faults:
            fault.cancel()
        self._faults.clear()

    def strike(self, point: Point, entity: str, container: str) -> Fault | None:
        """Report an occasion; return the fault that strikes, if any."""
        if not self._faults:
            return None
        for fault in self._faults:
            if fault.concerns(point, entity, container):
                if fault.skip == 0:
                    return self._hit(fault)
                fault.skip -= 1
        return None

    def _hit(self, fault: Fault) -> Fault:
        fault.hits += 1
        if fault.count is not None:
            fault.count -= 1
        self._faults = [each for each in self._faults if each.count != 0]
        return fault
