"""An AMQP session: its links by handle, its deliveries by number (AMQP 1.0, part 2, section 2.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from servicebus_test_server.addresses import SESSION_FILTER, replace_filter
from servicebus_test_server.amqp.values import CodecError, Symbol, ULong, Value
from servicebus_test_server.errors import RefusalError, error
from servicebus_test_server.incoming import IncomingLink, PublishLink
from servicebus_test_server.outgoing import ConsumerLink, OutgoingLink
from servicebus_test_server.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Detach,
    Disposition,
    Flow,
    Transfer,
)

if TYPE_CHECKING:
    from servicebus_test_server.connection import Connection

Link: TypeAlias = IncomingLink | OutgoingLink
WINDOW = 0x7FFFFFFF
"""The incoming window. It is never used up: the SDK would stop sending."""
LARGEST_BATCH = 1 << 20
"""Bytes of a batch where messages may be larger."""
_TICKS_TO_1970 = 621_355_968_000_000_000
_MASK = 0xFFFFFFFF


class Channel:
    """One session of a connection. The server uses the client's numbers for the channel and for handles."""

    def __init__(self, connection: Connection, number: int, begin: Begin) -> None:
        self.connection = connection
        self.number = number
        self.links: dict[int, Link] = {}
        self.unsettled: dict[int, tuple[ConsumerLink, UUID]] = {}
        self._ended: set[int] = set()
        self._next_incoming_id = begin.next_outgoing_id
        self._next_outgoing_id = 1
        self._tags = count(1)
        self.send(Begin(number, self._next_outgoing_id, WINDOW, WINDOW).write())

    # -- what the links need

    def send(self, body: bytes, payload: bytes = b"") -> None:
        """Send a frame on this channel."""
        self.connection.send(self.number, body, payload)

    def send_flow(self, handle: int, delivery_count: int, credit: int, drain: bool = False) -> None:
        """Send a link's state together with the session's."""
        session = self._next_incoming_id, WINDOW, self._next_outgoing_id, WINDOW
        self.send(Flow(*session, handle, delivery_count, credit, drain).write())

    def next_delivery_id(self) -> int:
        """Count a delivery to the client."""
        number = self._next_outgoing_id
        self._next_outgoing_id = (number + 1) & _MASK
        return number

    def next_tag(self) -> bytes:
        """Make the tag of a delivery that has no lock: 16 bytes, as of a lock token."""
        return next(self._tags).to_bytes(16, "big")

    def add(self, link: Link) -> None:
        """Take a link in."""
        self._ended.discard(link.attach.handle)
        self.links[link.attach.handle] = link

    def confirm(self, link: Link, source: Value = None, properties: dict[Value, Value] | None = None) -> None:
        """Answer an attach: source and target are echoed, as the SDK compares them."""
        attach, properties = link.attach, properties or {}
        answer = replace(attach, role=not attach.role, source=source or attach.source, properties=properties)
        if isinstance(link, IncomingLink):
            answer.initial_delivery_count = None
        else:
            answer.initial_delivery_count = 0
        if isinstance(link, PublishLink):
            answer.max_message_size = link.max_message_bytes
            properties[Symbol("com.microsoft:max-message-batch-size")] = ULong(
                min(link.max_message_bytes, LARGEST_BATCH)
            )
        self.send(answer.write())
        if isinstance(link, IncomingLink):
            link.give_credit()

    def confirm_session(self, link: ConsumerLink, session_id: str, until: int) -> None:
        """Answer the attach of a receiver that has got a session, locked until a time in ms since 1970."""
        source = replace_filter(link.attach.source, SESSION_FILTER, session_id)
        ticks = until * 10_000 + _TICKS_TO_1970
        self.confirm(link, source, {Symbol("com.microsoft:locked-until-utc"): ticks})

    def refuse(self, attach: Attach, refusal: RefusalError) -> None:
        """Answer an attach by one without source and target, and a detach that says why (part 2, section 2.6.3)."""
        start = 0 if attach.role == RECEIVER else None
        self.send(replace(attach, role=not attach.role, source=None, target=None, initial_delivery_count=start).write())
        self._end(attach.handle, refusal)

    def detach(self, link: Link, refusal: RefusalError) -> None:
        """End a link from this side."""
        self._end(link.attach.handle, refusal)

    def _end(self, handle: int, refusal: RefusalError) -> None:
        self._remove(handle)
        self._ended.add(handle)
        self.send(Detach(handle, True, error(refusal.condition, refusal.description)).write())

    def _remove(self, handle: int) -> None:
        link = self.links.pop(handle, None)
        if link is not None:
            self.unsettled = {number: each for number, each in self.unsettled.items() if each[0] is not link}
            link.closed()

    # -- what the client sends

    def on_flow(self, flow: Flow) -> None:
        """Hand a link's credit to it; windows are of no interest."""
        if flow.handle is not None:
            self._with_link(flow.handle, lambda link: link.on_flow(flow))

    def on_transfer(self, transfer: Transfer, payload: bytes) -> None:
        """Hand a transfer to its link."""
        self._next_incoming_id = (self._next_incoming_id + 1) & _MASK

        def take(link: Link) -> None:
            if not isinstance(link, IncomingLink):
                raise CodecError(f"a transfer on handle {transfer.handle}, on which the client receives")
            link.on_transfer(transfer, payload)

        self._with_link(transfer.handle, take)

    def on_disposition(self, disposition: Disposition) -> None:
        """Settle deliveries. Of the range only those are looked at that are open."""
        if disposition.role == SENDER:
            return
        wanted = [disposition.first] if disposition.first == disposition.last else list(self.unsettled)
        for number in wanted:
            if disposition.first <= number <= disposition.last and number in self.unsettled:
                link, token = self.unsettled.pop(number)
                link.settle(number, token, disposition.state, disposition.settled)

    def on_detach(self, detach: Detach) -> None:
        """End a link as the client asks for."""
        if detach.handle in self._ended:
            self._ended.discard(detach.handle)
            return
        self._remove(detach.handle)
        self.send(Detach(detach.handle, detach.closed).write())

    def closed(self) -> None:
        """End all links without a word: session or connection has ended."""
        for handle in list(self.links):
            self._remove(handle)

    def _with_link(self, handle: int, action: Callable[[Link], None]) -> None:
        link = self.links.get(handle)
        if link is not None:
            action(link)
        elif handle not in self._ended:
            raise CodecError(f"no link is attached on handle {handle}")
