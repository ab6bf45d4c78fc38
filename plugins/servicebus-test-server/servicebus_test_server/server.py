"""The server: a thread of its own with an event loop, and commands for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from servicebus_test_server.connection import Connection
from servicebus_test_server.declarations import Entity, Subscription
from servicebus_test_server.errors import CONNECTION_FORCED, DETACH_FORCED, NOT_FOUND, SERVER_BUSY, RefusalError
from servicebus_test_server.faults import Action, Fault, Point
from servicebus_test_server.namespace import DEAD_LETTERS
from servicebus_test_server.node import Node
from servicebus_test_server.stored import MessageCounts
from servicebus_test_server.stores import Store
from servicebus_test_server.views import OpenConnection, StoredMessage, describe, snapshot

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
SWEEP_SECONDS = 0.02


class ServiceBusServer:
    """A small Azure Service Bus on this machine, for tests.

    It speaks AMQP 1.0 over plain TCP, as the real SDK does with ``UseDevelopmentEmulator=true``. A context manager:
    it listens from entering to leaving. Everything is kept in memory. Methods may be called from any thread; they
    return when the server's thread has done it, and raise ``RuntimeError`` while the server does not run.

    Not covered: TLS and web sockets, checks of tokens, transactions, partitions, rules over AMQP, the administration
    client.

    Args:
        entities: The queues and topics that exist from the beginning.
        port: The TCP port; 0 for any that is free.
        host: The address to listen on.
        max_frame_size: The largest frame that is taken, in bytes.
    """

    def __init__(
        self, entities: Iterable[Entity] = (), *, port: int = 0, host: str = "127.0.0.1", max_frame_size: int = 65_536
    ) -> None:
        self.host = host
        self.port = port
        self._entities = list(entities)
        self._max_frame_size = max_frame_size
        self._node: Node | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._listener: asyncio.Server | None = None

    @property
    def connection_string(self) -> str:
        """What the SDK's clients are made from."""
        access = "SharedAccessKeyName=Root;SharedAccessKey=any;UseDevelopmentEmulator=true;"
        return f"Endpoint=sb://{self.host}:{self.port};{access}"

    def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: The port is taken, or the host is not known.
            OverflowError: There is no such port.
            ValueError: Two entities have one name, or one forwards to what is not there.
            RuntimeError: It runs already.
        """
        if self._node is not None:
            raise RuntimeError("the server runs already")
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="servicebus-server", daemon=True)
        self._thread.start()
        started.result()

    def stop(self) -> None:
        """Close all connections and stop listening. A server that does not run is left as it is."""
        node, thread, stop = self._node, self._thread, self._stop
        if node is not None and stop is not None and thread is not None:
            node.loop.call_soon_threadsafe(stop.set)
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- entities

    def add(self, *entities: Entity) -> None:
        """Create queues and topics.

        Raises:
            ValueError: There is one of this name.
        """

        def run(node: Node) -> None:
            for entity in entities:
                node.namespace.add(entity)

        self._call(run)

    def add_subscription(self, topic: str, subscription: Subscription) -> None:
        """Create a subscription of a topic; it gets what is sent from now on.

        Raises:
            ValueError: There is no such topic, or it has a subscription of this name.
        """
        self._call(lambda node: node.namespace.add_subscription(topic, subscription))

    def remove(self, path: str) -> None:
        """Delete a queue, a topic with its subscriptions, or a subscription; its messages are gone, its links detached.

        Args:
            path: As `counts` has it, without a dead-letter queue.

        Raises:
            LookupError: There is no such entity.
        """

        def run(node: Node) -> None:
            for gone in node.namespace.remove(_canonical(node, path)):
                for connection in list(node.connections):
                    connection.detach(gone, NOT_FOUND)

        self._call(run)

    # -- looking

    def subscriptions(self) -> list[tuple[str, str | None]]:
        """List the subscriptions of all topics: ``topic/Subscriptions/name``, and the entity each forwards to."""
        return self._call(lambda node: node.namespace.subscriptions())

    def has_subscriptions(self, topic: str) -> bool:
        """Tell whether what is sent to a topic gets anywhere; false where there is no such topic."""
        return self._call(lambda node: node.namespace.has_targets(topic))

    def counts(self, path: str) -> MessageCounts:
        """Count the messages of an entity by state.

        Args:
            path: ``queue``, ``topic`` (its scheduled messages), ``topic/subscription`` or
                ``topic/Subscriptions/subscription``; any of them but a topic also with ``/$DeadLetterQueue``.

        Raises:
            LookupError: There is no such entity.
        """
        return self._call(lambda node: _find(node, path).counts())

    def messages(self, path: str, *, dead: bool = False) -> list[StoredMessage]:
        """Show all messages of an entity, or its dead letters, in order of their numbers.

        Raises:
            LookupError: There is no such entity.
        """
        full = f"{path}/{DEAD_LETTERS}" if dead else path
        return self._call(lambda node: [snapshot(each) for _, each in sorted(_find(node, full).messages.items())])

    def connections(self) -> list[OpenConnection]:
        """Show who is connected."""
        return self._call(lambda node: [describe(each) for each in node.connections])

    # -- failing

    def inject(
        self,
        point: Point,
        action: Action,
        *,
        count: int | None = 1,
        skip: int = 0,
        entity: str | None = None,
        container: str = "",
        condition: str = SERVER_BUSY,
    ) -> Fault:
        """Let something fail; the result counts its hits and can be cancelled. See ``Fault`` for the arguments."""
        path = None if entity is None else self._call(lambda node: _canonical(node, entity))
        fault = Fault(point, action, count, skip, path, container, condition)
        self._call(lambda node: node.faults.add(fault))
        return fault

    def clear_faults(self) -> None:
        """Cancel all faults."""
        self._call(lambda node: node.faults.clear())

    def reset_connections(self, container: str = "") -> int:
        """Reset all connections whose container id starts so; return how many there were."""
        return self._call(lambda node: _reset(node, container))

    def take_offline(self) -> None:
        """Reset all connections and take no more, until `bring_online`. What is stored stays."""

        def run(node: Node) -> None:
            if self._listener is not None:
                self._listener.close()
            _reset(node, "")

        self._call(run)

    def bring_online(self) -> None:
        """Listen again, on the same port."""
        node = self._node
        if node is None:
            raise RuntimeError("the server does not run: use it in a with statement, or call start()")
        asyncio.run_coroutine_threadsafe(self._listen(node), node.loop).result(timeout=30)

    def detach(self, entity: str, condition: str = DETACH_FORCED) -> int:
        """Detach all links to an entity with an error; return how many there were.

        Raises:
            LookupError: There is no such entity.
        """

        def run(node: Node) -> int:
            path = _canonical(node, entity)
            return sum(each.detach(path, condition) for each in list(node.connections))

        return self._call(run)

    def expire_locks(self, path: str | None = None) -> None:
        """Let all locks on messages and sessions end now, of one entity or of all; each counts as a failed delivery.

        The SDK goes by its own clock until it asks the server.

        Raises:
            LookupError: There is no such entity.
        """

        def run(node: Node) -> None:
            for store in list(node.namespace.stores()) if path is None else [_find(node, path)]:
                store.expire_locks()

        self._call(run)

    # -- running

    def _call(self, action: Callable[[Node], T]) -> T:
        node = self._node
        if node is None:
            raise RuntimeError("the server does not run: use it in a with statement, or call start()")
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(action(node))
            except Exception as cause:  # noqa: BLE001 - raised again in the caller's thread
                done.set_exception(cause)

        node.loop.call_soon_threadsafe(run)
        return done.result(timeout=30)

    def _run(self, started: Future[None]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as cause:
            if started.done():
                raise
            started.set_exception(cause)  # whatever it is: `start` waits for it

    async def _serve(self, started: Future[None]) -> None:
        loop = asyncio.get_running_loop()
        node = Node(loop, self._max_frame_size)
        for entity in self._entities:
            node.namespace.add(entity)
        node.namespace.check()
        await self._listen(node)
        self._stop = asyncio.Event()
        self._node = node
        started.set_result(None)
        try:
            await _sweep(node, self._stop)
            if self._listener is not None:
                self._listener.close()
            await _close(node)
        finally:
            self._node = None

    async def _listen(self, node: Node) -> None:
        self._listener = await node.loop.create_server(lambda: Connection(node), self.host, self.port)
        self.port = int(self._listener.sockets[0].getsockname()[1])


async def _sweep(node: Node, stop: asyncio.Event) -> None:
    while not stop.is_set():
        node.namespace.sweep()
        for connection in list(node.connections):
            connection.keep_alive()
        await asyncio.sleep(SWEEP_SECONDS)


async def _close(node: Node) -> None:
    for connection in list(node.connections):
        connection.fail(CONNECTION_FORCED, "the server is shutting down")
    await asyncio.sleep(0.01)
    _reset(node, "")
    await asyncio.sleep(0)  # the loop's next turn tells the connections that they are lost
    await asyncio.sleep(0)


def _reset(node: Node, container: str) -> int:
    found = [each for each in node.connections if each.container_id.startswith(container)]
    for connection in found:
        connection.reset()
    return len(found)


def _find(node: Node, path: str) -> Store:
    head, _, tail = path.partition("/")
    for candidate in (path, f"{head}/Subscriptions/{tail}"):
        try:
            return node.namespace.backlog(candidate)
        except RefusalError:
            continue
    raise LookupError(f"there is no entity {path!r}")


def _canonical(node: Node, path: str) -> str:
    return _find(node, path).path
