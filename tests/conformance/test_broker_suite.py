"""The suite for broker plugins is proven with brokers that are wrong in one way each."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest
from diator_conformance import BrokerOptions, BrokerSuite

from diator.brokers import (
    ACK,
    RELEASE,
    Broker,
    BrokerCapability,
    DeadLetter,
    Delivery,
    MemoryBroker,
    MoveToDeadLetters,
    Outcome,
    OutgoingMessage,
    Receiver,
    RetryAfter,
    Settlement,
    Subscription,
    SubscriptionStatus,
    Topic,
    ValidationIssue,
    parse_envelope,
)
from diator.brokers.memory.queues import KeyQueue, Queue, QueuedMessage
from diator.brokers.memory.receivers import MemoryReceiver
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError
from tests.brokers.swift_loop import run_swiftly

T = TypeVar("T")


class WrongBroker(MemoryBroker):
    """Lets a defect be put into its receivers, and into its queues."""

    receiver_class: ClassVar[type[MemoryReceiver]] = MemoryReceiver
    queue_class: ClassVar[type[Queue]] = Queue

    def _create(self, subscription: Subscription) -> Queue:
        queue = self.queue_class(subscription.name, self._clock, self._capacity, ordered=subscription.ordered)
        self._queues[queue.name] = queue
        return queue

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        return self.receiver_class(self._queues[subscription.name], self._clock, self._lease, self._receivers)


class Mutant(NamedTuple):
    """A broker with one defect, and the cases that must catch it."""

    broker: type[WrongBroker]
    caught_by: frozenset[str]


MUTANTS: list[Mutant] = []


def caught_by(*cases: str) -> Callable[[type[T]], type[T]]:
    """Say which cases must catch the defect of a broker, or of a receiver or queue in an otherwise right broker."""

    def add(defective: type[T]) -> type[T]:
        broker: Any = defective
        if not issubclass(defective, WrongBroker):
            part = "receiver_class" if issubclass(defective, MemoryReceiver) else "queue_class"
            broker = type(defective.__name__, (WrongBroker,), {part: defective})
        MUTANTS.append(Mutant(broker, frozenset(cases)))
        return defective

    return add


# Receivers that hand out wrongly.


@caught_by("receive_may_be_cancelled_at_any_time")
class LosesWhatACancelMeets(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        deliveries = await super().receive(limit)
        await asyncio.sleep(0)
        return deliveries


@caught_by("receive_gives_at_most_what_was_asked_for")
class GivesMoreThanAskedFor(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        return await super().receive(limit + 5)


@caught_by("each_message_is_with_one_of_the_receivers")
class GivesToEachReceiver(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        deliveries = await super().receive(limit)
        for one in deliveries:
            if one.deliveries == 1:
                self._queue.put(one.topic, one.body, None)
        return deliveries


@caught_by("receive_waits_until_there_is_something")
class DoesNotWait(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        return self._hand_out(self._queue.take(limit))


@caught_by("receive_may_begin_while_its_receiver_winds_down")
class WindsDownWhileItIsAsked(MemoryReceiver):
    _asked = 0
    _is_deaf = False

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        self._asked += 1
        self._is_deaf = False
        try:
            deliveries = await super().receive(limit)
            await asyncio.sleep(1_000 if self._is_deaf else 0)
            return deliveries
        finally:
            self._asked -= 1
            asyncio.get_running_loop().call_later(0.2, self._on_idle)

    def _on_idle(self) -> None:
        if not self._asked:
            self._winding_down = asyncio.ensure_future(self._wind_down())

    async def _wind_down(self) -> None:
        self._is_deaf = True


@caught_by("a_first_delivery_has_no_failures")
class CountsFromOne(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        return [_changed(one, failures=one.failures + 1) for one in await super().receive(limit)]


@caught_by("what_is_not_settled_in_time_is_delivered_again", "failures_add_up")
class CountsNoDeliveries(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        return [_changed(one, deliveries=1) for one in await super().receive(limit)]


@caught_by("other_topics_are_not_heard", "a_retry_comes_back_after_its_delay")
class ForgetsTheTopicOfARetry(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        return [_changed(one, topic="retries" if one.failures else "all") for one in await super().receive(limit)]


@caught_by("any_text_arrives_as_it_was", "a_dead_letter_keeps_all_that_is_known")
class DropsZeros(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        deliveries = await super().receive(limit)
        return [_changed(one, body=one.body.replace(b"\\u0000", b"")) for one in deliveries]


def _changed(delivery: Delivery, **changes: Any) -> Delivery:
    kept = {name: getattr(delivery, name) for name in Delivery.__slots__}
    return Delivery(**{**kept, **changes})


# Receivers that settle wrongly.


class Settling(MemoryReceiver):
    """Has another outcome put in the place of each."""

    def put_in_place(self, outcome: Outcome) -> Outcome:
        return outcome

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        return await super().settle([(one, self.put_in_place(outcome)) for one, outcome in settlements])


@caught_by("what_is_acknowledged_is_gone")
class AcknowledgesNothing(Settling):
    def put_in_place(self, outcome: Outcome) -> Outcome:
        return RELEASE if outcome == ACK else outcome


@caught_by("what_is_released_comes_back_at_once_and_counts_nothing", "failures_add_up")
class CountsAReleaseAsAFailure(Settling):
    def put_in_place(self, outcome: Outcome) -> Outcome:
        return RetryAfter(0.0) if outcome == RELEASE else outcome


@caught_by("what_is_released_waits_in_its_place", "any_program_does_what_the_contract_says")
class DropsWhatIsReleased(Settling):
    def put_in_place(self, outcome: Outcome) -> Outcome:
        return ACK if outcome == RELEASE else outcome


@caught_by("a_retry_comes_back_after_its_delay", "a_retry_holds_its_key_and_no_other")
class RetriesAtOnce(Settling):
    def put_in_place(self, outcome: Outcome) -> Outcome:
        return RetryAfter(0.0) if isinstance(outcome, RetryAfter) else outcome


@caught_by("failures_add_up", "a_retry_comes_back_after_its_delay", "any_program_does_what_the_contract_says")
class CountsNoFailures(MemoryReceiver):
    def _settle(self, message: QueuedMessage, outcome: Outcome, released: list[QueuedMessage]) -> None:
        super()._settle(message, outcome, released)
        message.failures = 0


@caught_by("what_is_not_settled_in_time_is_delivered_again")
class CountsALostLeaseAsAFailure(MemoryReceiver):
    def _expire(self, now: float) -> None:
        for lease in self._leases:
            lease.message.failures += lease.expires <= now
        super()._expire(now)


@caught_by("one_call_settles_many")
class SettlesTheFirstOnly(MemoryReceiver):
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        return await super().settle(settlements[:1])


@caught_by("settling_may_be_repeated")
class SettlesTwice(MemoryReceiver):
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        again = [one for one in settlements if one[0].receipt.settled]
        for delivery, outcome in again:
            if isinstance(outcome, MoveToDeadLetters):
                self._queue.dead_letter(delivery.receipt.message, outcome)
        return await super().settle([one for one in settlements if one not in again])


@caught_by("settling_nothing_is_fine")
class WantsSomethingToSettle(MemoryReceiver):
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        _ = settlements[0]
        return await super().settle(settlements)


@caught_by("settling_may_overlap_with_receive")
class DoesOneThingAtATime(MemoryReceiver):
    lock: asyncio.Lock | None = None

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        self.lock = self.lock or asyncio.Lock()
        async with self.lock:
            return await super().receive(limit)

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        self.lock = self.lock or asyncio.Lock()
        async with self.lock:
            return await super().settle(settlements)


# Receivers whose leases are wrong.


@caught_by("what_is_not_settled_in_time_is_delivered_again", "order_holds_when_a_lease_runs_out")
class NeverExpires(MemoryReceiver):
    def _expire(self, now: float) -> None: ...


@caught_by("a_lease_that_is_renewed_is_kept", "only_what_was_lost_is_reported")
class RenewsNothing(MemoryReceiver):
    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        return [delivery for delivery in deliveries if delivery.receipt not in self._leases]


@caught_by("the_leases_of_a_key_are_lost_together")
class RenewsWhatNobodyElseHasTaken(MemoryReceiver):
    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        lost = await super().renew(deliveries)
        return [delivery for delivery in lost if delivery.receipt.message.deliveries > delivery.deliveries]


@caught_by(
    "settling_after_the_lease_was_lost_changes_nothing",
    "only_what_was_lost_is_reported",
    "what_is_settled_while_its_receiver_closes_is_settled_or_lost",
)
class DoesNotTellWhatIsLost(MemoryReceiver):
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        await super().settle(settlements)
        return ()


@caught_by("settling_after_the_lease_was_lost_changes_nothing")
class ParksWhatIsLost(MemoryReceiver):
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        lost = await super().settle(settlements)
        for delivery, outcome in settlements:
            if delivery in lost and isinstance(outcome, MoveToDeadLetters):
                self._queue.dead_letter(delivery.receipt.message, outcome)
        return lost


@caught_by("one_receiver_may_hold_both_the_lost_and_the_new_lease")
class KnowsMessagesAndNotLeases(MemoryReceiver):
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        mine = {lease.message: lease for lease in self._leases}
        for delivery, _ in settlements:
            delivery.receipt = mine.get(delivery.receipt.message, delivery.receipt)
        return await super().settle(settlements)


# Receivers that close wrongly.


@caught_by("a_receiver_that_is_closed_gives_back_at_once", "a_receiver_that_is_closed_gives_back_in_order")
class KeepsWhatItHadWhenClosed(MemoryReceiver):
    def close(self) -> None:
        self._leases.clear()
        super().close()


@caught_by("a_receiver_that_is_closed_gives_back_at_once", "any_program_does_what_the_contract_says")
class GivesBackWithACount(MemoryReceiver):
    def close(self) -> None:
        for lease in self._leases:
            lease.message.deliveries += 1
        super().close()


@caught_by("closing_a_receiver_ends_its_receive", "closing_the_broker_closes_its_receivers")
class WaitsThoughClosed(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        deliveries = await super().receive(limit)
        if not deliveries:
            await asyncio.Event().wait()
        return deliveries


@caught_by("a_closed_receiver_leaves_the_rest_to_others")
class TakesThoughClosed(MemoryReceiver):
    def close(self) -> None:
        closed, self._queue.take = self._queue.take, lambda limit: closed(limit)[1:]  # type: ignore[method-assign]  # the defect
        super().close()


# Brokers that strand what others have left.

STRANDS = "nothing_is_stranded_when_receivers_leave"


@caught_by(STRANDS)
class HandsOutOnlyTheBacklogOfOneKey(Queue):
    def take(self, limit: int) -> list[QueuedMessage]:
        long = [one for one in self._ready if isinstance(one, KeyQueue) and len(one.waiting) > 64]
        if long:
            self._ready.clear()
            self._ready.append(long[0])
        return super().take(limit)


@caught_by("what_waits_behind_a_retry_stops_no_other_key")
class LooksNoFurtherBehindARetry(Queue):
    def take(self, limit: int) -> list[QueuedMessage]:
        if any(len(lane.waiting) > 1000 for lane in self._key_queues.values()):
            self.stored.clear()
            return []
        return super().take(limit)


@caught_by(STRANDS)
class ForgetsOtherKeysOfAReceiverThatCloses(MemoryReceiver):
    def close(self) -> None:
        held = list(self._leases)
        for lease in held:
            if lease.message.key_queue is not held[0].message.key_queue:
                del self._leases[lease]
        super().close()


@caught_by(STRANDS)
class LosesWhatADeadReceiverHad(MemoryReceiver):
    def _expire(self, now: float) -> None:
        for lease in list(self._leases)[1:]:
            del self._leases[lease]
        super()._expire(now)


@caught_by(STRANDS)
class GivesBackOnlyAPage(Queue):
    def release(self, messages: Sequence[QueuedMessage]) -> None:
        super().release(messages[:64])


@caught_by(STRANDS)
class KeepsAKeyThatWasReleasedBehindARetry(Settling):
    """Lets the first of a key come again, and forgets those that were released with it."""

    def _settle(self, message: QueuedMessage, outcome: Outcome, released: list[QueuedMessage]) -> None:
        if outcome != RELEASE:
            super()._settle(message, outcome, released)


# Queues that are wrong.


class Rekeyed(Queue):
    """Has other keys than the messages."""

    def key(self, key: str | None) -> str | None:
        return key

    def put(self, topic: str, body: bytes, key: str | None) -> None:
        super().put(topic, body, self.key(key))


@caught_by(
    "one_key_is_with_one_receiver_at_a_time",
    "a_retry_holds_its_key_and_no_other",
    "a_replay_waits_for_its_key",
    "nothing_is_lost_in_a_crowd",
    "any_program_does_what_the_contract_says",
)
class IgnoresKeys(Rekeyed):
    def key(self, key: str | None) -> str | None:
        return None


@caught_by("one_key_is_with_one_receiver_at_a_time", "a_retry_holds_its_key_and_no_other")
class HoldsAllKeysForOne(Rekeyed):
    def key(self, key: str | None) -> str | None:
        return "all"


@caught_by("messages_without_a_key_do_not_wait_for_each_other")
class TakesNoKeyForAKey(Rekeyed):
    def key(self, key: str | None) -> str | None:
        return key or ""


@caught_by("a_subscription_that_is_not_ordered_does_not_hold_keys")
class HoldsKeysUnasked(Queue):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ordered = True


@caught_by("a_key_stays_with_its_receiver_while_later_ones_are_held")
class HandsOutARetryWhileLaterOnesAreHeld(Queue):
    def delay(self, message: QueuedMessage, seconds: float) -> None:
        super().delay(message, seconds)
        lane = message.key_queue
        if lane is not None and lane.in_flight and not seconds:
            message.delayed, lane.queued = False, True
            self._make_ready(lane)


@caught_by("messages_of_one_key_come_in_the_order_given")
class HandsOutTheLastFirst(Queue):
    def take(self, limit: int) -> list[QueuedMessage]:
        return super().take(limit)[::-1]


@caught_by("what_is_released_waits_in_its_place", "a_retry_holds_its_key_and_no_other")
class PutsBackAtTheEnd(Queue):
    def _again(self, message: QueuedMessage) -> None:
        message.number = next(self._numbers)

    def release(self, messages: Sequence[QueuedMessage]) -> None:
        for message in messages:
            self._again(message)
        super().release(messages)

    def delay(self, message: QueuedMessage, seconds: float) -> None:
        self._again(message)
        super().remove(message)
        self.put(message.topic, message.body, message.key_queue.key if message.key_queue else None)


@caught_by("what_is_settled_for_good_frees_its_key")
class HoldsTheKeyOfADeadLetter(Queue):
    def dead_letter(self, message: QueuedMessage, failure: MoveToDeadLetters) -> None:
        if message.key_queue:
            message.key_queue.in_flight += 1
        super().dead_letter(message, failure)


@caught_by("delays_are_each_messages_own")
class DelaysInLine(Queue):
    longest = 0.0

    def delay(self, message: QueuedMessage, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        super().delay(message, self.longest)


@caught_by("a_dead_letter_keeps_all_that_is_known")
class CutsTheTraceback(Queue):
    def dead_letter(self, message: QueuedMessage, failure: MoveToDeadLetters) -> None:
        super().dead_letter(message, failure._replace(traceback=(failure.traceback or "")[:100]))


@caught_by("a_dead_letter_may_have_no_error")
class WritesNoneAsText(Queue):
    def dead_letter(self, message: QueuedMessage, failure: MoveToDeadLetters) -> None:
        super().dead_letter(message, failure._replace(error=str(failure.error)))


@caught_by("a_replay_hands_one_out_as_new")
class ReplaysWithItsFailures(Queue):
    def replay(self, letter_id: str) -> bool:
        replayed = super().replay(letter_id)
        for message in self._ready:
            if isinstance(message, QueuedMessage):
                message.deliveries += 1
        return replayed


@caught_by("a_replay_comes_behind_all_that_wait")
class ReplaysBeforeWhatWaits(Queue):
    def replay(self, letter_id: str) -> bool:
        replayed = super().replay(letter_id)
        for lane in self._key_queues.values():
            lane.waiting.rotate(1)
        return replayed


@caught_by("what_was_replayed_may_fail_again", "a_replay_hands_one_out_as_new")
class ReplaysACopy(Queue):
    def replay(self, letter_id: str) -> bool:
        letters = {**self.dead_letters}
        replayed = super().replay(letter_id)
        self.dead_letters = letters
        return replayed


class WritesDown(MemoryReceiver):
    """Settles one after the other, and writes them down where that is."""

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        lost: list[Delivery] = []
        for settlement in settlements:
            try:
                lost += await super().settle([settlement])
            except UnicodeEncodeError as error:
                await self.cannot_write(settlement, error)
        return lost

    async def cannot_write(self, settlement: Settlement, error: UnicodeEncodeError) -> None:
        raise error


NOT_WRITABLE = "an_outcome_that_cannot_be_recorded_takes_nothing_with_it"


@caught_by(NOT_WRITABLE)
class TellsOfAnOutageForWhatCannotBeWritten(WritesDown):
    async def cannot_write(self, settlement: Settlement, error: UnicodeEncodeError) -> None:
        raise BrokerUnavailableError(str(error)) from error


@caught_by(NOT_WRITABLE)
class DropsWhatCannotBeWritten(WritesDown):
    async def cannot_write(self, settlement: Settlement, error: UnicodeEncodeError) -> None:
        await super().settle([(settlement[0], ACK)])


@caught_by(NOT_WRITABLE)
class ForgetsTheLeaseOfWhatCannotBeWritten(WritesDown):
    async def cannot_write(self, settlement: Settlement, error: UnicodeEncodeError) -> None:
        del self._leases[settlement[0].receipt]
        raise error


@caught_by(NOT_WRITABLE)
class TakesNothingMoreAfterwards(WritesDown):
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        if self._closed:
            raise BrokerError("closed")
        return await super().settle(settlements)

    async def cannot_write(self, settlement: Settlement, error: UnicodeEncodeError) -> None:
        self.close()
        raise error


# Brokers that publish wrongly.


@caught_by("every_subscription_of_a_topic_gets_each_message")
class SharesBetweenSubscriptions(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        for topic in self._topics.values():
            topic.queues = topic.queues[-1:] + topic.queues[:-1]
            for queue in topic.queues[1:]:
                queue.put = lambda *_: None  # type: ignore[method-assign]  # the defect
        await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)


@caught_by("other_topics_are_not_heard")
class SendsToAllTopics(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        copies = [OutgoingMessage(topic, message.envelope) for message in messages for topic in self._topics]
        await super().publish(copies, timeout=timeout, wait_for_room=wait_for_room)


@caught_by("nothing_can_be_published")
class WantsSomethingToPublish(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        _ = messages[0]
        await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)


@caught_by("what_nobody_has_subscribed_to_is_dropped")
class RefusesWhatNobodyHasSubscribedTo(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        if any(message.topic not in self._topics for message in messages):
            raise NotPublishedError(messages) from BrokerError("no such topic")
        await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)


@caught_by("a_subscription_gets_all_from_the_time_that_it_was_applied")
class BeginsWithTheFirstReceiver(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        if self._receivers:
            await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)


@caught_by("calls_of_publish_may_overlap")
class PublishesOneCallAtATime(WrongBroker):
    publishing = False

    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        if self.publishing:
            raise RuntimeError("publish is running")
        self.publishing = True
        await asyncio.sleep(0)
        await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)
        self.publishing = False


@caught_by("attributes_that_nobody_here_knows_survive")
class ParksWhatItUnderstands(Queue):
    def dead_letter(self, message: QueuedMessage, failure: MoveToDeadLetters) -> None:
        message.body = OutgoingMessage(message.topic, parse_envelope({}, message.body)).structured
        super().dead_letter(message, failure)


@caught_by("attributes_that_nobody_here_knows_survive")
class PublishesWhatItUnderstands(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        again = [OutgoingMessage(message.topic, message.envelope, due=message.due) for message in messages]
        await super().publish(again, timeout=timeout, wait_for_room=wait_for_room)


@caught_by("a_delivery_has_the_key_of_its_message")
class CutsKeys(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        found = await super().receive(limit)
        for one in found:
            one.key = one.key and one.key[:128]
        return found


@caught_by("status_tells_the_age_of_the_oldest_message")
class TellsTheAgeOfTheNewest(Queue):
    @property
    def oldest(self) -> float | None:
        return self._clock.now() - next(reversed(self._since.values())) if self._since else None


@caught_by("topics_without_a_subscription_are_found")
class TakesEmptyTopicsForUnsubscribed(WrongBroker):
    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        return [name for name in topics if not any(queue.size for queue in self._queues_of(name))]

    def _queues_of(self, name: str) -> Sequence[Queue]:
        return self._topics[name].queues if name in self._topics else ()


@caught_by("topics_without_a_subscription_are_found")
class KnowsOnlyWhatItHasSeen(WrongBroker):
    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        return [name for name in topics if name not in self._topics and not name.endswith("never")]


@caught_by("a_duplicate_is_dropped")
class DropsNoDuplicates(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        for topic in self._topics.values():
            topic.is_duplicate = lambda message: False  # type: ignore[method-assign]  # the defect
        await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)


@caught_by("what_one_subscription_goes_through_is_not_seen_by_another")
class TakesAReplayForADuplicate(WrongBroker):
    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        return () if self._duplicate_window else await super().replay(subscription, ids)


class RetriesThroughTheTopicReceiver(MemoryReceiver):
    everybody: ClassVar[list[Queue]] = []

    def _settle(self, message: QueuedMessage, outcome: Outcome, released: list[QueuedMessage]) -> None:
        super()._settle(message, outcome, released)
        if isinstance(outcome, RetryAfter):
            for queue in self.everybody:
                if queue is not self._queue:
                    queue.put(message.topic, message.body, None)


@caught_by(
    "a_retry_comes_back_to_its_own_subscription_only",
    "what_one_subscription_goes_through_is_not_seen_by_another",
    "what_is_scheduled_for_a_topic_is_not_a_retry_of_a_subscription_of_its_name",
)
class RetriesThroughTheTopic(WrongBroker):
    receiver_class = RetriesThroughTheTopicReceiver

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        RetriesThroughTheTopicReceiver.everybody[:] = self._queues.values()
        return await super().subscribe(subscription)


# Brokers that know no room, or know it wrongly.


# Brokers that schedule wrongly.


@caught_by("a_scheduled_message_is_delivered_when_it_is_due", "a_scheduled_message_takes_its_place_when_it_is_due")
class SchedulesNothing(WrongBroker):
    def _schedule(self, message: OutgoingMessage, due: datetime) -> bool:
        return False


@caught_by("a_message_that_is_due_already_is_delivered_at_once")
class WaitsForTheDayAfter(WrongBroker):
    def _schedule(self, message: OutgoingMessage, due: datetime) -> bool:
        passed = due < datetime.now(timezone.utc)
        return super()._schedule(message, due + timedelta(days=1) if passed else due)


@caught_by(
    "scheduled_messages_arrive_in_the_order_in_which_they_are_due", "every_subscription_gets_a_scheduled_message"
)
class RemembersOneScheduledMessage(WrongBroker):
    last: OutgoingMessage | None = None

    def _schedule(self, message: OutgoingMessage, due: datetime) -> bool:
        self.last = message
        return super()._schedule(message, due)

    def _put_due(self, message: OutgoingMessage, _: float) -> None:
        if message is self.last:
            super()._put_due(message, _)


@caught_by("a_scheduled_message_is_delivered_when_it_is_due")
class PublishesTwiceWhatWasScheduled(WrongBroker):
    def _schedule(self, message: OutgoingMessage, due: datetime) -> bool:
        return super()._schedule(message, due) and super()._schedule(message, due)


@caught_by("publishing_waits_for_room", "who_has_waited_too_long_is_told_what_did_not_leave")
class KnowsNoRoom(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        await super().publish(messages, timeout=timeout, wait_for_room=False)


@caught_by("who_does_not_wait_for_room_never_waits", "a_full_queue_whose_consumers_publish_to_it_empties")
class AlwaysWaitsForRoom(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        await super().publish(messages, timeout=timeout)


@caught_by("who_has_waited_too_long_is_told_what_did_not_leave")
class TellsThatNothingLeft(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        try:
            await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)
        except NotPublishedError as error:
            raise NotPublishedError(messages) from error.__cause__


@caught_by("a_message_is_in_all_subscriptions_or_in_none")
class GivesToThoseWithRoom(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        try:
            await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)
        except NotPublishedError as error:
            for message in error.unsent:
                for queue in self._topics[message.topic].queues:
                    if queue.size < self._capacity:
                        queue.put(message.topic, message.structured, message.key)
            raise


# Brokers that keep dead letters wrongly.


@caught_by("dead_letters_are_read_from_the_oldest_on")
class ReadsTheNewestFirst(WrongBroker):
    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        return (await super().dead_letters(subscription, after=after, limit=limit))[::-1]


@caught_by("dead_letters_belong_to_one_subscription")
class HasDeadLettersInCommon(WrongBroker):
    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        every = [letter for queue in self._queues.values() for letter, _ in queue.dead_letters.values()]
        return [letter for letter in every if after is None or int(letter.id) > int(after)][:limit]


@caught_by("there_may_be_no_dead_letters")
class ReadsOnlyWhatItKnows(WrongBroker):
    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        assert subscription.name in self._queues
        return await super().dead_letters(subscription, after=after, limit=limit)


@caught_by("dead_letters_may_be_replayed_while_they_are_read")
class LooksForTheLastOfThePageBefore(WrongBroker):
    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        letters = [letter for letter, _ in self._queues[subscription.name].dead_letters.values()]
        ids = [letter.id for letter in letters]
        if after is not None and after not in ids:
            return ()
        return letters[0 if after is None else ids.index(after) + 1 :][:limit]


@caught_by("pages_of_dead_letters_have_each_once")
class RepeatsTheLastOfAPage(WrongBroker):
    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        before = None if after is None else str(int(after) - 1)
        found = await super().dead_letters(subscription, after=before, limit=limit)
        return () if [letter.id for letter in found] == [after] else found


@caught_by("pages_of_dead_letters_have_each_once")
class GivesMoreThanAPage(WrongBroker):
    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        return await super().dead_letters(subscription, after=after, limit=limit + 1)


@caught_by("a_purge_deletes_one_and_no_other")
class PurgesAll(WrongBroker):
    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        purged = await super().purge(subscription, ids)
        self._queues[subscription.name].dead_letters.clear()
        return purged


@caught_by("several_are_replayed_or_purged_at_once")
class PurgesTheFirst(WrongBroker):
    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        return await super().purge(subscription, [*ids][:1])


@caught_by("several_are_replayed_or_purged_at_once")
class ReportsWhatWasAskedFor(WrongBroker):
    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        await super().replay(subscription, ids)
        return ids


@caught_by("several_may_read_dead_letters_while_another_replays")
class HidesWhatAnotherReads(WrongBroker):
    reading = False

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        if self.reading:
            return ()
        self.reading = True
        await asyncio.sleep(0.01)
        self.reading = False
        return await super().dead_letters(subscription, after=after, limit=limit)


@caught_by("a_dead_letter_is_replayed_once_though_several_try")
class ReplaysForEach(WrongBroker):
    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        there = [one for one in ids if one in self._queues[subscription.name].dead_letters]
        await asyncio.sleep(0)
        await super().replay(subscription, ids)
        return there


@caught_by("the_largest_message_may_become_a_dead_letter_with_a_long_traceback")
class RefusesLongDeadLetters(MemoryReceiver):
    def _settle(self, message: QueuedMessage, outcome: Outcome, released: list[QueuedMessage]) -> None:
        if isinstance(outcome, MoveToDeadLetters) and len(message.body) + len(outcome.traceback or "") > 4_000_000:
            raise BrokerError("it is too long")
        super()._settle(message, outcome, released)


# Brokers that operators suffer from.


@caught_by("a_topic_that_is_added_begins_then")
class DeliversWhatOthersHave(WrongBroker):
    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        created = await super().apply(subscriptions, topics)
        for one in subscriptions:
            for topic in one.topics:
                for other in self._topics[topic.name].queues[:-1]:
                    for item in (
                        [item for item in vars(other)["_ready"] if isinstance(item, QueuedMessage)] if created else ()
                    ):
                        self._queues[one.name].put(item.topic, item.body, None)
        return created


@caught_by("apply_names_a_topic_that_it_adds")
class NamesNoTopics(WrongBroker):
    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        return [name for name in await super().apply(subscriptions, topics) if "->" not in name]


@caught_by("another_order_is_refused_or_kept")
class SplitsByOrder(WrongBroker):
    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        for one in subscriptions:
            if one.name in self._queues and self._queues[one.name].ordered != one.ordered:
                del self._queues[one.name]
        return await super().apply(subscriptions, topics)


@caught_by("names_are_not_mixed_up")
class KnowsNoCapitals(WrongBroker):
    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        return await super().apply([one._replace(name=one.name.lower()) for one in subscriptions], topics)

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        return await super().subscribe(subscription._replace(name=subscription.name.lower()))


@caught_by("many_that_are_delayed_stop_no_other")
class HasRoomForAThousandDelayed(Queue):
    delayed = 0

    def delay(self, message: QueuedMessage, seconds: float) -> None:
        self.delayed += 1
        super().delay(message, seconds)

    def _end_delay(self, message: QueuedMessage, _: float) -> None:
        self.delayed -= 1
        super()._end_delay(message, _)

    def take(self, limit: int) -> list[QueuedMessage]:
        if self.delayed < 1_000:
            return super().take(limit)
        self.stored.clear()
        return []


@caught_by("receivers_that_come_and_go_strand_nothing")
class TakesOneMoreWhenItCloses(MemoryReceiver):
    def close(self) -> None:
        super().close()
        if self._queue.ordered:
            self._queue.take(1)


@caught_by("a_second_receiver_gets_its_share_of_the_keys")
class KeepsItsKeys(MemoryReceiver):
    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        owner = vars(self._queue).setdefault("owner", self)
        while self._queue.ordered and owner is not self and not owner._closed and not self._closed:  # noqa: ASYNC110 - the queue has no event for that
            await asyncio.sleep(0.01)
        return await super().receive(limit)


# Brokers that live wrongly.


@caught_by("has_the_shape_of_the_port")
class LacksAMethod(WrongBroker):
    purge = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - counts as not there


@caught_by("what_is_declared_is_not_refused")
class RefusesWhatItCanDo(WrongBroker):
    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[ValidationIssue]:
        return [ValidationIssue("no", "use another")]


@caught_by("apply_creates_what_is_missing_and_names_it")
class AppliesInSilence(WrongBroker):
    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        await super().apply(subscriptions, topics)
        return ()


@caught_by("apply_changes_nothing_that_is_there")
class AppliesAnew(WrongBroker):
    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        for one in subscriptions:
            self._queues.pop(one.name, None)
        return await super().apply(subscriptions, topics)


@caught_by("apply_adds_a_topic_to_a_subscription")
class AppliesOnce(WrongBroker):
    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        return await super().apply([one for one in subscriptions if one.name not in self._queues], topics)


@caught_by("status_counts_what_waits_and_what_is_dead")
class CountsDeadLettersAmongThoseThatWait(WrongBroker):
    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        found = await super().status(subscriptions)
        return [one._replace(backlog=(one.backlog or 0) + (one.dead_letters or 0)) for one in found]


@caught_by("status_counts_what_waits_for_its_key")
class CountsWhatIsDoneOfAKey(WrongBroker):
    published = 0

    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)
        self.published += len(messages)

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        found = zip(subscriptions, await super().status(subscriptions), strict=True)
        return [status._replace(backlog=self.published) if one.ordered else status for one, status in found]


@caught_by("connect_and_aclose_may_be_repeated")
class CountsItsConnections(WrongBroker):
    connections = 0

    async def connect(self) -> None:
        self.connections += 1
        await super().connect()

    async def aclose(self) -> None:
        self.connections -= 1
        if self.connections < 0:
            raise BrokerError("it is not open")
        if not self.connections:
            await super().aclose()


@caught_by("a_broker_may_be_used_in_one_event_loop_after_another")
class ForgetsWhenClosed(WrongBroker):
    async def aclose(self) -> None:
        await super().aclose()
        if not self._is_open:
            self._queues.clear()
            self._topics.clear()


# Brokers that are cut off and away.


class FragileReceiver(MemoryReceiver):
    """Is told of outages by its broker."""

    away: bool = False

    def tell(self, *, away: bool) -> None:
        self.away = away
        self._queue.wake()

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        self.require_up()
        while not (self._closed or self._queue._ready):  # pyright: ignore[reportPrivateUsage]  # no other way to see it
            self._queue.stored.clear()
            await self._queue.stored.wait()
            self.require_up()
        return await super().receive(limit)

    def require_up(self) -> None:
        if self.away:
            raise BrokerUnavailableError("it is away")


class Fragile(WrongBroker):
    """Can be away, and is right about it: what the wrong ones are compared with."""

    receiver_class = FragileReceiver
    away = False

    def tell(self, *, away: bool) -> None:
        self.away = away
        for receiver in self._receivers:
            assert isinstance(receiver, FragileReceiver)
            receiver.tell(away=away)

    def require_up(self) -> None:
        if self.away:
            raise BrokerUnavailableError("it is away")

    async def connect(self) -> None:
        await super().connect()
        self.require_up()

    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        try:
            self.require_up()
        except BrokerError as error:
            raise NotPublishedError(messages) from error
        await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)


class WantsToBeConnectedAgain(Fragile):
    closed = False

    async def connect(self) -> None:
        self.closed = self.away
        await super().connect()

    def require_up(self) -> None:
        super().require_up()
        if self.closed:
            raise BrokerError("it is not connected")


class StaysAway(Fragile):
    def tell(self, *, away: bool) -> None:
        super().tell(away=self.away or away)


class TellsOfAnOutageForGood(Fragile):
    def require_up(self) -> None:
        if self.away:
            raise BrokerError("it is away")


class CannotCloseWhileAway(Fragile):
    async def aclose(self) -> None:
        self.require_up()
        await super().aclose()


class StaysAwayReceiver(FragileReceiver):
    def tell(self, *, away: bool) -> None:
        super().tell(away=self.away or away)


class ReceivesNoMore(Fragile):
    receiver_class = StaysAwayReceiver


class AnswersNoMoreReceiver(FragileReceiver):
    """Takes a moment to settle; if connections are cut in it, it waits for an answer that never comes."""

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        await asyncio.sleep(0.002)
        if self.away:
            await asyncio.Event().wait()
        return await super().settle(settlements)


class AnswersNoMore(Fragile):
    receiver_class = AnswersNoMoreReceiver


# Brokers that list or remove subscriptions wrongly.


@caught_by("other_subscriptions_are_those_that_were_applied")
class ListsThoseInUse(WrongBroker):
    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        return await super().other_subscriptions([])


@caught_by("names_that_are_listed_are_those_that_can_be_removed")
class ListsNamesThatItDoesNotKnow(WrongBroker):
    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        found = await super().other_subscriptions(used)
        return [status._replace(name=status.name.replace(" ", "-")) for status in found]


@caught_by("subscriptions_of_another_space_are_neither_found_nor_removed")
class ListsEverySpace(WrongBroker):
    brokers: ClassVar[list[MemoryBroker]] = []

    async def connect(self) -> None:
        self.brokers.append(self)
        await super().connect()

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        found = [await MemoryBroker.other_subscriptions(broker, used) for broker in dict.fromkeys(self.brokers)]
        return [status for statuses in found for status in statuses]


@caught_by("removing_ends_a_subscription_with_all_that_it_holds")
class KeepsWhatItRemoves(WrongBroker):
    async def remove_subscription(self, name: str, /) -> bool:
        queue = self._queues.get(name)
        is_removed = await super().remove_subscription(name)
        if queue is not None:
            self.__dict__.setdefault("removed", {})[name] = queue
        return is_removed

    def _create(self, subscription: Subscription) -> Queue:
        removed: dict[str, Queue] = self.__dict__.get("removed", {})
        queue = removed.pop(subscription.name, None) or super()._create(subscription)
        return self._queues.setdefault(queue.name, queue)


@caught_by("removing_what_is_not_there_returns_false")
class RemovesWhatItDoesNotHave(WrongBroker):
    async def remove_subscription(self, name: str, /) -> bool:
        await super().remove_subscription(name)
        return True


@caught_by("a_topic_whose_last_subscription_was_removed_drops_what_is_published")
class WantsASubscription(WrongBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        if any(not topic.queues for topic in self._topics.values()):
            raise NotPublishedError(messages) from BrokerError("the topic has no subscription any more")
        await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)


@caught_by("a_subscription_that_was_created_again_keeps_its_retries")
class LosesRetriesOfWhatItCreatesAgain(WrongBroker):
    """As if it stored them in a queue that was deleted with the old subscription."""

    async def remove_subscription(self, name: str, /) -> bool:
        self.__dict__["receiver_class"] = AcknowledgesRetries
        return await super().remove_subscription(name)


class AcknowledgesRetries(MemoryReceiver):
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        return await super().settle([(one, ACK if isinstance(how, RetryAfter) else how) for one, how in settlements])


@caught_by("removing_a_full_subscription_lets_publishers_continue")
class LeavesPublishersWaiting(WrongBroker):
    async def remove_subscription(self, name: str, /) -> bool:
        queue = self._queues.pop(name, None)
        for topic in self._topics.values():
            topic.queues = [other for other in topic.queues if other is not queue]
        return queue is not None


class MutantSuite(BrokerSuite):
    """Runs the cases for one broker, in a loop whose time passes at once."""

    made: ClassVar[type[MemoryBroker]] = MemoryBroker
    case_timeout = 4.0
    receive_timeout = 1.0
    message_count = 300
    max_examples = 40
    lives = 20
    shrink = False
    spaces: ClassVar[dict[str, MemoryBroker]] = {}

    def make_broker(self, space: str, wanted: BrokerOptions) -> Broker:
        if space not in self.spaces:
            window = wanted.duplicate_window
            self.spaces[space] = self.made(wanted.capacity, wanted.lease, duplicate_window=window)
        return self.spaces[space]

    async def clean_up(self, space: str) -> None:
        del self.spaces[space]

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        run_swiftly(main)


class FragileSuite(MutantSuite):
    """Hurts its broker."""

    made: ClassVar[type[MemoryBroker]] = Fragile

    def fragile(self) -> Fragile:
        broker = self.spaces[self.namespace]
        assert isinstance(broker, Fragile)
        return broker

    async def cut_connections(self) -> None:
        broker = self.fragile()
        broker.tell(away=True)
        asyncio.get_running_loop().call_later(0.01, lambda: broker.tell(away=False))

    async def stop_server(self) -> None:
        self.fragile().tell(away=True)

    async def start_server(self) -> None:
        self.fragile().tell(away=False)


def arguments(case: object) -> list[dict[str, Any]]:
    """All the arguments that a case is run with."""
    marks: list[pytest.Mark] = getattr(case, "pytestmark", [])
    each = [[(mark.args[0], value) for value in mark.args[1]] for mark in marks if mark.name == "parametrize"]
    return [dict(chosen) for chosen in itertools.product(*each)]


def fails(suite: BrokerSuite, name: str) -> bool:
    """Whether a case fails, with any of its arguments."""
    case = getattr(suite, f"test_{name}")
    for chosen in arguments(case):
        try:
            case(**chosen)
        except pytest.skip.Exception:
            continue
        except (Exception, asyncio.CancelledError, pytest.fail.Exception):  # noqa: BLE001 - a defect fails in any way
            return True
    return False


def suite_for(broker: type[MemoryBroker]) -> MutantSuite:
    """Make a suite of the broker."""

    class Suite(FragileSuite if issubclass(broker, Fragile) else MutantSuite):  # type: ignore[misc]  # mypy wants to know the base
        made = broker

    return Suite()


EVERY_CASE = [name.removeprefix("test_") for name in dir(BrokerSuite) if name.startswith("test_")]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.broker.__name__)
def test_a_defect_is_caught_by_the_cases_that_are_about_it(mutant: Mutant) -> None:
    suite = suite_for(mutant.broker)
    assert {name for name in mutant.caught_by if fails(suite, name)} == mutant.caught_by


def test_the_broker_that_defects_are_put_into_is_right() -> None:
    suite = suite_for(WrongBroker)
    assert [name for name in EVERY_CASE if fails(suite, name)] == []


class OvertakesReplays(Queue):
    """Right, though it puts what is published before what was replayed and still waits."""

    is_replaying = False

    def replay(self, letter_id: str) -> bool:
        self.is_replaying = True
        replayed = super().replay(letter_id)
        self.is_replaying = False
        return replayed

    def put(self, topic: str, body: bytes, key: str | None) -> None:
        super().put(topic, body, key)
        if key is None or not self.ordered:
            return
        waiting = self._key_queues[key].waiting
        new = waiting.pop()
        new.topic = Replayed(topic) if self.is_replaying else topic
        overtaken = [] if self.is_replaying else [*itertools.takewhile(is_replayed, reversed(waiting))]
        for one in overtaken:
            waiting.pop()
            new.number, one.number = one.number, new.number
        waiting.extend([new, *reversed(overtaken)])


class Replayed(str):
    """The topic of a message that was replayed."""

    __slots__ = ()


def is_replayed(message: QueuedMessage) -> bool:
    return isinstance(message.topic, Replayed)


def test_what_is_published_later_may_overtake_a_replay() -> None:
    broker: Any = type("Overtaken", (WrongBroker,), {"queue_class": OvertakesReplays})
    suite = suite_for(broker)
    assert [name for name in EVERY_CASE if fails(suite, name)] == []


HURT = {
    "goes_on_by_itself_after_its_connections_broke",
    "a_receive_that_waits_survives_a_broken_connection",
    "publishing_and_settling_many_end_soon_when_connections_break",
    "an_outage_is_told_as_one_that_may_pass",
    "one_that_was_away_at_the_start_is_found_without_another_connect",
    "closing_is_quiet_while_the_broker_is_away",
    "what_is_stored_survives",
}


def test_every_case_catches_some_defect() -> None:
    not_declared = {
        "a_message_may_be_as_large_as_the_limit",
        "what_is_stored_survives",
        "a_subscription_survives_the_server",
        "a_lease_is_that_of_the_process_that_asked",
        "a_scheduled_message_survives_the_process_that_published_it",
    }
    rest = {*EVERY_CASE} - not_declared - HURT
    assert rest - set[str]().union(*(one.caught_by for one in MUTANTS)) == set()


def test_a_broker_that_comes_back_passes() -> None:
    suite = suite_for(Fragile)
    assert [name for name in EVERY_CASE if fails(suite, name)] == []


@pytest.mark.parametrize(
    ("broker", "caught"),
    [
        (StaysAway, "an_outage_is_told_as_one_that_may_pass"),
        (WantsToBeConnectedAgain, "one_that_was_away_at_the_start_is_found_without_another_connect"),
        (TellsOfAnOutageForGood, "an_outage_is_told_as_one_that_may_pass"),
        (TellsOfAnOutageForGood, "goes_on_by_itself_after_its_connections_broke"),
        (CannotCloseWhileAway, "closing_is_quiet_while_the_broker_is_away"),
        (ReceivesNoMore, "a_receive_that_waits_survives_a_broken_connection"),
        (AnswersNoMore, "publishing_and_settling_many_end_soon_when_connections_break"),
    ],
)
def test_a_defect_in_an_outage_is_caught(broker: type[Fragile], caught: str) -> None:
    assert fails(suite_for(broker), caught)


def test_cases_that_hurt_the_broker_skip_where_the_author_cannot() -> None:
    suite = suite_for(WrongBroker)
    for name in HURT:
        with pytest.raises(pytest.skip.Exception, match=r"the author has written no|does not declare"):
            getattr(suite, f"test_{name}")()


class Lesser(WrongBroker):
    """Declares less."""

    @property
    def capabilities(self) -> BrokerCapability:
        return (
            BrokerCapability.ACKNOWLEDGED
            | BrokerCapability.CONSUMER_GROUPS
            | BrokerCapability.DEAD_LETTERS
            | BrokerCapability.DELAYED_RETRY
        )


def test_what_a_broker_does_not_declare_skips() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"does not declare <BrokerCapability.ORDER_BY_KEY"):
        suite_for(Lesser).test_what_is_settled_for_good_frees_its_key(ACK)
    with pytest.raises(pytest.skip.Exception, match=r"does not declare <BrokerCapability.BACKPRESSURE"):
        suite_for(Lesser).test_publishing_waits_for_room()


def test_a_case_is_overridden_only_with_a_reason() -> None:
    def replacement(suite: object) -> None: ...

    with pytest.raises(TypeError, match="test_failures_add_up replaces a case"):
        type("Silent", (MutantSuite,), {"test_failures_add_up": replacement})
    explained = pytest.mark.xfail(reason="the server counts later")(replacement)
    assert issubclass(type("Reasonable", (MutantSuite,), {"test_failures_add_up": explained}), BrokerSuite)


def test_the_hook_must_be_written() -> None:
    class EmptySuite(BrokerSuite): ...

    with pytest.raises(NotImplementedError, match=r"EmptySuite\.make_broker: it makes"):
        EmptySuite().make_broker("space", BrokerOptions())
