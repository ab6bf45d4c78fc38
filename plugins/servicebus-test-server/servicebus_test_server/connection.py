"""One client's connection: its sessions, and the faults that strike on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from servicebus_test_server.amqp.values import CodecError
from servicebus_test_server.attaching import on_attach
from servicebus_test_server.channel import Channel
from servicebus_test_server.errors import RefusalError, error
from servicebus_test_server.faults import Action, Fault, Point
from servicebus_test_server.frames import FrameError
from servicebus_test_server.outgoing import OutgoingLink
from servicebus_test_server.performatives import (
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    Performative,
    Transfer,
)
from servicebus_test_server.protocol import AmqpProtocol

if TYPE_CHECKING:
    from servicebus_test_server.node import Node

_GRACE_SECONDS = 0.05


class Connection(AmqpProtocol):
    """One client.

    Attributes:
        container_id: The client's name; empty until it has told it.
        peer_frame_size: The largest frame to send, in bytes.
        channels: Its sessions by channel number.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(node.loop, node.max_frame_size)
        self.namespace = node.namespace
        self.container_id = ""
        self.peer_frame_size = 512
        self.channels: dict[int, Channel] = {}
        self._node = node
        self._open = False
        self._idle_time_out: float | None = None

    def on_start(self) -> None:
        """Take part, unless a fault strikes."""
        self._node.connections.add(self)
        self.guard(Point.ACCEPT, "", lambda: None, lambda _refusal: self.reset())

    def on_end(self) -> None:
        """End all links."""
        self._node.connections.discard(self)
        self._end_channels()

    def _end_channels(self) -> None:
        channels, self.channels = self.channels, {}
        for channel in channels.values():
            channel.closed()

    def on_malformed(self, condition: str, description: str) -> None:
        """Close with an error, after the Open that must come before (part 2, section 2.4.3)."""
        if not self._open:
            self._send_open()
        self.fail(condition, description)

    def fail(self, condition: str, description: str) -> None:
        """Close with an error."""
        if self._open:
            self.send(0, Close(error(condition, description)).write())
        self.hang_up()

    def keep_alive(self) -> None:
        """Send an empty frame before the client's patience ends (part 2, section 2.4.5)."""
        if self._idle_time_out is not None and self.loop.time() - self.last_sent > self._idle_time_out / 2:
            self.send(0, b"")

    def detach(self, path: str, condition: str) -> int:
        """Detach the links to an entity; return how many there were."""
        found = [
            (channel, link)
            for channel in self.channels.values()
            for link in channel.links.values()
            if link.path.lower() == path.lower()
        ]
        for channel, link in found:
            channel.detach(link, RefusalError(condition, "detached on command"))
        return len(found)

    # -- faults

    def strike(self, point: Point, entity: str) -> Fault | None:
        """Report an occasion for faults."""
        return self._node.faults.strike(point, entity, self.container_id)

    def attempt(self, apply: Callable[[], None], refuse: Callable[[RefusalError], None]) -> None:
        """Do something, or tell why not."""
        try:
            apply()
        except RefusalError as refusal:
            refuse(refusal)

    def guard(
        self, point: Point, entity: str, apply: Callable[[], None], refuse: Callable[[RefusalError], None]
    ) -> None:
        """Do something, unless a fault strikes."""
        fault = self.strike(point, entity)
        if fault is None:
            self.attempt(apply, refuse)
        elif fault.action is Action.REFUSE:
            refuse(RefusalError(fault.condition, "refused by a fault"))
        else:
            self._suffer(fault, apply, refuse)

    def _suffer(self, fault: Fault, apply: Callable[[], None], refuse: Callable[[RefusalError], None]) -> None:
        if fault.applies:
            self.silent = True
            self.attempt(apply, refuse)
            self.silent = False
        if fault.drops:
            self.reset()
        elif fault.point in (Point.ACCEPT, Point.OPEN):
            self.deaf = True  # what the client has sent ahead is not answered either

    def fail_delivery(self, fault: Fault, link: OutgoingLink) -> None:
        """Let a fault strike at a delivery."""
        if fault.action is Action.DROP_BEFORE:
            self.reset()
        elif fault.action is Action.DROP_AFTER:
            # a reset at once would take the message away from the client, and the SDK leaks its socket when the
            # connection ends without one
            self.flush()
            self.deaf = True
            self._end_channels()
            self.loop.call_later(_GRACE_SECONDS, self.reset)
        elif fault.action is Action.REFUSE:
            link.channel.detach(link, RefusalError(fault.condition, "refused by a fault"))

    # -- what the client sends

    def on_performative(self, channel: int, performative: Performative, payload: bytes) -> None:
        """Handle a frame: the first one opens the connection."""
        if self._open:
            self._dispatch(channel, performative, payload)
        elif isinstance(performative, Open):
            self._on_open(performative)
        else:
            raise FrameError(f"{type(performative).__name__} before Open")

    def _on_open(self, performative: Open) -> None:
        self.container_id = performative.container_id
        self.peer_frame_size = max(512, min(performative.max_frame_size, self._node.max_frame_size))
        if performative.idle_time_out:
            self._idle_time_out = performative.idle_time_out / 1000

        def refuse(refusal: RefusalError) -> None:
            self._send_open()
            self.fail(refusal.condition, refusal.description)

        self.guard(Point.OPEN, "", self._send_open, refuse)

    def _send_open(self) -> None:
        self._open = True
        self.send(0, Open(self._node.container_id, None, self._node.max_frame_size).write())

    def _dispatch(self, number: int, performative: Performative, payload: bytes) -> None:
        if isinstance(performative, Begin):
            if number in self.channels:
                raise CodecError(f"channel {number} has a session already")
            self.channels[number] = Channel(self, number, performative)
        elif isinstance(performative, Close):
            self.send(0, Close().write())
            self.hang_up()
        elif number not in self.channels:
            raise CodecError(f"{type(performative).__name__} on channel {number}, which has no session")
        else:
            self._dispatch_to(self.channels[number], performative, payload)

    def _dispatch_to(self, channel: Channel, performative: Performative, payload: bytes) -> None:
        if isinstance(performative, Transfer):
            channel.on_transfer(performative, payload)
        elif isinstance(performative, Disposition):
            channel.on_disposition(performative)
        elif isinstance(performative, Flow):
            channel.on_flow(performative)
        elif isinstance(performative, Attach):
            on_attach(channel, performative)
        elif isinstance(performative, Detach):
            channel.on_detach(performative)
        elif isinstance(performative, End):
            del self.channels[channel.number]
            channel.closed()
            channel.send(End().write())
        else:
            raise CodecError(f"{type(performative).__name__} is not expected here")
