"""Cases: what could not be handled is kept, and can be handled after all."""

import asyncio
from datetime import datetime, timedelta, timezone

import pytest

from diator.brokers.letters import dead_letters_of
from diator.brokers.port import (
    ACK,
    Broker,
    BrokerCapability,
    DeadLetter,
    MoveToDeadLetters,
    Receiver,
    Settlement,
    Subscription,
)
from diator.errors import BrokerUnavailableError
from diator_conformance.brokers.bench import BrokerSuiteBase, case, keeper
from diator_conformance.brokers.messages import message, messages, number, number_of, numbers
from diator_conformance.brokers.publishing import ODD, odd_message

LETTERS = BrokerCapability.ACKNOWLEDGED | BrokerCapability.DEAD_LETTERS
EXHAUSTED = MoveToDeadLetters(
    "exhausted", "shop.orders.OutOfStockError: no bolts", "Traceback (most recent call last): ...", 5
)
HALF_CHARACTERS = {"a file name": "caf\udce9.txt", "a half of a pair": "\ud83e"}
"""Texts that Python can represent, but UTF-8 cannot."""


class Letters(BrokerSuiteBase):
    """Dead letters are kept, and can be replayed and purged."""

    @pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
    @case(LETTERS)
    async def test_a_dead_letter_keeps_all_that_is_known(self, text: str) -> None:
        """The reason, the attempts, the time, and the message as it was delivered."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish([odd_message(self.topic().name, text)], timeout=self.receive_timeout)
        delivery = await self.take_one(receiver)
        why = MoveToDeadLetters(text or "exhausted", f"module.Error: {text}", f"Traceback: {text}", 5)
        assert not await receiver.settle([(delivery, why)])
        (letter,) = await self.letters(broker, subscription)
        assert letter.failure == why
        assert (letter.subscription, letter.topic) == (subscription.name, self.topic().name)
        assert (letter.body, dict(letter.headers)) == (delivery.body, dict(delivery.headers))
        assert letter.deliveries == 1
        assert abs(datetime.now(timezone.utc) - letter.dead_lettered_at) < timedelta(minutes=5)

    @case(LETTERS)
    async def test_a_dead_letter_may_have_no_error(self) -> None:
        """If no handler ran, there is none, and this is kept, too."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        await self._dead_letter(broker, subscription, 1, MoveToDeadLetters("undecodable"))
        (letter,) = await self.letters(broker, subscription)
        assert letter.failure == MoveToDeadLetters("undecodable", None, None, 0)

    @pytest.mark.parametrize("text", HALF_CHARACTERS.values(), ids=HALF_CHARACTERS.keys())
    @case(LETTERS)
    async def test_an_outcome_that_cannot_be_recorded_takes_nothing_with_it(self, text: str) -> None:
        """It is a permanent error, or recorded in other words; the others are settled, and it can be later."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(3, self.topic()), timeout=self.receive_timeout)
        first, second, third = await self.take(receiver, 3)
        odd = MoveToDeadLetters(f"rejected: {text}", f"module.Error: {text}", f"Traceback: {text}", 1)
        if not await self._records(receiver, [(first, ACK), (second, odd), (third, ACK)]):
            assert await self._records(receiver, [(first, ACK), (third, ACK)])
            if not await self._records(receiver, [(second, odd)]):
                assert await self._records(receiver, [(second, MoveToDeadLetters("rejected"))])
        letters = await self.letters(broker, subscription)
        assert [number_of(letter) for letter in letters] == [number(second)]
        await receiver.aclose()
        await self.nothing_comes(await self.receiver(subscription))

    @staticmethod
    async def _records(receiver: Receiver, settlements: list[Settlement]) -> bool:
        """Settle; false where an error says that it can't be done."""
        try:
            await receiver.settle(settlements)
        except BrokerUnavailableError as error:
            pytest.fail(
                f"a message that can't be stored is reported as an outage, which would be retried forever: {error}"
            )
        except Exception:  # noqa: BLE001 - any other error is permanent
            return False
        return True

    @case(LETTERS)
    async def test_dead_letters_are_read_from_the_oldest_on(self) -> None:
        """Another process reads them too, and reading changes nothing."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        for at in range(12):
            await self._dead_letter(broker, subscription, 1, EXHAUSTED, first=at)
        other = await self.connected()
        for _ in range(2):
            letters = await self.letters(other, subscription)
            assert [number_of(letter) for letter in letters] == list(range(12))
            assert len({letter.id for letter in letters}) == 12

    @case(LETTERS)
    async def test_dead_letters_belong_to_one_subscription(self) -> None:
        """Another subscription to the same topic has none of them, and cannot touch them."""
        mine, other = self.subscription("mine"), self.subscription("other")
        broker = await self.given(mine, other)
        (letter,) = await self._dead_letter(broker, mine, 1)
        assert not await self.letters(broker, other)
        assert not await keeper(broker).purge(other, [letter.id])
        assert await self.letters(broker, mine) == [letter]

    @case(LETTERS)
    async def test_there_may_be_no_dead_letters(self) -> None:
        """Even for a subscription that does not exist."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        assert not await self.letters(broker, subscription)
        assert not await self.letters(broker, self.subscription("unknown"))

    @case(LETTERS)
    async def test_a_replay_hands_one_out_as_new(self) -> None:
        """Without failures, unchanged, and once; the others remain."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        letters = await self._dead_letter(broker, subscription, 3)
        chosen = letters[1]
        receiver = await broker.subscribe(subscription)
        assert await keeper(broker).replay(subscription, [chosen.id])
        replayed = await self.take_one(receiver)
        assert (replayed.failures, replayed.deliveries, replayed.topic) == (0, 1, chosen.topic)
        assert (replayed.body, dict(replayed.headers)) == (chosen.body, dict(chosen.headers))
        assert not await keeper(broker).replay(subscription, [chosen.id])
        assert await self.letters(broker, subscription) == [letters[0], letters[2]]
        await self.ack(receiver, [replayed])
        await self.nothing_comes(receiver)

    @case(LETTERS)
    async def test_what_was_replayed_may_fail_again(self) -> None:
        """It becomes a new dead letter, and can be replayed again."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        (letter,) = await self._dead_letter(broker, subscription, 1)
        receiver = await broker.subscribe(subscription)
        for _ in range(2):
            assert await keeper(broker).replay(subscription, [letter.id])
            await receiver.settle([(await self.take_one(receiver), MoveToDeadLetters("rejected"))])
            (letter,) = await self.letters(broker, subscription)
            assert (letter.failure.reason, number_of(letter)) == ("rejected", 0)

    @case(LETTERS)
    async def test_a_purge_deletes_one_and_no_other(self) -> None:
        """A purged dead letter is deleted permanently."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        letters = await self._dead_letter(broker, subscription, 3)
        assert await keeper(broker).purge(subscription, [letters[1].id])
        assert not await keeper(broker).purge(subscription, [letters[1].id])
        assert not await keeper(broker).replay(subscription, [letters[1].id])
        assert await self.letters(broker, subscription) == [letters[0], letters[2]]
        await self.nothing_comes(await broker.subscribe(subscription))

    @case(LETTERS)
    async def test_dead_letters_may_be_replayed_while_they_are_read(self) -> None:
        """As a program does that replays all of them."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        await self._dead_letter(broker, subscription, 25)
        replayed = 0
        async for one in dead_letters_of(keeper(broker), subscription, page=10):
            assert await keeper(broker).replay(subscription, [one.id])
            replayed += 1
        assert replayed == 25
        came = await self.take(await broker.subscribe(subscription), 25)
        assert sorted(numbers(came)) == list(range(25))
        assert not await self.letters(broker, subscription)

    @case(LETTERS)
    async def test_pages_of_dead_letters_have_each_once(self) -> None:
        """At most ``limit``, oldest first, from all topics; the last page is empty."""
        subscription = self.subscription("handler", "orders", "bills")
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        sent = [message(at, self.topic(("orders", "bills")[at % 2])) for at in range(13)]
        await broker.publish(sent, timeout=self.receive_timeout)
        taken = await self.take(receiver, 13)
        assert not await receiver.settle([(delivery, EXHAUSTED) for delivery in taken])
        every = await self.letters(broker, subscription)
        assert sorted(map(number_of, every)) == list(range(13))
        pages: list[list[DeadLetter]] = [[]]
        while len(pages) == 1 or pages[-1]:
            after = pages[-1][-1].id if pages[-1] else None
            pages.append([*await keeper(broker).dead_letters(subscription, after=after, limit=4)])
            assert len(pages[-1]) <= 4, "a page has more than was asked for"
            assert len(pages) < 20, "the pages have no end"
        assert [letter for page in pages for letter in page] == every

    @case(LETTERS)
    async def test_several_are_replayed_or_purged_at_once(self) -> None:
        """The ids of those that existed are returned; an unknown id changes nothing."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        letters = await self._dead_letter(broker, subscription, 7)
        ids = [letter.id for letter in letters]
        assert {*await keeper(broker).purge(subscription, [ids[5], ids[0]])} == {ids[0], ids[5]}
        assert {*await keeper(broker).replay(subscription, [ids[5], *ids[1:4]])} == {*ids[1:4]}
        assert not list(await keeper(broker).replay(subscription, [ids[5], "no such id", ""]))
        assert not list(await keeper(broker).purge(subscription, []))
        assert await self.letters(broker, subscription) == [letters[4], letters[6]]
        receiver = await broker.subscribe(subscription)
        assert sorted(numbers(await self.take(receiver, 3))) == [1, 2, 3]
        await self.nothing_comes(receiver)

    @case(LETTERS)
    async def test_several_may_read_dead_letters_while_another_replays(self) -> None:
        """As several people do; each sees all of them."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        (first, *_) = await self._dead_letter(broker, subscription, 12)
        readers = [await self.connected() for _ in range(3)]
        *read, replayed = await asyncio.gather(
            *(self.letters(reader, subscription) for reader in readers),
            keeper(broker).replay(subscription, [first.id]),
        )
        assert list(replayed) == [first.id]
        for letters in read:
            assert {*range(1, 12)} <= {number_of(letter) for letter in letters if isinstance(letter, DeadLetter)}

    @case(LETTERS)
    async def test_a_dead_letter_is_replayed_once_though_several_try(self) -> None:
        """One of them succeeds, and it is delivered once."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        others = [keeper(await self.connected()) for _ in range(4)]
        for at in range(3):
            (letter,) = await self._dead_letter(broker, subscription, 1, first=at)
            told = await asyncio.gather(*(one.replay(subscription, [letter.id]) for one in others))
            assert sum(map(len, told)) == 1, f"of four replays of one dead letter, {sum(map(len, told))} succeeded"
            await self.ack(receiver, [await self.take_one(receiver)])
            await self.nothing_comes(receiver)

    @case(LETTERS)
    async def test_the_largest_message_may_become_a_dead_letter_with_a_long_traceback(self) -> None:
        """Even if both together exceed the broker's limit: the reason is then shortened."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        limit = min(broker.max_message_bytes or 4_000_000, 4_000_000)
        receiver = await broker.subscribe(subscription)
        overhead = len(message(1, self.topic(), data=b'""').structured)
        large = message(1, self.topic(), data=b'"%s"' % (b"x" * (limit - overhead)))
        await broker.publish([large], timeout=self.receive_timeout)
        why = MoveToDeadLetters("exhausted", "E: " + "e" * 4_000, "Traceback " + "t" * 32_000, 5)
        assert not await receiver.settle([(await self.take_one(receiver), why)])
        (letter,) = await self.letters(broker, subscription)
        assert (letter.failure.reason, number_of(letter)) == ("exhausted", 1)

    async def _dead_letter(
        self,
        broker: Broker,
        subscription: Subscription,
        count: int,
        why: MoveToDeadLetters = EXHAUSTED,
        *,
        first: int = 0,
    ) -> list[DeadLetter]:
        """Publish this number of messages and dead-letter them, in order."""
        receiver = await broker.subscribe(subscription)
        for sent in messages(count, self.topic(), first=first):
            await broker.publish([sent], timeout=self.receive_timeout)
            assert not await receiver.settle([(await self.take_one(receiver), why)])
        await receiver.aclose()
        return await self.letters(broker, subscription)
