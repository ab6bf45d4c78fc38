"""Deciding what a new link is for, from its role and addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servicebus_test_server.addresses import CBS, MANAGEMENT, path_of, session_filter
from servicebus_test_server.cbs import put_token
from servicebus_test_server.errors import NOT_ALLOWED, RefusalError
from servicebus_test_server.faults import Point
from servicebus_test_server.incoming import PublishLink, RequestLink
from servicebus_test_server.management import manage
from servicebus_test_server.messages import AmqpMessage
from servicebus_test_server.outgoing import ConsumerLink, ReplyLink
from servicebus_test_server.performatives import SENDER, Attach
from servicebus_test_server.stored import now

if TYPE_CHECKING:
    from servicebus_test_server.channel import Channel, Link

SESSION_WAIT = 65_000
"""How long a receiver waits for a session where it does not say, in ms."""


def on_attach(channel: Channel, attach: Attach) -> None:
    """Answer an attach."""
    try:
        path = path_of(attach.target if attach.role == SENDER else attach.source)
    except RefusalError as refusal:
        channel.refuse(attach, refusal)
        return
    if path.lower() == CBS or path.lower().endswith(MANAGEMENT):
        channel.connection.attempt(
            lambda: _attach_node(channel, attach, path), lambda refusal: channel.refuse(attach, refusal)
        )
    else:
        channel.connection.guard(
            Point.ATTACH,
            path,
            lambda: _attach_entity(channel, attach, path),
            lambda refusal: channel.refuse(attach, refusal),
        )


def _attach_node(channel: Channel, attach: Attach, path: str) -> None:
    link: Link
    if path.lower() != CBS:
        channel.connection.namespace.backlog(path[: -len(MANAGEMENT)])  # refuses what is not there
    if attach.role == SENDER:
        link = RequestLink(channel, attach, path, lambda request: _handle(channel, path, request))
    else:
        link = ReplyLink(channel, attach, path)
    channel.add(link)
    channel.confirm(link)


def _handle(channel: Channel, path: str, request: AmqpMessage) -> None:
    """Handle a request. The address for the answer is not unique, so only this connection's links are looked at."""
    replies = [
        link for link in channel.links.values() if isinstance(link, ReplyLink) and link.path.lower() == path.lower()
    ]
    if not replies:
        return
    if path.lower() == CBS:
        put_token(channel.connection, request, replies[0].reply)
    else:
        manage(channel.connection, path[: -len(MANAGEMENT)], request, replies[0].reply)


def _attach_entity(channel: Channel, attach: Attach, path: str) -> None:
    if attach.role == SENDER:
        link = PublishLink(channel, attach, channel.connection.namespace.send_target(path))
        channel.add(link)
        channel.confirm(link)
    else:
        _attach_consumer(channel, ConsumerLink(channel, attach, channel.connection.namespace.store(path)))


def _attach_consumer(channel: Channel, link: ConsumerLink) -> None:
    asked, session_id = session_filter(link.attach.source)
    sessions = link.store.sessions
    if asked != (sessions is not None):
        needs = "requires" if sessions is not None else "does not support"
        raise RefusalError(NOT_ALLOWED, f"{link.path} {needs} sessions")
    channel.add(link)
    if sessions is None:
        link.confirm()
    elif session_id is not None:
        sessions.accept(link, session_id, now())
    else:
        limit = link.attach.properties.get("com.microsoft:timeout")
        sessions.wait(link, now() + (limit if isinstance(limit, int) else SESSION_WAIT))
        sessions.serve(now())
