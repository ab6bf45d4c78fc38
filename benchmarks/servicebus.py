"""What Diator costs over Service Bus, against the SDK by hand: ``python -m benchmarks.servicebus``.

It prints a table and writes RESULTS-servicebus.md; it ends with 1 where a target is missed.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import median
from uuid import uuid4

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from diator_azure_servicebus import ServiceBusBroker
from msgspec.json import Decoder

from benchmarks.brokered import Flight, from_tasks, publish_all
from benchmarks.contest import Match, Measure, compete, conclude, options_of, run, system
from benchmarks.redis.message import BATCH, Counter, Joined, Spent, Watch, encode, joined
from diator import Diator, Hooks
from diator.hooks import Settled

RESULTS = Path(__file__).parent / "RESULTS-servicebus.md"
ROUNDS = 5
HEAD = """\
# Results over Service Bus

Written by `python -m benchmarks.servicebus`, on {system}, azure-servicebus {sdk}.
The server is `servicebus-test-server`, in a process of its own. The
[README](README.md#over-service-bus) says how each figure comes about."""
TOPIC, QUEUE = "bench.joined", "bench.handle"
ENTITIES = (
    f"--topic={TOPIC}",
    f"--topic={TOPIC}/{QUEUE},forward={QUEUE}",
    f"--queue={QUEUE}",
    f"--queue={QUEUE}.retry,duplicates=600,forward={QUEUE}",
)
WAIT = 5.0
"""Seconds for which the SDK waits for messages."""


class Timed(Flight):
    """Measures from the first message that is handled, to the last settled; opening a link takes half a second."""

    def __init__(self) -> None:
        super().__init__()
        self.watch: Watch | None = None
        self.total = 0
        self.unsettled = 0
        self.spent: Spent | None = None
        self.all_settled = asyncio.Event()

    async def handle(self, event: object) -> None:
        self.watch = self.watch or Watch()
        await super().handle(event)

    def settled(self, count: int = 1) -> None:
        """Note that the service has taken so many outcomes down."""
        self.unsettled -= count
        if not self.unsettled and self.watch is not None:
            self.spent = self.watch.spent(self.total)
            self.all_settled.set()

    def expect(self, number: int) -> None:
        super().expect(number)
        self.total = self.unsettled = number

    async def result(self) -> Spent:
        """Wait for the last message."""
        await self.all_settled.wait()
        assert self.spent is not None
        return self.spent


class Telling(Hooks):
    """Passes on what the service has taken down."""

    def __init__(self, counter: Timed) -> None:
        self._counter = counter

    def settled(self, details: Settled) -> None:
        if not details.lease_lost:
            self._counter.settled()


# By hand


def message(event: Joined) -> ServiceBusMessage:
    """Make the same message as Diator does."""
    id_ = str(uuid4())
    return ServiceBusMessage(
        encode(event),
        message_id=id_,
        session_id=f"~{id_}",
        subject=TOPIC,
        content_type="application/json",
        correlation_id=id_,
        application_properties={
            "diator-topic": TOPIC,
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": id_,
            "cloudEvents:source": "bench",
            "cloudEvents:type": TOPIC,
            "cloudEvents:time": datetime.now(timezone.utc).isoformat(),
            "cloudEvents:diatorkind": "notification",
            "cloudEvents:diatorversion": "1",
            "cloudEvents:diatorcorrelation": id_,
        },
    )


decode = Decoder(Joined).decode


@contextlib.asynccontextmanager
async def sender_of(string: str) -> AsyncGenerator[ServiceBusSender]:
    """Open a sender to the topic."""
    async with (
        ServiceBusClient.from_connection_string(string) as client,
        client.get_topic_sender(TOPIC) as sender,
    ):
        yield sender


@contextlib.asynccontextmanager
async def receiver_of(string: str) -> AsyncGenerator[ServiceBusReceiver]:
    """Open a receiver of the queue."""
    async with (
        ServiceBusClient.from_connection_string(string) as client,
        client.get_queue_receiver(QUEUE) as receiver,
    ):
        yield receiver


async def fill(sender: ServiceBusSender, count: int) -> None:
    """Publish in batches."""
    for first in range(0, count, BATCH):
        await sender.send_messages([message(joined(number)) for number in range(first, first + BATCH)])


async def handle(received: ServiceBusReceivedMessage, counter: Counter) -> None:
    """Read one, and handle it."""
    await counter.handle(decode(b"".join(received.body)))


async def read(receiver: ServiceBusReceiver, counter: Timed, limit: int) -> None:
    """Handle until nothing is left: receive some, handle them, settle them all at the same time."""
    while counter.left > 0:
        several = await receiver.receive_messages(max_message_count=min(limit, counter.left), max_wait_time=WAIT)
        for received in several:
            await handle(received, counter)
        await asyncio.gather(*map(receiver.complete_message, several))
        counter.settled(len(several))


async def empty(string: str) -> None:
    """Take what is in the queue, unread."""
    async with receiver_of(string) as receiver:
        while await receiver.peek_messages(1):
            several = await receiver.receive_messages(max_message_count=500, max_wait_time=0.5)
            await asyncio.gather(*map(receiver.complete_message, several))


async def raw_publish_batches(string: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with sender_of(string) as sender:
        watch = Watch()
        await fill(sender, count)
        return watch.spent(count)


async def raw_publish_one_by_one(string: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with sender_of(string) as sender:
        watch = Watch()
        for number in range(count):
            await sender.send_messages(message(joined(number)))
        return watch.spent(count)


async def raw_publish_alone(string: str, count: int) -> Spent:
    """Give the median of the seconds that one call takes."""
    async with sender_of(string) as sender:
        times: list[float] = []
        watch = Watch()
        for number in range(count):
            event = joined(number)
            began = time.perf_counter()
            await sender.send_messages(message(event))
            times.append(time.perf_counter() - began)
        return watch.spent(count, median(times))


async def raw_consume(string: str, count: int) -> Spent:
    """Give the seconds that a message takes of those that wait."""
    async with sender_of(string) as sender:
        await fill(sender, count)
    counter = Timed()
    counter.expect(count)
    async with receiver_of(string) as receiver:
        await read(receiver, counter, BATCH)
        return await counter.result()


async def raw_one_in_flight(string: str, count: int) -> Spent:
    """Give the median of the seconds from publishing to the handler, which waits again before the next message."""
    counter = Timed()
    counter.expect(count)
    async with sender_of(string) as sender, receiver_of(string) as receiver:
        reading = asyncio.ensure_future(read(receiver, counter, 1))
        spent = await counter.times(count, lambda event: sender.send_messages(message(event)))
        await reading
        return spent


# With Diator


@contextlib.asynccontextmanager
async def app_for(string: str, counter: Timed, concurrency: int = 10) -> AsyncGenerator[Diator]:
    """Open an app, and its sender."""
    app = Diator("bench", broker=ServiceBusBroker(string), concurrency=concurrency, hooks=[Telling(counter)])

    @app.on_event(subscription=QUEUE)
    async def handle(event: Joined) -> None:
        await counter.handle(event)

    app.publishes(Joined)
    async with app:
        yield app


async def warm(app: Diator) -> None:
    """Have the sender opened, which takes half a second."""
    await app.publish(joined(0))


async def publish_batches(string: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with app_for(string, Timed()) as app:
        await warm(app)
        watch = Watch()
        await publish_all(app, count)
        return watch.spent(count)


async def publish_at_the_same_time(string: str, count: int) -> Spent:
    """Give the seconds that a message takes: 100 tasks, each of which publishes one message after the other."""
    async with app_for(string, Timed()) as app:
        await warm(app)
        return await from_tasks(count, app.publish)


async def publish_alone(string: str, count: int) -> Spent:
    """Give the median of the seconds that one call takes."""
    async with app_for(string, Timed()) as app:
        await warm(app)
        times: list[float] = []
        watch = Watch()
        for number in range(count):
            event = joined(number)
            began = time.perf_counter()
            await app.publish(event)
            times.append(time.perf_counter() - began)
        return watch.spent(count, median(times))


async def consume(string: str, count: int, concurrency: int) -> Spent:
    """Give the seconds that a message takes of those that wait."""
    counter = Timed()
    counter.expect(count)
    async with app_for(string, counter, concurrency) as app:
        await publish_all(app, count)
        async with app.worker():
            spent = await counter.result()
    await _prove(string)
    return spent


async def _prove(string: str) -> None:
    """See that all was settled: a consumer that does not would win."""
    async with receiver_of(string) as receiver:
        if left := await receiver.peek_messages(100):
            raise RuntimeError(f"{len(left)} messages or more were handled and not settled")


async def consume_by_ten(string: str, count: int) -> Spent:
    """With the concurrency that is the default."""
    return await consume(string, count, 10)


async def consume_by_the_hundred(string: str, count: int) -> Spent:
    """With as many at a time as the other side receives."""
    return await consume(string, count, BATCH)


async def one_in_flight(string: str, count: int) -> Spent:
    """Give the median of the seconds from publishing to the handler, which waits again before the next message."""
    counter = Timed()
    counter.expect(count + 1)
    async with app_for(string, counter) as app, app.worker():
        await warm(app)
        await counter.landed.wait()
        return await counter.times(count, app.publish)


# Who is measured against whom


def _run(measure: Callable[[str, int], Awaitable[Spent]]) -> Measure:
    async def work(string: str, count: int) -> Spent:
        await empty(string)
        return await measure(string, count)

    return run(work)


_RECEIVE = "receive_messages of 100, all completed at the same time"

MATCHES = (
    Match(
        "publish batches of 100",
        "send_messages of 100",
        _run(publish_batches),
        _run(raw_publish_batches),
        limit=0.8,
        count=3_000,
    ),
    Match(
        "publish from 100 tasks, each call confirmed",
        "send_messages one by one",
        _run(publish_at_the_same_time),
        _run(raw_publish_one_by_one),
        limit=0.8,
        count=2_000,
        their_count=1_000,
    ),
    Match(
        "one publish alone, latency",
        "send_messages of one",
        _run(publish_alone),
        _run(raw_publish_alone),
        limit=None,
        count=500,
        is_latency=True,
    ),
    Match(
        "handle, 100 at a time",
        _RECEIVE,
        _run(consume_by_the_hundred),
        _run(raw_consume),
        limit=0.8,
        count=2_000,
    ),
    Match(
        "handle, 10 at a time, the default",
        _RECEIVE,
        _run(consume_by_ten),
        _run(raw_consume),
        limit=0.8,
        count=2_000,
    ),
    Match(
        "publish to handler, one in flight, latency",
        "send_messages to receive_messages of one, that waits",
        _run(one_in_flight),
        _run(raw_one_in_flight),
        limit=None,
        count=300,
        is_latency=True,
    ),
)


@contextlib.contextmanager
def server() -> Generator[str]:
    """Run the server in a process of its own; give its connection string."""
    command = [sys.executable, "-m", "servicebus_test_server", "--port", "0", *ENTITIES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main() -> int:
    """Run from the command line."""
    options = options_of("benchmarks.servicebus", __doc__)
    matches = [match for match in MATCHES if options.only in match.what]
    with server() as string:
        compete(matches, string, options, ROUNDS, quick_count=BATCH)
    head = HEAD.format(system=system(), sdk=version("azure-servicebus"))
    return conclude(matches, head, options, RESULTS)


if __name__ == "__main__":
    sys.exit(main())
