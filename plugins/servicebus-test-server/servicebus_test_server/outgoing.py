"""Links on which the client receives: from stores, and answers of the request nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from servicebus_test_server.amqp.values import Described, ULong, Value
from servicebus_test_server.errors import LOCK_LOST, NOT_IMPLEMENTED, SESSION_LOCK_LOST, RefusalError, error
from servicebus_test_server.faults import Point
from servicebus_test_server.performatives import SENDER, Attach, Disposition, Flow, Transfer
from servicebus_test_server.stored import Stored
from servicebus_test_server.stores import Outcome

if TYPE_CHECKING:
    from servicebus_test_server.channel import Channel
    from servicebus_test_server.stores import Store

SETTLED = 1
"""The sender settle mode of receive-and-delete."""
_MASK = 0xFFFFFFFF


class OutgoingLink:
    """Cuts messages into transfers and keeps count of the credit."""

    def __init__(self, channel: Channel, attach: Attach, path: str) -> None:
        self.channel = channel
        self.attach = attach
        self.path = path
        self.credit = 0
        self._delivery_count = 0

    def on_flow(self, flow: Flow) -> None:
        """Take credit. It is absolute: what it says minus what was sent since (part 2, section 2.6.7)."""
        if flow.link_credit is not None:
            start = flow.delivery_count or 0
            ahead = (start + flow.link_credit - self._delivery_count) & _MASK
            self.credit = ahead if ahead < 1 << 31 else 0
        if flow.drain:
            self._delivery_count = (self._delivery_count + self.credit) & _MASK
            self.credit = 0
        if flow.drain or flow.echo:
            self.channel.send_flow(self.attach.handle, self._delivery_count, self.credit, drain=flow.drain)

    def transfer(self, message: bytes, tag: bytes, settled: bool) -> int:
        """Send a message; return its delivery id."""
        delivery_id = self.channel.next_delivery_id()
        self.credit -= 1
        self._delivery_count = (self._delivery_count + 1) & _MASK
        head = Transfer(self.attach.handle, delivery_id, tag, 0, settled)
        room = self.channel.connection.peer_frame_size - 8 - len(head.write())
        start = 0
        while len(message) - start > room:
            head.more = True
            self.channel.send(head.write(), message[start : start + room])
            start += room
            head = Transfer(self.attach.handle, settled=settled)
        self.channel.send(head.write(), message[start:])
        return delivery_id

    def closed(self) -> None:
        """Nothing is kept for a link that has ended."""


class ReplyLink(OutgoingLink):
    """Carries the answers of ``$cbs`` or a management node."""

    def reply(self, message: bytes) -> None:
        """Send an answer, settled."""
        self.transfer(message, self.channel.next_tag(), settled=True)


class ConsumerLink(OutgoingLink):
    """Receives from a store."""

    def __init__(self, channel: Channel, attach: Attach, store: Store) -> None:
        super().__init__(channel, attach, store.path)
        self.store = store
        self.session_id: str | None = None
        self.deletes = attach.snd_settle_mode == SETTLED
        self._confirmed = False

    def confirm(self) -> None:
        """Answer the attach of a receiver without a session."""
        self._confirmed = True
        self.channel.confirm(self)
        self.store.subscribe(self)

    def granted(self, session_id: str, until: int) -> None:
        """Answer the attach of a receiver that has got a session."""
        self.session_id = session_id
        self._confirmed = True
        self.channel.confirm_session(self, session_id, until)
        self.store.subscribe(self)

    def refused(self, refusal: RefusalError) -> None:
        """Answer the attach of a receiver that gets no session."""
        self.channel.refuse(self.attach, refusal)

    def lost(self) -> None:
        """Detach: the session is locked no more."""
        self.session_id = None
        self.channel.detach(self, RefusalError(SESSION_LOCK_LOST, "the lock on the session has expired"))

    def on_flow(self, flow: Flow) -> None:
        """Take credit and what there is to get for it."""
        super().on_flow(flow)
        if self.credit > 0 and self._confirmed:
            self.store.pump()

    def deliver(self, stored: Stored) -> None:
        """Send a message; what has gone wrong on the way leaves its lock as it is."""
        fault = self.channel.connection.strike(Point.OUTGOING, self.path)
        if fault is not None and not fault.applies:
            self.credit -= 1
            self._delivery_count = (self._delivery_count + 1) & _MASK
            self.channel.connection.fail_delivery(fault, self)
            return
        if stored.lock is None:
            self.transfer(stored.write(), self.channel.next_tag(), settled=True)
        else:
            # the SDK reads the tag as a GUID in .NET's order of bytes, and sends its text's order back in requests
            delivery_id = self.transfer(stored.write(), stored.lock.token.bytes_le, settled=False)
            self.channel.unsettled[delivery_id] = self, stored.lock.token
        if fault is not None:
            self.channel.connection.fail_delivery(fault, self)

    def settle(self, delivery_id: int, token: UUID, state: Value, settled: bool) -> None:
        """Carry out the client's decision on a delivery and confirm it with the same outcome."""

        def answer(outcome: Value) -> None:
            if not settled:
                self.channel.send(Disposition(SENDER, delivery_id, delivery_id, True, outcome).write())

        def apply() -> None:
            outcome, properties = read_outcome(state)
            self.store.settle(token, outcome, properties)
            answer(Described(ULong(0x25), []) if outcome is Outcome.DEAD_LETTER else state)

        def refuse(refusal: RefusalError) -> None:
            answer(Described(ULong(0x25), [error(refusal.condition, refusal.description)]))

        if isinstance(state, Described) and state.descriptor == 0x26:  # what the SDK releases by itself is no occasion
            self.channel.connection.attempt(apply, refuse)
        else:
            self.channel.connection.guard(Point.DISPOSITION, self.path, apply, refuse)

    def closed(self) -> None:
        """Stop delivering and give the session back. Locks on single messages stay until they expire."""
        self.credit = 0
        self.store.unsubscribe(self)
        session_id = None if self.store.sessions is None else self.store.sessions.leave(self)
        if session_id is not None:
            self.store.leave_session(session_id)


