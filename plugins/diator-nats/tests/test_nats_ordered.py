"""Order by key when the server has lost what it knew of deliveries, and when partitions change hands."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import nats
from diator_nats import NatsBroker
from diator_nats.testing import NatsServer

from diator.brokers import ACK, Delivery, OutgoingMessage, Receiver, Subscription, Topic

SOLD = Topic("shop.sold", ("shop.sold",))
BILL = Subscription("shop.bill", (SOLD,), ordered=True)
EVENT = '{"specversion":"1.0","id":"%d","source":"/","type":"shop.sold","partitionkey":"%s","data":{}}'
LEASE = 2.0


def event(number: int, key: str) -> OutgoingMessage:
    return OutgoingMessage.from_bytes("shop.sold", (EVENT % (number, key)).encode())


async def subject_of(server: NatsServer, number: int) -> str:
    """The subject of a stored event."""
    client: Any = await nats.connect(server.url)  # pyright: ignore[reportUnknownMemberType]  # has no types
    answer = await client.request("$JS.API.STREAM.MSG.GET.diator_events", b'{"seq": %d}' % number)
    await client.close()
    return str(msgspec.json.decode(answer.data)["message"]["subject"])


async def body_of(server: NatsServer, subject: str) -> str:
    """The last message of a subject in the stream of state; empty if there is none."""
    client: Any = await nats.connect(server.url)  # pyright: ignore[reportUnknownMemberType]  # has no types
    request = msgspec.json.encode({"last_by_subj": subject})
    answer = msgspec.json.decode((await client.request("$JS.API.STREAM.MSG.GET.diator_state", request)).data)
    await client.close()
    return str(answer.get("message", {}).get("data", ""))


async def put(server: NatsServer, subject: str, body: bytes) -> None:
    client: Any = await nats.connect(server.url)  # pyright: ignore[reportUnknownMemberType]  # has no types
    await client.jetstream().publish(subject, body)
    await client.close()


async def two_keys_of_one_partition(server: NatsServer, broker: NatsBroker) -> tuple[str, str, str, int]:
    """Publish events of keys until two share a partition, and settle them; return the keys, a lane, and how many."""
    partitions: dict[str, str] = {}
    receiver = await broker.subscribe(BILL)
    for number in itertools.count(1):
        key = f"key {number}"
        await broker.publish([event(number, key)], timeout=5.0)
        (delivery,) = await asyncio.wait_for(receiver.receive(1), 10.0)
        *_, partition, hashed = (await subject_of(server, number)).split(".")
        await receiver.settle([(delivery, ACK)])
        if partition in partitions:
            await receiver.aclose()
            return partitions[partition], key, f"{partition}.{hashed}", number
        partitions[partition] = key
    raise AssertionError


def ids(found: Sequence[Delivery]) -> list[str]:
    return [msgspec.json.decode(one.body)["id"] for one in found]


async def test_a_note_of_a_settled_message_blocks_its_key_for_a_while_only() -> None:
    """Also if an earlier message of the partition is in flight, so that the server's floor stands still."""
    with NatsServer() as server:
        broker = NatsBroker(server.url, lease=LEASE)
        await broker.connect()
        await broker.apply([BILL], [SOLD])
        busy, key, lane, count = await two_keys_of_one_partition(server, broker)
        await broker.publish([event(901, busy), event(902, key)], timeout=5.0)
        receiver = await broker.subscribe(BILL)
        found: list[Delivery] = []
        while len(found) < 2:
            found += await asyncio.wait_for(receiver.receive(10), 10.0)
        await receiver.settle([(one, ACK) for one in found if ids([one]) == ["902"]])
        await receiver.aclose()
        note = msgspec.json.encode([lane, 1, 1, 1, time.time() - 60])
        await put(server, f"diator.st.note.shop=2ebill.{lane[0]}.{count + 2}", note)
        await broker.publish([event(903, key)], timeout=5.0)

        receiver = await broker.subscribe(BILL)
        found = []
        ends = time.monotonic() + 60.0
        while "903" not in ids(found):
            waiting = asyncio.ensure_future(receiver.receive(10))
            while not waiting.done():
                assert time.monotonic() < ends, ids(found)
                await asyncio.wait([waiting], timeout=LEASE / 4)
                assert not await receiver.renew(found)
            found += waiting.result()
        assert ids(found) == ["901", "903"]
        await receiver.settle([(one, ACK) for one in found])
        await receiver.aclose()
        await broker.aclose()


async def test_failures_are_known_though_the_server_forgot_its_deliveries() -> None:
    """As a killed server does: the message comes as new, and its note does not stay behind, where it would block."""
    with NatsServer() as server:
        broker = NatsBroker(server.url, lease=LEASE)
        await broker.connect()
        await broker.apply([BILL], [SOLD])
        await broker.publish([event(1, "a")], timeout=5.0)
        *_, partition, hashed = (await subject_of(server, 1)).split(".")
        subject = f"diator.st.note.shop=2ebill.{partition}.1"
        await put(server, subject, msgspec.json.encode([f"{partition}.{hashed}", 2, 2, 3, time.time() - 60]))
        receiver = await broker.subscribe(BILL)
        (delivery,) = await asyncio.wait_for(receiver.receive(1), 10.0)
        assert (delivery.failures, delivery.deliveries) == (2, 3)
        assert not await receiver.settle([(delivery, ACK)])
        assert not await body_of(server, subject)
        await receiver.aclose()
        await broker.aclose()


async def test_events_that_are_never_settled_do_not_keep_their_partitions_from_a_second_receiver() -> None:
    with NatsServer() as server:
        broker = NatsBroker(server.url, lease=0.5)
        await broker.connect()
        await broker.apply([BILL], [SOLD])
        receivers = [await broker.subscribe(BILL)]
        await broker.publish([event(number, f"key {number}") for number in range(40)], timeout=5.0)
        found: list[Delivery] = []
        while len(found) < 40:
            found += await asyncio.wait_for(receivers[0].receive(100), 10.0)

        receivers.append(await broker.subscribe(BILL))  # half of the partitions are to become its own
        again: set[str] = set()

        async def take(receiver: Receiver) -> None:
            while True:
                some = await receiver.receive(100)
                await receiver.settle([(one, ACK) for one in some])
                again.update(ids(some))

        tasks = [asyncio.ensure_future(take(one)) for one in receivers]
        ends = time.monotonic() + 30.0
        while len(again) < 40:
            assert time.monotonic() < ends, sorted(set(ids(found)) - again)
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await broker.aclose()
