"""Dead letters: Service Bus keeps them in a queue beside the queue, from which they can only be received."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver
from azure.servicebus.exceptions import MessagingEntityNotFoundError

from diator.brokers import DeadLetter, Subscription
from diator.errors import BrokerError
from diator_azure_servicebus._copies import copy_of
from diator_azure_servicebus._errors import quietly, translated
from diator_azure_servicebus._link import Link
from diator_azure_servicebus._messages import from_wire
from diator_azure_servicebus._parking import read
from diator_azure_servicebus._sdk import fetch, give_back, link_of, take_back
from diator_azure_servicebus._sender import Sender

_PAGE = 100
_WAIT = 2.0
"""Seconds in which a dead letter that was seen must come."""
_SEND = 10.0


class DeadLetters:
    """The dead letters of one queue. The link to them stays open."""

    def __init__(self, link: Link, queue: str) -> None:
        self._link = link
        self._queue = queue
        self._receiver: ServiceBusReceiver | None = None
        self._lock = asyncio.Lock()

    async def read(self, subscription: Subscription) -> AsyncIterator[DeadLetter]:
        """Read them, oldest first; none where there is no such queue."""
        first = 1
        while page := await self._page(first, _PAGE):
            for message in page:
                yield _letter(message, subscription)
            first = (page[-1].sequence_number or 0) + 1

    async def replay(self, letter: DeadLetter, target: Sender) -> bool:
        """Send one to its queue again, as new, then complete it: a crash in between makes a duplicate."""

        async def send(message: ServiceBusReceivedMessage) -> None:
            await target.send(copy_of(message, str(uuid4())), _SEND)

        return await self._take(letter, send)

    async def purge(self, letter: DeadLetter) -> bool:
        """Complete one."""

        async def nothing(_: ServiceBusReceivedMessage) -> None:
            """Do nothing before."""

        return await self._take(letter, nothing)

    async def aclose(self) -> None:
        """Close the link."""
        if self._receiver is not None:
            await quietly(self._receiver.close())

    async def _page(self, first: int, count: int) -> list[ServiceBusReceivedMessage]:
        async with self._lock:
            try:
                with translated(self._queue):
                    receiver = await self._opened()
                    return await receiver.peek_messages(count, sequence_number=first)
            except BrokerError as error:
                if isinstance(error.__cause__, MessagingEntityNotFoundError):
                    return []
                raise

    async def _take(self, letter: DeadLetter, act: Callable[[ServiceBusReceivedMessage], Awaitable[None]]) -> bool:
        number = int(letter.id) if letter.id.isdigit() else 0
        page = await self._page(number, 1) if number else []
        if not page or page[0].sequence_number != number:
            return False
        async with self._lock:
            with translated(self._queue):
                return await self._find(number, act)

    async def _find(self, number: int, act: Callable[[ServiceBusReceivedMessage], Awaitable[None]]) -> bool:
        """Receive until it comes, and give all others back."""
        receiver = await self._opened()
        others: list[tuple[ServiceBusReceivedMessage, object]] = []
        try:
            limit = 1
            while messages := await fetch(receiver, limit, _WAIT):
                link = link_of(receiver)
                others += [(message, link) for message in messages if message.sequence_number != number]
                found = [message for message in messages if message.sequence_number == number]
                if found:
                    await act(found[0])
                    await receiver.complete_message(found[0])
                    return True
                limit = min(limit * 4, _PAGE)
            return False
        finally:
            await quietly(take_back(receiver))
            await asyncio.gather(*(quietly(give_back(receiver, *one)) for one in others))

    async def _opened(self) -> ServiceBusReceiver:
        if self._receiver is None:
            self._receiver = await self._link.receiver(self._queue, dead_letters=True)
        return self._receiver


def _letter(message: ServiceBusReceivedMessage, subscription: Subscription) -> DeadLetter:
    content = from_wire(message, subscription)
    why, since = read(message)
    return DeadLetter(
        str(message.sequence_number),
        subscription.name,
        content.topic,
        why,
        since,
        content.deliveries + (message.delivery_count or 0) + 1,
        content.headers,
        content.body,
    )
