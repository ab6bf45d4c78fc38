"""What tests of delivery share: a broker that fails when told to, and hooks that can be waited for."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from diator import BrokerError, BrokerUnavailableError, Diator, Hooks, NotPublishedError
from diator.brokers import (
    BrokerCapability,
    DeadLetter,
    Delivery,
    MemoryBroker,
    OutgoingMessage,
    Receiver,
    Settlement,
    Subscription,
    SubscriptionStatus,
    Topic,
    ValidationIssue,
    dead_letters_of,
)
from diator.hooks import DeadLettered, Handled, Published, Received, Retried, Settled

NOTHING = BrokerCapability(0)


class Watch(Hooks):
    """Keeps what the hooks are told, and waits for more of it."""

    def __init__(self, lines: list[str] | None = None) -> None:
        self.lines = [] if lines is None else lines
        self.told: list[tuple[str, Any]] = []
        self._waiting: list[asyncio.Future[None]] = []

    def published(self, details: Published, /) -> None:
        self._note("published", details, ", ".join(message.envelope.type for message in details.messages))

    def received(self, details: Received, /) -> None:
        self._note("received", details, str(len(details.deliveries)))

    def handled(self, details: Handled, /) -> None:
        self._note("handled", details, type(details.error).__name__ if details.error is not None else "well")

    def retried(self, details: Retried, /) -> None:
        self._note("retried", details, details.subscription)

    def dead_lettered(self, details: DeadLettered, /) -> None:
        self._note("dead_lettered", details, details.failure.reason)

    def settled(self, details: Settled, /) -> None:
        self._note("settled", details, type(details.outcome).__name__)

    def _note(self, kind: str, details: Any, text: str) -> None:
        self.lines.append(f"{kind}: {text}")
        self.told.append((kind, details))
        self.wake()

    def wake(self) -> None:
        """Have conditions looked at again, for those that depend on something else."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def of(self, kind: str, subscription: str | None = None) -> list[Any]:
        """Everything of one kind, of one subscription if it is named."""
        found = [details for told, details in self.told if told == kind]
        return found if subscription is None else [one for one in found if one.subscription == subscription]

    def outcomes(self, subscription: str | None = None) -> list[str]:
        """The names of the outcomes that were settled, in order."""
        return [type(details.outcome).__name__ for details in self.of("settled", subscription)]

    async def until(self, met: Callable[[], bool], within: float = 30.0) -> None:
        """Wait until something that was told makes a condition true."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while not met():
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.append(future)
            try:
                await asyncio.wait_for(future, deadline - loop.time())
            except asyncio.TimeoutError:
                raise AssertionError(f"it did not come within {within:g} s; told so far: {self.lines}") from None

    async def settle(self, count: int, subscription: str | None = None, within: float = 30.0) -> None:
        """Wait until so many messages were settled."""
        await self.until(lambda: len(self.of("settled", subscription)) >= count, within)


def away() -> BrokerError:
    return BrokerUnavailableError("away")


class Flaky:
    """The broker in memory behind a bad line: operations fail while ``broken`` names them.

    ``lines`` gets a line for each publish and settlement.
    """

    def __init__(
        self,
        inner: MemoryBroker | None = None,
        *,
        without: BrokerCapability = NOTHING,
        limit: int | None = None,
        lines: list[str] | None = None,
    ) -> None:
        self.inner = inner or MemoryBroker()
        self.capabilities = self.inner.capabilities & ~without
        self.max_message_bytes = limit
        self.lines = [] if lines is None else lines
        self.broken: dict[str, Callable[[], BaseException]] = {}
        self.slow: dict[str, float] = {}
        """Seconds that an operation takes before it fails or works."""
        self.times: Counter[str] = Counter()
        """How often an operation was tried."""
        self.tamper: Callable[[Delivery], Delivery] = lambda delivery: delivery
        self.publishing: Callable[[Sequence[OutgoingMessage]], Awaitable[None]] | None = None
        """Takes the place of publishing."""
        self.publications: list[tuple[tuple[OutgoingMessage, ...], float, bool]] = []
        self.refusals: list[ValidationIssue] = []
        self.validated: list[tuple[Sequence[Subscription], Sequence[Topic]]] = []
        self.receivers: list[FlakyReceiver] = []

    system = "memory"
    address: str | None = None

    @property
    def lease(self) -> float | None:
        return self.inner.lease

    def break_down(self, *operations: str, error: Callable[[], BaseException] = away) -> None:
        """Have operations fail from now on."""
        self.broken.update(dict.fromkeys(operations or _ALL, error))

    def mend(self, *operations: str) -> None:
        """Have operations work again."""
        for operation in operations or tuple(self.broken):
            self.broken.pop(operation, None)

    async def attempt(self, operation: str) -> None:
        self.times[operation] += 1
        if operation in self.slow:
            await asyncio.sleep(self.slow[operation])
        if operation in self.broken:
            make_error = self.broken[operation]
            raise make_error()

    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[ValidationIssue]:
        self.validated.append((subscriptions, topics))
        return self.refusals

    async def connect(self) -> None:
        await self.inner.connect()
        await self.attempt("connect")

    async def aclose(self) -> None:
        await self.inner.aclose()
        await self.attempt("aclose")

    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        self.publications.append((tuple(messages), timeout, wait_for_room))
        try:
            await self.attempt("publish")
        except BrokerError as error:
            raise NotPublishedError(messages) from error
        if self.publishing is not None:
            await self.publishing(messages)
        else:
            await self.inner.publish(messages, timeout=timeout, wait_for_room=wait_for_room)
        self.lines.extend(f"broker has {message.envelope.type}" for message in messages)

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        await self.attempt("apply")
        return await self.inner.apply(subscriptions, topics)

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        await self.attempt("status")
        return await self.inner.status(subscriptions)

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        await self.attempt("subscribe")
        receiver = FlakyReceiver(self, await self.inner.subscribe(subscription))
        self.receivers.append(receiver)
        return receiver

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        return await self.inner.dead_letters(subscription, after=after, limit=limit)

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        return await self.inner.replay(subscription, ids)

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        return await self.inner.purge(subscription, ids)


_ALL = ("publish", "apply", "subscribe", "receive", "settle", "renew", "status")


class FlakyReceiver:
    """One that is ``dead`` belongs to a process that was killed: what it has comes again when its lease has run out."""

    def __init__(self, broker: Flaky, inner: Receiver) -> None:
        self.broker = broker
        self.inner = inner
        self.dead = False

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        await self._alive()
        await self.broker.attempt("receive")
        return [self.broker.tamper(delivery) for delivery in await self.inner.receive(limit)]

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        await self._alive()
        await self.broker.attempt("settle")
        lost = await self.inner.settle(settlements)
        self.broker.lines.extend(f"broker settled {type(outcome).__name__}" for _, outcome in settlements)
        return lost

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        await self._alive()
        await self.broker.attempt("renew")
        return await self.inner.renew(deliveries)

    async def aclose(self) -> None:
        if not self.dead:
            await self.inner.aclose()

    async def _alive(self) -> None:
        if self.dead:
            await asyncio.get_running_loop().create_future()


def subscriptions_of(broker: Flaky) -> list[Subscription]:
    """What an app asked the broker for, when it was looked through last."""
    return list(broker.validated[-1][0])


async def letters(broker: Flaky, name: str | None = None) -> list[DeadLetter]:
    """The dead letters of one subscription, or of all, oldest first."""
    wanted = [one for one in subscriptions_of(broker) if name in (None, one.name)]
    return [letter for one in wanted async for letter in dead_letters_of(broker, one)]


async def put(broker: Flaky, topic: str, body: bytes, key: str | None = None) -> None:
    """Put bytes into every queue of a topic, whatever they are."""
    topics: dict[str, Any] = broker.inner._topics  # pyright: ignore[reportPrivateUsage]  # nobody else publishes rubbish
    for queue in topics[topic].queues:
        queue.put(topic, body, key)


async def die(app: Diator, broker: Flaky, worker: Any) -> None:
    """End a worker as a process ends that is killed: it settles and renews nothing any more."""
    mine = {id(c._loop.receiver) for c in worker.consumers if c._loop}  # what it holds is nobody else's business
    for receiver in broker.receivers:
        receiver.dead = receiver.dead or id(receiver) in mine
    worker.cancel()
    await worker.__aexit__(None, None, None)
