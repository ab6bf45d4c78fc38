"""Dead letters: Service Bus keeps them in a queue beside the queue, from which they can only be received."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from uuid import uuid4

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.exceptions import MessagingEntityNotFoundError

from diator.brokers import DeadLetter, Subscription
from diator.errors import BrokerError
from diator_azure_servicebus._copies import copy_of
from diator_azure_servicebus._dead_letter_reason import read
from diator_azure_servicebus._errors import quietly, translated
from diator_azure_servicebus._messages import from_wire
from diator_azure_servicebus._namespace import NamespaceClient
from diator_azure_servicebus._sdk import Receiver
from diator_azure_servicebus._sender import Sender

_PAGE = 100
_WAIT = 2.0
"""Seconds in which a dead letter that was seen must come."""
_SEND_TIMEOUT = 10.0


class DeadLetters:
    """The dead letters of one queue. The link to them stays open."""

    def __init__(self, client: NamespaceClient, queue: str) -> None:
        self._client = client
        self._queue = queue
        self._receiver: Receiver | None = None
        self._lock = asyncio.Lock()

    async def page(self, subscription: Subscription, after: str | None, limit: int) -> list[DeadLetter]:
        """Read a page, oldest first; an empty one if there is no such queue."""
        first = 1 if after is None else _number(after) + 1
        return [_letter(message, subscription) for message in await self._page(first, limit)]

    async def replay(self, ids: Collection[str], target: Sender) -> list[str]:
        """Send some to their queue again, as new, then complete each: a crash in between makes a duplicate."""

        async def send(message: ServiceBusReceivedMessage) -> None:
            await target.send_one(copy_of(message, str(uuid4())), _SEND_TIMEOUT)

        return await self._take(ids, send)

    async def purge(self, ids: Collection[str]) -> list[str]:
        """Complete some."""

        async def nothing(_: ServiceBusReceivedMessage) -> None:
            """Do nothing before."""

        return await self._take(ids, nothing)

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

    async def _take(
        self, ids: Collection[str], act: Callable[[ServiceBusReceivedMessage], Awaitable[None]]
    ) -> list[str]:
        wanted: set[int] = set()
        for number in filter(None, map(_number, ids)):
            page = await self._page(number, 1)
            if page and page[0].sequence_number == number:
                wanted.add(number)
        if not wanted:
            return []
        async with self._lock:
            with translated(self._queue):
                found = await self._find(wanted, act)
        return [one for one in ids if _number(one) in found]

    async def _find(
        self, wanted: Collection[int], act: Callable[[ServiceBusReceivedMessage], Awaitable[None]]
    ) -> Collection[int]:
        """Receive until all have come, and release all others."""
        receiver = await self._opened()
        others: list[tuple[ServiceBusReceivedMessage, object]] = []
        found: set[int] = set()
        try:
            limit = len(wanted)
            while len(found) < len(wanted) and (messages := await receiver.fetch(min(limit, _PAGE), _WAIT)):
                link = receiver.link
                others += [(message, link) for message in messages if message.sequence_number not in wanted]
                for message in messages:
                    if (number := message.sequence_number or 0) in wanted:
                        await act(message)
                        await receiver.complete_message(message)
                        found.add(number)
                limit *= 4
            return found
        finally:
            await quietly(receiver.return_prefetched())
            await asyncio.gather(*(quietly(receiver.release(*one)) for one in others))

    async def _opened(self) -> Receiver:
        if self._receiver is None:
            self._receiver = await self._client.receiver(self._queue, dead_letters=True)
        return self._receiver


def _number(letter_id: str) -> int:
    return int(letter_id) if letter_id.isascii() and letter_id.isdigit() else 0


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
