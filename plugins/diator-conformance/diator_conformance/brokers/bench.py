"""How a case gets its broker, and what happens if the broker does not support the case."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar, Concatenate, NamedTuple, TypeVar
from uuid import uuid4

import hypothesis
import pytest
from typing_extensions import ParamSpec

from diator.brokers.letters import dead_letters_of
from diator.brokers.port import (
    ACK,
    Broker,
    BrokerCapability,
    DeadLetter,
    Delivery,
    KeepsDeadLetters,
    Receiver,
    Subscription,
    Topic,
)
from diator.brokers.refusals import refusals_of
from diator_conformance.brokers.messages import numbers
from diator_conformance.overriding import Suite, own_case

NOTHING = BrokerCapability(0)

# Any: of a coroutine, only what it returns matters to who awaits it.
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., None])
B = TypeVar("B", bound="BrokerSuiteBase")


class BrokerOptions(NamedTuple):
    """The settings that a case needs. Use those that your broker has."""

    lease: float = 30.0
    """Seconds for which a delivery belongs to its receiver; the suite uses the value that the broker has."""
    capacity: int = 100_000
    """The number of messages that a subscription can hold, with `BrokerCapability.BACKPRESSURE`."""
    duplicate_window: float = 0.0
    """Seconds for which duplicates are dropped, with `BrokerCapability.DUPLICATE_DETECTION`; 0 for never."""


ANY = BrokerOptions()


def case(
    needs: BrokerCapability = NOTHING, wanted: BrokerOptions = ANY, *, short_lease: bool = False, loops: int = 1
) -> Callable[[Callable[Concatenate[B, P], Coroutine[Any, Any, None]]], Callable[Concatenate[B, P], None]]:
    """Make a case of the suite, which needs these capabilities. It runs in an event loop of its own, or in several."""

    def decorate(body: Callable[Concatenate[B, P], Coroutine[Any, Any, None]]) -> Callable[Concatenate[B, P], None]:
        @own_case
        @functools.wraps(body)
        def run(self: B, /, *args: P.args, **kwargs: P.kwargs) -> None:
            asked = wanted._replace(lease=self.short_lease) if short_lease else wanted
            self.play(lambda: body(self, *args, **kwargs), needs, asked, loops)

        return run

    return decorate


def seeded(number: int) -> Callable[[F], F]:
    """Return the decorator for a test of hypothesis that chooses its examples by this number, if it is not 0."""
    return hypothesis.seed(number) if number else lambda test: test


def keeper(broker: Broker) -> KeepsDeadLetters:
    """Return a broker as one that keeps dead letters, as its capabilities say."""
    assert isinstance(broker, KeepsDeadLetters), f"{type(broker).__name__} lacks a method of KeepsDeadLetters"
    return broker


class BrokerSuiteBase(Suite):
    """The base of all cases: the hooks of the plugin's author, and helpers for cases."""

    case_timeout: ClassVar[float] = 20.0
    """Seconds that a case may take before it fails. The longest waits for six short leases."""
    receive_timeout: ClassVar[float] = 5.0
    """Seconds to wait for an expected message."""
    quiet_period: ClassVar[float] = 0.1
    """Seconds to wait for unexpected messages."""
    retry_delay: ClassVar[float] = 0.2
    """The delay of a retry in seconds."""
    short_lease: ClassVar[float] = 0.4
    """The lease in seconds, in cases that wait for its end."""
    message_count: ClassVar[int] = 2_000
    """The number of messages in the stress case."""
    tail: ClassVar[int] = 1_500
    """The number of messages behind a retry of their key, in the case about other keys."""
    max_examples: ClassVar[int] = 25
    """The number of random programs."""
    lives: ClassVar[int] = 12
    """The number of random lives of receivers, in the case about stranded messages."""
    seed: ClassVar[int] = int(os.environ.get("DIATOR_CONFORMANCE_SEED", "0"))
    """Selects the random programs and lives, the same ones for the same number. 0 selects the default ones."""
    shrink: ClassVar[bool] = True
    """Whether to shorten a failed random program, which takes a while."""

    namespace: str = ""
    """The namespace of the current case, which is part of the names of its topics and subscriptions."""
    _wanted: BrokerOptions = ANY

    # What the author writes.

    def make_broker(self, space: str, wanted: BrokerOptions) -> Broker:
        """Create a broker that is not connected. Implemented by the author of the plugin.

        Brokers of the same ``space`` share their data, like two processes; brokers of different spaces share nothing. A
        case may create several brokers in its space.
        """
        raise NotImplementedError(f"write {type(self).__qualname__}.make_broker: it makes the broker under test")

    async def clean_up(self, space: str) -> None:
        """Delete everything that a case has left at the broker. Optional."""

    async def cut_connections(self) -> None:
        """Break all connections to the broker, which keeps running. Optional: without it, cases are skipped."""
        pytest.skip("the author has written no cut_connections")

    @property
    def can_cut(self) -> bool:
        """Whether the author has written `cut_connections`."""
        return type(self).cut_connections is not BrokerSuiteBase.cut_connections

    async def stop_server(self) -> None:
        """Make the broker unreachable until `start_server`. Optional: cases that need it are skipped without it."""
        pytest.skip("the author has written no stop_server and start_server")

    async def start_server(self) -> None:
        """Make the broker reachable again, with its durable data. Optional."""
        pytest.skip("the author has written no stop_server and start_server")

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a case in a new event loop. Override it to use another kind of loop."""
        asyncio.run(main)

    # What cases are written with.

    def play(
        self,
        body: Callable[[], Awaitable[None]],
        needs: BrokerCapability = NOTHING,
        wanted: BrokerOptions = ANY,
        loops: int = 1,
    ) -> None:
        """Run the body of a case in its own space, once in each of several event loops."""
        self.namespace = f"t{uuid4().hex[:12]}"
        self._wanted = wanted
        for lap in range(loops):
            self.run(self._play(body, needs, last=lap == loops - 1))

    async def _play(self, body: Callable[[], Awaitable[None]], needs: BrokerCapability, *, last: bool) -> None:
        self._opened: list[Broker] = []
        lacking = needs & ~self.new_broker().capabilities
        if lacking:
            pytest.skip(f"the broker does not declare {lacking!r}")
        try:
            await asyncio.wait_for(body(), self.case_timeout)
        finally:
            await asyncio.wait_for(self._close(last=last), self.case_timeout)

    async def _close(self, *, last: bool) -> None:
        for broker in self._opened:
            await broker.aclose()
        if last:
            await self.clean_up(self.namespace)

    def new_broker(self) -> Broker:
        """Create another broker in the space of this case, as another process would; it is not connected."""
        return self.make_broker(self.namespace, self._wanted)

    async def connected(self, broker: Broker | None = None) -> Broker:
        """Return a connected broker, which is closed at the end of the case."""
        broker = broker or self.new_broker()
        self._opened.append(broker)  # also where it is away, which counts too
        await broker.connect()
        return broker

    async def given(self, *subscriptions: Subscription) -> Broker:
        """Return a connected broker with these subscriptions, after validating them."""
        broker = self.new_broker()
        topics = self.topics_of(*subscriptions)
        refusals = list(refusals_of(broker, subscriptions, topics))
        assert not refusals, f"validate refuses what the capabilities promise: {refusals}"
        await self.connected(broker)
        await broker.apply(subscriptions, topics)
        return broker

    async def receiver(self, subscription: Subscription) -> Receiver:
        """Open a receiver on a subscription, from another process."""
        return await (await self.connected()).subscribe(subscription)

    def topic(self, name: str = "orders") -> Topic:
        """Return the name of a topic of this case."""
        return Topic(f"{self.namespace}.{name}", ("thing.happened",))

    def subscription(
        self, name: str = "handler", *topics: str, ordered: bool = False, max_delay: float = 1.0
    ) -> Subscription:
        """Return a subscription of this case, with the strongest guarantees of the broker."""
        capabilities = self.new_broker().capabilities
        return Subscription(
            f"{self.namespace}.{name}",
            tuple(self.topic(topic) for topic in topics or ("orders",)),
            ordered=ordered,
            at_most_once=BrokerCapability.ACKNOWLEDGED not in capabilities,
            max_delay=max_delay if BrokerCapability.DELAYED_RETRY in capabilities else 0.0,
        )

    def topics_of(self, *subscriptions: Subscription) -> list[Topic]:
        """Return the topics of subscriptions, each once."""
        return list(dict.fromkeys(topic for one in subscriptions for topic in one.topics))

    async def receive(self, receiver: Receiver, limit: int) -> Sequence[Delivery]:
        """Receive once; fail if there are no messages or too many."""
        task = asyncio.ensure_future(receiver.receive(limit))
        done, _ = await asyncio.wait([task], timeout=self.receive_timeout)
        if not done:
            await _cancel(task)
            pytest.fail(f"nothing was received within {self.receive_timeout} s")
        deliveries = task.result()
        assert deliveries, "receive gave nothing, though its receiver was open"
        assert len(deliveries) <= limit, f"receive({limit}) gave {len(deliveries)}"
        return deliveries

    async def take(self, receiver: Receiver, count: int) -> list[Delivery]:
        """Receive exactly this number of messages."""
        taken: list[Delivery] = []
        while len(taken) < count:
            taken += await self.receive(receiver, count - len(taken))
        return taken

    async def take_one(self, receiver: Receiver) -> Delivery:
        """Receive one message."""
        return (await self.take(receiver, 1))[0]

    async def take_from(
        self, receivers: Sequence[Receiver], count: int, *, limit: int = 1, timeout: float | None = None
    ) -> list[list[Delivery]]:
        """Receive at least this number of messages with several receivers at a time; return those of each."""
        taken, timeout = [list[Delivery]() for _ in receivers], timeout or self.receive_timeout
        while sum(map(len, taken)) < count:
            tasks = [asyncio.ensure_future(receiver.receive(limit)) for receiver in receivers]
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                await _cancel(task)
            if all(task.cancelled() for task in tasks):
                pytest.fail(f"none of the receivers got anything within {timeout} s")
            for mine, task in zip(taken, tasks, strict=True):
                mine.extend(() if task.cancelled() else task.result())
        return taken

    async def nothing_comes(self, *receivers: Receiver) -> None:
        """Wait for a while; fail if a message is received."""
        tasks = [asyncio.ensure_future(receiver.receive(10)) for receiver in receivers]
        done, _ = await asyncio.wait(tasks, timeout=self.quiet_period, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            await _cancel(task)
        came = [numbers(task.result()) for task in done]
        assert not came, f"nothing should have come, but {came} did"

    async def ack(self, receiver: Receiver, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge all; fail if a lease was lost."""
        lost = await receiver.settle([(delivery, ACK) for delivery in deliveries])
        assert not lost, f"the leases of {list(lost)} were reported as lost"

    async def letters(self, broker: Broker, subscription: Subscription) -> list[DeadLetter]:
        """Read all dead letters."""
        return [letter async for letter in dead_letters_of(keeper(broker), subscription)]

    async def after_the_lease(self, broker: Broker) -> None:
        """Wait until leases have expired; end the case if they never do."""
        if broker.lease is None:
            pytest.skip("the leases of this broker last as long as its receivers are connected")
        await asyncio.sleep(broker.lease * 1.3)


async def _cancel(task: "asyncio.Future[Any]") -> None:
    """Cancel a task and wait for its end; its error, if it has one, is for who asks for its result."""
    task.cancel()
    await asyncio.wait([task])
