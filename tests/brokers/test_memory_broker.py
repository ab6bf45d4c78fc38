"""The broker in memory passes the suite for plugins; and what is particular about it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

import pytest
from diator_conformance import BrokerOptions, BrokerSuite
from diator_conformance.brokers.messages import message, messages, numbers

from diator.brokers import ACK, RELEASE, BrokerCapability, MemoryBroker, RetryAfter, Subscription, Topic
from diator.errors import BrokerError, BrokerUnavailableError, ConfigurationError, NotPublishedError
from tests.brokers.swift_loop import run_swiftly

ORDERS = Topic("orders", ("order.placed",))
BILLS = Topic("bills", ("bill.sent",))
HANDLER = Subscription("shop.handler", (ORDERS,))


class TestMemoryBroker(BrokerSuite):
    """In a loop whose time passes at once, so that many random programs cost little."""

    max_examples = 150
    spaces: ClassVar[dict[str, MemoryBroker]] = {}

    def make_broker(self, space: str, wanted: BrokerOptions) -> MemoryBroker:
        if space not in self.spaces:
            window = wanted.duplicate_window
            self.spaces[space] = MemoryBroker(wanted.capacity, wanted.lease, duplicate_window=window)
        return self.spaces[space]

    async def clean_up(self, space: str) -> None:
        del self.spaces[space]

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        run_swiftly(main)


async def opened(*subscriptions: Subscription, broker: MemoryBroker | None = None) -> MemoryBroker:
    broker = broker or MemoryBroker()
    await broker.connect()
    await broker.apply(subscriptions or [HANDLER])
    return broker


def test_an_address_gives_the_settings() -> None:
    broker = MemoryBroker.from_url("memory://?capacity=2&lease=0.5&duplicate_window=60")
    assert broker.lease == 0.5
    assert BrokerCapability.DUPLICATE_DETECTION in broker.capabilities
    assert MemoryBroker.from_url("memory://").lease == 30.0
    assert BrokerCapability.DUPLICATE_DETECTION not in MemoryBroker.from_url("memory://").capabilities


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("memory://?capcity=5", "unknown setting 'capcity'"),
        ("memory://?capacity=", "capacity='', which is not a whole number"),
        ("memory://?capacity=1.5", "capacity='1.5', which is not a whole number"),
        ("memory://?lease=long", "lease='long', which is not a number"),
        ("memory://?lease=nan", "lease='nan', which is not a number"),
        ("memory://?lease=-1", "lease=-1.0; expected a number of seconds greater than 0"),
        ("memory://?capacity=0", "capacity=0; expected a whole number from 1 up"),
        ("memory://?duplicate_window=-1", "duplicate_window=-1.0; expected a number of seconds from 0"),
        ("memory://localhost/7", "has a host or a path"),
        ("redis://", "has a host or a path"),
    ],
)
def test_a_wrong_address_is_refused_with_what_is_allowed(address: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        MemoryBroker.from_url(address)
    (problem,) = raised.value.problems
    assert why in problem.text
    assert problem.fix


def test_the_remedy_of_a_wrong_address_names_every_parameter() -> None:
    with pytest.raises(ConfigurationError, match=r"memory://\?capacity=10000&lease=30&duplicate_window=60"):
        MemoryBroker.from_url("memory://?size=5")


def test_all_that_is_wrong_with_the_settings_is_told() -> None:
    with pytest.raises(ConfigurationError, match="2 problems"):
        MemoryBroker(capacity=0, lease=0)


async def test_publishing_awaits_nothing_where_there_is_room() -> None:
    broker = await opened()
    with pytest.raises(StopIteration):
        broker.publish(messages(3, ORDERS), timeout=1).send(None)
    (status,) = await broker.status([HANDLER])
    assert status.backlog == 3


async def test_capacity_counts_what_is_not_settled_and_no_dead_letters() -> None:
    broker = await opened(broker=MemoryBroker(capacity=2))
    receiver = await broker.subscribe(HANDLER)
    await broker.publish(messages(2, ORDERS), timeout=1)
    first, second = await receiver.receive(5)
    with pytest.raises(
        NotPublishedError, match=r"no capacity for topic 'orders' within 0.01 s: shop.handler holds 2 messages"
    ) as raised:
        await broker.publish(messages(1, ORDERS), timeout=0.01)
    assert isinstance(raised.value.__cause__, BrokerUnavailableError)
    await receiver.settle([(first, RetryAfter(60.0))])
    with pytest.raises(NotPublishedError):
        await broker.publish(messages(1, ORDERS), timeout=0.01)
    await receiver.settle([(second, ACK)])
    await broker.publish(messages(1, ORDERS), timeout=0.01)


async def test_publishers_go_on_in_the_order_in_which_they_came() -> None:
    broker = await opened(broker=MemoryBroker(capacity=1))
    receiver = await broker.subscribe(HANDLER)
    batches = [messages(2, ORDERS, first=10 * at) for at in range(3)]
    sends = [asyncio.ensure_future(broker.publish(batch, timeout=1)) for batch in batches]
    await asyncio.sleep(0)
    came: list[int] = []
    while len(came) < 6:
        deliveries = await receiver.receive(5)
        came += numbers(deliveries)
        await receiver.settle([(delivery, ACK) for delivery in deliveries])
    await asyncio.gather(*sends)
    assert came == [0, 1, 10, 20, 11, 21]


@pytest.mark.parametrize("turns", range(4))
async def test_closing_sends_away_who_waits_for_room(turns: int) -> None:
    broker = await opened(broker=MemoryBroker(capacity=1))
    sending = asyncio.ensure_future(broker.publish(messages(3, ORDERS), timeout=3600))
    for _ in range(1 + turns):
        await asyncio.sleep(0)
    await broker.aclose()
    with pytest.raises(NotPublishedError, match="was closed") as raised:
        await sending
    assert [one.id for one in raised.value.unsent] == ["1", "2"]


async def test_one_batch_wakes_one_receiver() -> None:
    broker = await opened()
    receivers = [await broker.subscribe(HANDLER) for _ in range(3)]
    waiting = [asyncio.ensure_future(receiver.receive(10)) for receiver in receivers]
    await asyncio.sleep(0)
    await broker.publish(messages(10, ORDERS), timeout=1)
    done, rest = await asyncio.wait(waiting, timeout=0.02)
    assert [numbers(task.result()) for task in done] == [list(range(10))]
    assert len(rest) == 2
    await broker.aclose()
    await asyncio.wait(rest)


async def test_a_batch_that_is_too_large_for_one_receiver_wakes_the_next() -> None:
    broker = await opened()
    receivers = [await broker.subscribe(HANDLER) for _ in range(3)]
    waiting = [asyncio.ensure_future(receiver.receive(2)) for receiver in receivers]
    await asyncio.sleep(0)
    await broker.publish(messages(6, ORDERS), timeout=1)
    assert [numbers(one) for one in await asyncio.gather(*waiting)] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("turns", range(3))
async def test_who_is_cancelled_when_woken_wakes_another(turns: int) -> None:
    broker = await opened()
    receivers = [await broker.subscribe(HANDLER) for _ in range(2)]
    first, second = [asyncio.ensure_future(receiver.receive(1)) for receiver in receivers]
    await asyncio.sleep(0)
    if turns == 2:
        first.cancel()
    await broker.publish(messages(1, ORDERS), timeout=1)
    if turns == 0:
        first.cancel()
    elif turns == 1:
        await receivers[0].aclose()
    assert numbers(await asyncio.wait_for(second, 1)) == [0]
    await asyncio.wait([first])


async def test_keys_share_in_what_one_receive_gives() -> None:
    subscription = HANDLER._replace(ordered=True)
    broker = await opened(subscription)
    receiver = await broker.subscribe(subscription)
    await broker.publish(messages(100, ORDERS, "much"), timeout=1)
    await broker.publish(messages(1, ORDERS, "little", first=200), timeout=1)
    assert numbers(await receiver.receive(4)) == [0, 1, 200]


async def test_order_holds_across_the_topics_of_a_subscription() -> None:
    subscription = Subscription("shop.handler", (ORDERS, BILLS), ordered=True)
    broker = await opened(subscription)
    receiver = await broker.subscribe(subscription)
    await broker.publish([message(at, (ORDERS, BILLS)[at % 2], "a") for at in range(8)], timeout=1)
    assert numbers(await receiver.receive(8)) == list(range(8))


async def test_what_is_released_without_a_key_goes_to_the_front() -> None:
    broker = await opened()
    receiver = await broker.subscribe(HANDLER)
    await broker.publish(messages(6, ORDERS), timeout=1)
    await receiver.settle([(delivery, RELEASE) for delivery in await receiver.receive(3)])
    assert numbers(await receiver.receive(6)) == [0, 1, 2, 3, 4, 5]


def test_a_duplicate_is_one_within_the_window_only() -> None:
    async def main() -> None:
        broker = await opened(broker=MemoryBroker(duplicate_window=60))
        for _ in range(3):
            await broker.publish(messages(1, ORDERS), timeout=1)
            await asyncio.sleep(40)
        (status,) = await broker.status([HANDLER])
        assert status.backlog == 2

    run_swiftly(main())


async def test_a_duplicate_does_not_wait_for_room() -> None:
    broker = await opened(broker=MemoryBroker(capacity=1, duplicate_window=60))
    await broker.publish(messages(1, ORDERS), timeout=1)
    await broker.publish(messages(1, ORDERS), timeout=0.01)
    (status,) = await broker.status([HANDLER])
    assert status.backlog == 1


def test_time_stands_still_between_two_event_loops() -> None:
    broker = MemoryBroker()

    async def fail() -> None:
        await opened(broker=broker)
        receiver = await broker.subscribe(HANDLER)
        await broker.publish(messages(1, ORDERS), timeout=1)
        await receiver.settle([(delivery, RetryAfter(60.0)) for delivery in await receiver.receive(1)])
        await asyncio.sleep(20)
        await broker.aclose()
        await asyncio.sleep(500)

    async def wait() -> None:
        await broker.connect()
        receiver = await broker.subscribe(HANDLER)
        began = asyncio.get_running_loop().time()
        (delivery,) = await receiver.receive(1)
        assert asyncio.get_running_loop().time() - began == pytest.approx(40, abs=0.1)
        assert delivery.failures == 1

    run_swiftly(fail())
    run_swiftly(wait())


async def test_needs_to_be_connected() -> None:
    broker = MemoryBroker()
    with pytest.raises(NotPublishedError, match="not connected"):
        await broker.publish(messages(1, ORDERS), timeout=1)
    with pytest.raises(BrokerError, match="not connected"):
        await broker.apply([HANDLER])
    with pytest.raises(BrokerError, match="not connected"):
        await broker.subscribe(HANDLER)
    await broker.connect()
    with pytest.raises(BrokerError, match=r"no subscription 'shop.handler'; create it with `apply`"):
        await broker.subscribe(HANDLER)


async def test_the_order_of_a_subscription_cannot_be_changed() -> None:
    broker = await opened()
    with pytest.raises(BrokerError, match=r"'shop.handler' is not ordered, which can't be changed"):
        await broker.apply([HANDLER._replace(ordered=True)])
