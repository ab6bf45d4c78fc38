"""Receiving from a queue without sessions: any message, in no order."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timezone

from azure.servicebus.exceptions import MessageAlreadySettled

from diator.brokers import Ack, Delivery, MoveToDeadLetters, Outcome, Receiver, RetryAfter, Settlement, Subscription
from diator_azure_servicebus import _sdk as sdk_
from diator_azure_servicebus._copies import copy_of
from diator_azure_servicebus._dead_letter_reason import write
from diator_azure_servicebus._errors import LOST, translated, unclear
from diator_azure_servicebus._fetching import Fetcher, LockedMessage
from diator_azure_servicebus._names import copy_id_of
from diator_azure_servicebus._receiving import Receiving
from diator_azure_servicebus._sender import Sender

_WAIT = 30.0
"""Seconds of one fetch."""


class QueueReceiver(Receiving):
    """One worker's access to a queue."""

    def __init__(
        self,
        sdk: sdk_.Receiver,
        retries: Sender,
        subscription: Subscription,
        lease: float,
        forget: Callable[[Receiver], None],
    ) -> None:
        super().__init__(sdk.entity_path, subscription, lease, forget)
        self._sdk = sdk
        self._retries = retries
        self._in_flight: dict[LockedMessage, None] = {}
        self._fetcher = Fetcher(sdk, self._woken.set)

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many at the same time; return those whose lock was lost."""
        await self._reopen()
        done = await asyncio.gather(*(self._settle(*one) for one in settlements), return_exceptions=True)
        return _lost([delivery for delivery, _ in settlements], done)

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew locks; return those that were lost already."""
        await self._reopen()
        done = await asyncio.gather(*(self._renew(one) for one in deliveries), return_exceptions=True)
        return _lost(deliveries, done)

    async def _reopen(self) -> None:
        """Open the link again if it broke, once for all that need it."""
        with translated(self._queue):
            if not self._sdk.is_open and self._closing is None:
                await self._sdk.__aenter__()

    async def _close(self) -> None:
        released, self._in_flight = [held for held in self._in_flight if not held.lost], {}
        for held in released:
            held.lost = True  # what is settled from now on has been released
        await self._fetcher.aclose(released)

    def _deliver(self, limit: int) -> Sequence[Delivery]:
        self._fetcher.drop_expired()
        ready = self._fetcher.ready
        taken = [ready.popleft() for _ in range(min(limit, len(ready)))]
        self._in_flight.update(dict.fromkeys(taken))
        if taken:
            self._look_at_lock(taken[0].message.locked_until_utc)
        return [held.delivery(self._subscription) for held in taken]

    def _ask(self, limit: int) -> None:
        self._fetcher.start(limit, _WAIT)

    def _take_error(self) -> BaseException | None:
        return self._fetcher.take_error()

    def _rest(self) -> None:
        self._fetcher.pause()

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        held: LockedMessage = delivery.receipt
        if held.settled:
            return False
        with translated(self._queue):
            try:
                if not held.lost and not held.expired:
                    await self._carry_out(held, delivery, outcome)
                    held.settled = True
            except MessageAlreadySettled:  # by an earlier call that was cancelled, or it was released
                held.settled = not held.lost
            except LOST as error:
                held.lost = True
                if (held.copied or not isinstance(outcome, RetryAfter)) and (outage := unclear(error, self._queue)):
                    raise outage from error
        held.lost = not held.settled
        self._in_flight.pop(held, None)
        return held.lost

    async def _carry_out(self, held: LockedMessage, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, RetryAfter):
            await self._send_copy(held, delivery, outcome)
        if isinstance(outcome, (Ack, RetryAfter)):
            await self._sdk.complete_message(held.message)
        elif isinstance(outcome, MoveToDeadLetters):
            reason, description = write(outcome)
            await self._sdk.dead_letter_message(held.message, reason, description)
        else:
            await self._sdk.release(held.message, held.link)

    async def _send_copy(self, held: LockedMessage, delivery: Delivery, outcome: RetryAfter) -> None:
        """Send the copy first: a crash then makes a duplicate, and loses nothing. Renewing shows that it is ours."""
        if held.copied:
            return
        until = await self._sdk.renew_message_lock(held.message)
        failures = held.failures + 1
        message_id = f"{held.message.message_id}\n{held.sequence}"  # other programs may give many messages one id
        copy = copy_of(
            held.message,
            copy_id_of(message_id, self._subscription.name, failures),
            failures=failures,
            deliveries=delivery.deliveries,
            delay=outcome.delay,
        )
        await self._retries.send_one(copy, _seconds_until(until))
        held.copied = True

    async def _renew(self, delivery: Delivery) -> bool:
        held: LockedMessage = delivery.receipt
        if held.settled:
            return False
        if held.lost or held.expired:
            return self._lose(held)
        with translated(self._queue):
            try:
                await self._sdk.renew_message_lock(held.message)
            except MessageAlreadySettled:
                return held.lost
            except LOST:
                return self._lose(held)
        return False

    def _lose(self, held: LockedMessage) -> bool:
        held.lost = True
        self._in_flight.pop(held, None)
        return True


def _seconds_until(moment: datetime) -> float:
    return max(0.1, (moment - datetime.now(timezone.utc)).total_seconds())


def _lost(deliveries: Sequence[Delivery], done: "Sequence[bool | BaseException]") -> Collection[Delivery]:
    """Return those that are lost, or raise the first error."""
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [delivery for delivery, lost in zip(deliveries, done, strict=True) if lost]
