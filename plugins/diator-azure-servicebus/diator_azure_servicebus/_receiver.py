"""Receiving from a queue without sessions: any message, in no order."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timezone

from azure.servicebus.exceptions import MessageAlreadySettled

from diator.brokers import Ack, Delivery, Outcome, Park, RetryAfter, Settlement, Subscription
from diator_azure_servicebus._copies import copy_of
from diator_azure_servicebus._errors import LOST, translate, translated, unclear
from diator_azure_servicebus._fetching import LINGER, Calls, Fetcher, Held
from diator_azure_servicebus._locks import Locks
from diator_azure_servicebus._names import copy_id_of
from diator_azure_servicebus._parking import write
from diator_azure_servicebus._sdk import Receiver
from diator_azure_servicebus._sender import Sender

_WAIT = 30.0
"""Seconds of one fetch."""


class QueueReceiver:
    """One worker's access to a queue."""

    def __init__(
        self,
        sdk: Receiver,
        retries: Sender,
        subscription: Subscription,
        lease: float,
        closed: "Callable[[QueueReceiver], None]",
    ) -> None:
        self._sdk = sdk
        self._retries = retries
        self._subscription = subscription
        self._locks = Locks(sdk.entity_path, lease)
        self._tell_closed = closed
        self._woken = asyncio.Event()
        self._out: dict[int, Held] = {}
        self._fetcher = Fetcher(sdk, self._woken.set)
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._settling = Calls()

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and give at most ``limit`` of them; none if the receiver is closed meanwhile."""
        self._stop_timer()
        try:
            while self._closing is None:
                self._woken.clear()
                self._fetcher.drop_expired()
                if self._fetcher.ready:
                    return self._hand_out(limit)
                if error := self._fetcher.take_error():
                    raise translate(error, self._sdk.entity_path)
                self._fetcher.start(limit, _WAIT)
                await self._woken.wait()
            return ()
        finally:
            self._linger()

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many at the same time; give those whose lock was lost."""
        with self._settling:
            await self._reopen()
            done = await asyncio.gather(*(self._settle(*one) for one in settlements), return_exceptions=True)
        return _lost([delivery for delivery, _ in settlements], done)

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew locks; give those that were lost already."""
        await self._reopen()
        done = await asyncio.gather(*(self._renew(one) for one in deliveries), return_exceptions=True)
        return _lost(deliveries, done)

    async def _reopen(self) -> None:
        """Open the link again where it broke, once for all that need it."""
        with translated(self._sdk.entity_path):
            if not self._sdk.is_open:
                await self._sdk.__aenter__()

    async def aclose(self) -> None:
        """Give back what was not settled, and close."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
            self._woken.set()
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._stop_timer()
        await self._settling.ended()
        out, self._out = self._out, {}
        await self._fetcher.aclose(held for held in out.values() if not held.lost)
        self._tell_closed(self)

    def _hand_out(self, limit: int) -> Sequence[Delivery]:
        ready = self._fetcher.ready
        taken = [ready.popleft() for _ in range(min(limit, len(ready)))]
        self._out.update((id(held), held) for held in taken)
        self._locks.look(taken[0].message.locked_until_utc)
        return [held.delivery(self._subscription) for held in taken]

    def _linger(self) -> None:
        if self._closing is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._fetcher.pause)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        held: Held = delivery.receipt
        if held.settled:
            return False
        with translated(self._sdk.entity_path):
            try:
                if not held.lost and not held.expired:
                    await self._carry_out(held, delivery, outcome)
                    held.settled = True
            except MessageAlreadySettled:
                held.settled = True
            except LOST as error:
                held.lost = True
                if (held.copied or not isinstance(outcome, RetryAfter)) and (
                    outage := unclear(error, self._sdk.entity_path)
                ):
                    raise outage from error
        held.lost = not held.settled
        self._out.pop(id(held), None)
        return held.lost

    async def _carry_out(self, held: Held, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, RetryAfter):
            await self._send_copy(held, delivery, outcome)
        if isinstance(outcome, (Ack, RetryAfter)):
            await self._sdk.complete_message(held.message)
        elif isinstance(outcome, Park):
            reason, description = write(outcome)
            await self._sdk.dead_letter_message(held.message, reason, description)
        else:
            await self._sdk.release(held.message, held.link)

    async def _send_copy(self, held: Held, delivery: Delivery, outcome: RetryAfter) -> None:
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
        held: Held = delivery.receipt
        if held.settled:
            return False
        if held.lost or held.expired:
            return self._lose(held)
        with translated(self._sdk.entity_path):
            try:
                await self._sdk.renew_message_lock(held.message)
            except MessageAlreadySettled:
                return False
            except LOST:
                return self._lose(held)
        return False

    def _lose(self, held: Held) -> bool:
        held.lost = True
        self._out.pop(id(held), None)
        return True


def _seconds_until(moment: datetime) -> float:
    return max(0.1, (moment - datetime.now(timezone.utc)).total_seconds())


def _lost(deliveries: Sequence[Delivery], done: "Sequence[bool | BaseException]") -> Collection[Delivery]:
    """Give those of which it came out that they are lost; raise what has failed of the others."""
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [delivery for delivery, lost in zip(deliveries, done, strict=True) if lost]
