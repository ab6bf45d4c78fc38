"""Cases: how messages are delivered, and that none is lost between two receives."""

import asyncio
import contextlib
import random
from collections.abc import Generator, Sequence

import pytest

from diator.brokers.port import ACK, BrokerCapability, Delivery, Receiver
from diator.errors import BrokerError
from diator_conformance.brokers.bench import BrokerSuiteBase, case
from diator_conformance.brokers.messages import messages, numbers


class Receiving(BrokerSuiteBase):
    """Receiving: messages are delivered, and none is lost between two receives."""

    @case(BrokerCapability.CONSUMER_GROUPS)
    async def test_each_message_is_with_one_of_the_receivers(self) -> None:
        """Workers of one subscription, in this and in other processes, compete for its messages."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receivers = [await broker.subscribe(subscription), await self.receiver(subscription)]
        await broker.publish(messages(40, self.topic()), timeout=self.receive_timeout)
        mine = await self.take(receivers[0], 10)
        others = await self.take(receivers[1], 30)
        assert sorted(numbers(mine) + numbers(others)) == list(range(40))
        await self.nothing_comes(*receivers)

    @case()
    async def test_receive_gives_at_most_what_was_asked_for(self) -> None:
        """The rest remains for the next call."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(10, self.topic()), timeout=self.receive_timeout)
        taken: list[Delivery] = []
        while len(taken) < 10:
            taken += await self.receive(receiver, 3)  # which looks at the limit
        assert sorted(numbers(taken)) == list(range(10))

    @case()
    async def test_receive_waits_until_there_is_something(self) -> None:
        """It returns messages that are published while it waits."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        task = asyncio.ensure_future(self.receive(receiver, 5))
        await asyncio.sleep(self.quiet_period)
        assert not task.done()
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        assert numbers(await task) == [0]

    @case()
    async def test_receive_may_begin_while_its_receiver_winds_down(self) -> None:
        """A receiver that was not called for a while may release its messages, and is called again during that."""
        pauses = [ticks * _TICK for ticks in (1, 2, 4, 10, 20)]
        subscriptions = [self.subscription(f"handler{number}") for number in range(len(pauses))]
        broker = await self.given(*subscriptions)
        receivers = [await broker.subscribe(subscription) for subscription in subscriptions]
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        loop = asyncio.get_running_loop()

        async def follow(receiver: Receiver, pause: float) -> list[int]:
            before = await receiver.receive(1)
            pausing = loop.create_future()
            loop.call_at(loop.time() + pause - 1e-6, pausing.set_result, None)  # just before a timer of the receiver
            await self.ack(receiver, before)
            await pausing
            after = await receiver.receive(1)
            await self.ack(receiver, after)
            return numbers([*before, *after])

        with _coarse_clock():
            following = [asyncio.ensure_future(follow(*one)) for one in zip(receivers, pauses, strict=True)]
            await asyncio.sleep(pauses[-1] + self.quiet_period)
            await broker.publish(messages(1, self.topic(), first=1), timeout=self.receive_timeout)
            _, stuck = await asyncio.wait(following, timeout=self.receive_timeout)
        for task in stuck:
            task.cancel()
        assert not stuck, f"asked again after {[pauses[following.index(task)] for task in stuck]} s, it got nothing"
        assert [task.result() for task in following] == [[0, 1]] * len(pauses)

    @case(BrokerCapability.ACKNOWLEDGED)
    async def test_receive_may_be_cancelled_at_any_time(self) -> None:
        """Its messages are returned by the next call, or released: nothing is lost, and nothing is counted."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        dice = random.Random(1)  # noqa: S311 - to vary, not to hide
        taken: list[Delivery] = []
        for first in range(0, 120, 2):
            task = asyncio.ensure_future(receiver.receive(3))
            await asyncio.sleep(dice.choice((0, 0, 0.001, 0.003)))
            await broker.publish(messages(2, self.topic(), first=first), timeout=self.receive_timeout)
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            taken += [] if task.cancelled() else task.result()
        taken += await self.take(receiver, 120 - len(taken))
        assert sorted(numbers(taken)) == list(range(120))
        assert {delivery.deliveries for delivery in taken} == {1}
        await self.ack(receiver, taken)

    @case(BrokerCapability.ACKNOWLEDGED)
    async def test_a_receiver_that_is_closed_gives_back_at_once(self) -> None:
        """Its unsettled messages go to another receiver, as if they had not been delivered."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(5, self.topic()), timeout=self.receive_timeout)
        await self.ack(receiver, [first := await self.take_one(receiver)])
        rest = await self.take(receiver, 3)
        await receiver.aclose()
        again = await self.take(await self.receiver(subscription), 4)
        assert sorted(numbers(again) + numbers([first])) == [0, 1, 2, 3, 4]
        assert {(delivery.failures, delivery.deliveries) for delivery in again} == {(0, 1)}
        assert {*numbers(rest)} < {*numbers(again)}

    @case()
    async def test_closing_a_receiver_ends_its_receive(self) -> None:
        """A waiting receive then returns nothing; closing twice does nothing more."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        waiting = await self._waits(receiver)
        await receiver.aclose()
        await receiver.aclose()
        assert not await self._end_of(waiting)

    @case()
    async def test_closing_the_broker_closes_its_receivers(self) -> None:
        """A waiting receive then returns no messages, and the broker may be closed again."""
        subscription = self.subscription()
        await self.given(subscription)
        await self._close(last=False)
        self._opened.clear()
        broker = self.new_broker()
        await broker.connect()
        waiting = await self._waits(await broker.subscribe(subscription))
        await broker.aclose()
        await broker.aclose()
        assert not await self._end_of(waiting)

    @case(BrokerCapability.CONSUMER_GROUPS | BrokerCapability.ACKNOWLEDGED)
    async def test_a_closed_receiver_leaves_the_rest_to_others(self) -> None:
        """Later messages are not kept for it."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        closed, receiver = await broker.subscribe(subscription), await self.receiver(subscription)
        waiting = await self._waits(closed)
        await closed.aclose()
        await self._end_of(waiting)
        await broker.publish(messages(10, self.topic()), timeout=self.receive_timeout)
        assert sorted(numbers(await self.take(receiver, 10))) == list(range(10))

    async def _waits(self, receiver: Receiver) -> "asyncio.Future[Sequence[Delivery]]":
        waiting = asyncio.ensure_future(receiver.receive(5))
        await asyncio.sleep(self.quiet_period)
        assert not waiting.done()
        return waiting

    async def _end_of(self, waiting: "asyncio.Future[Sequence[Delivery]]") -> Sequence[Delivery]:
        await asyncio.wait([waiting], timeout=self.receive_timeout)
        assert waiting.done(), f"receive still waits {self.receive_timeout} s after its receiver was closed"
        return waiting.result()

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    @case(BrokerCapability.ACKNOWLEDGED)
    async def test_what_is_settled_while_its_receiver_closes_is_settled_or_lost(self, ordered: bool) -> None:
        """Or the call fails, and may be repeated. Messages reported as settled are not redelivered."""
        if ordered and BrokerCapability.ORDER_BY_KEY not in self.new_broker().capabilities:
            pytest.skip("the broker does not declare ORDER_BY_KEY")
        subscription = self.subscription(ordered=ordered)
        broker = await self.given(subscription)
        await broker.publish(messages(24, self.topic()), timeout=self.receive_timeout)
        settled: set[int] = set()
        for turns in (0, 1, 2, 3, 5, 8, 13, 21):
            receiver = await broker.subscribe(subscription)
            taken = await self.take(receiver, 3)
            closing = asyncio.ensure_future(receiver.aclose())
            for _ in range(turns):
                await asyncio.sleep(0)
            for moment in range(2):
                with contextlib.suppress(BrokerError):
                    lost = await receiver.settle([(delivery, ACK) for delivery in taken])
                    settled |= {*numbers(taken)} - {*numbers(lost)}
                if not moment:
                    await closing
        receiver = await self.receiver(subscription)
        came: list[int] = []
        while True:
            waiting = asyncio.ensure_future(receiver.receive(24))
            if not (await asyncio.wait([waiting], timeout=self.receive_timeout / 2))[0]:
                break
            came += numbers(waiting.result())
            await self.ack(receiver, waiting.result())
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not settled & {*came}, "it was reported as settled"


_TICK = 0.05


@contextlib.contextmanager
def _coarse_clock() -> Generator[None]:
    """Let the event loop's clock tick seldom: timers that end at nearly the same time end in the same turn of it."""
    loop = asyncio.get_running_loop()
    exact = loop.time
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(loop, asyncio.BaseEventLoop):  # uvloop's clock can't be replaced
            patch.setattr(loop, "time", lambda: exact() // _TICK * _TICK)
        yield
