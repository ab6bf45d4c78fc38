"""Cases: thousands of messages, several receivers, and every possible outcome."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from diator.brokers.port import (
    ACK,
    RELEASE,
    BrokerCapability,
    Delivery,
    MoveToDeadLetters,
    Outcome,
    Receiver,
    RetryAfter,
    Settlement,
)
from diator_conformance.brokers.bench import BrokerSuiteBase, case
from diator_conformance.brokers.messages import envelope_of, message, number

ALL = BrokerCapability.ACKNOWLEDGED | BrokerCapability.CONSUMER_GROUPS | BrokerCapability.DEAD_LETTERS
KEYS = 20
OUTCOMES: Sequence[Outcome] = (
    ACK,
    ACK,
    ACK,
    ACK,
    RELEASE,
    RetryAfter(0.0),
    RetryAfter(0.01),
    MoveToDeadLetters("rejected"),
)


class Journal:
    """What became of each message, as its handlers would tell."""

    def __init__(self, expected: int, *, ordered: bool) -> None:
        self.expected = expected
        self.ordered = ordered
        self.failures: Counter[int] = Counter()
        self.done: defaultdict[str | None, list[int]] = defaultdict(list)
        self.dead_lettered = 0
        self.count = 0
        self.final = 0
        self.complete = asyncio.Event()
        self._dice = random.Random(7)  # noqa: S311 - to vary, not to hide

    def decide(self, deliveries: Sequence[Delivery]) -> list[Settlement]:
        """Draw an outcome for each; as the engine does, what follows one that comes back goes back with it."""
        settlements: list[Settlement] = []
        held: set[str | None] = set()
        for delivery in deliveries:
            key = envelope_of(delivery).partitionkey
            outcome = RELEASE if self.ordered and key in held else self._dice.choice(OUTCOMES)
            self._note(delivery, key, outcome)
            if isinstance(outcome, RetryAfter) or outcome is RELEASE:
                held.add(key)
            settlements.append((delivery, outcome))
        return settlements

    def _note(self, delivery: Delivery, key: str | None, outcome: Outcome) -> None:
        found = number(delivery)
        assert delivery.failures == self.failures[found], f"message {found} has a wrong count of failures"
        if isinstance(outcome, RetryAfter):
            self.failures[found] += 1
        elif outcome is not RELEASE:
            self.count += 1
            self.done[key].append(found)
            self.dead_lettered += isinstance(outcome, MoveToDeadLetters)

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Note that the broker has taken outcomes down."""
        finals = (outcome for _, outcome in settlements if outcome is not RELEASE)
        self.final += sum(not isinstance(outcome, RetryAfter) for outcome in finals)
        if self.final == self.expected:
            self.complete.set()


class Crowd(BrokerSuiteBase):
    """Thousands of messages, several receivers, and every possible outcome."""

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    @case(ALL)
    async def test_nothing_is_lost_in_a_crowd(self, ordered: bool) -> None:
        """Every message is handled once, its failures are counted correctly, and keys are in order if subscribed so."""
        if ordered and BrokerCapability.ORDER_BY_KEY not in self.new_broker().capabilities:
            pytest.skip("the broker does not declare ORDERED")
        subscription = self.subscription(ordered=ordered)
        broker = await self.given(subscription)
        sent = [message(at, self.topic(), f"key {at % KEYS}") for at in range(self.message_count)]
        journal = Journal(self.message_count, ordered=ordered)
        receivers = [await self.receiver(subscription) for _ in range(3)]
        working = [asyncio.ensure_future(self._work(receiver, journal)) for receiver in receivers]
        for first in range(0, len(sent), 100):
            await broker.publish(sent[first : first + 100], timeout=self.case_timeout)
        await self._until_done(journal, working)
        for receiver in receivers:
            await receiver.aclose()
        await asyncio.gather(*working)
        assert sorted(found for done in journal.done.values() for found in done) == list(range(self.message_count))
        if ordered:
            assert all(done == sorted(done) for done in journal.done.values())
        assert len(await self.letters(broker, subscription)) == journal.dead_lettered

    async def _work(self, receiver: Receiver, journal: Journal) -> None:
        while deliveries := await receiver.receive(20):
            settlements = journal.decide(deliveries)
            lost = await receiver.settle(settlements)
            assert not lost, "a lease was lost, though it is long"
            journal.settled(settlements)

    async def _until_done(self, journal: Journal, working: "Sequence[asyncio.Future[Any]]") -> None:
        """Wait as long as it goes on; fails where it stands still, and where a worker fails."""
        seen = -1
        completing = asyncio.ensure_future(journal.complete.wait())
        while not journal.complete.is_set():
            assert journal.count > seen, (
                f"{journal.count} of {self.message_count} messages were done, then no more came"
            )
            seen = journal.count
            some = [completing, *working]
            ended, _ = await asyncio.wait(some, timeout=self.receive_timeout, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()