def read_outcome(state: Value) -> tuple[Outcome, dict[str, Value]]:
    """Read a delivery state (part 3, section 3.4); return the outcome, and the properties that it gives the message.

    Raises:
        RefusalError: It is no terminal state.
    """
    if state is None:
        return Outcome.RELEASE, {}
    if not isinstance(state, Described) or not isinstance(state.value, list):
        raise RefusalError(NOT_IMPLEMENTED, f"{state!r} is no delivery state")
    simple = {0x24: Outcome.COMPLETE, 0x26: Outcome.RELEASE}
    code, fields = state.descriptor, state.value
    if isinstance(code, int) and code in simple:
        return simple[code], {}
    if code == 0x27:
        undeliverable = len(fields) > 1 and fields[1] is True
        return Outcome.DEFER if undeliverable else Outcome.ABANDON, as_properties(
            fields[2] if len(fields) > 2 else None
        )
    if code == 0x25:
        return Outcome.DEAD_LETTER, _why(fields)
    raise RefusalError(LOCK_LOST, f"{state!r} settles nothing")


def as_properties(value: Value) -> dict[str, Value]:
    """Read a map of application properties, whose names may be symbols; those that are null are left out."""
    if not isinstance(value, dict):
        return {}
    return {str(name): one for name, one in value.items() if one is not None}


def _why(fields: list[Value]) -> dict[str, Value]:
    """Read the error of a rejected message: its info is why it is dead, and what else is to be said of it."""
    cause = fields[0] if fields else None
    if not isinstance(cause, Described) or not isinstance(cause.value, list):
        return {}
    return as_properties(cause.value[2] if len(cause.value) > 2 else None)
