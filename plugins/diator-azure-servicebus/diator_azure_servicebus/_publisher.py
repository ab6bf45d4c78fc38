"""Publishing: batches in order, each topic's over its own sender."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch

from diator.brokers import Outgoing
from diator.errors import BrokerError, BrokerUnavailableError, MessageTooLargeError, NotPublishedError
from diator_azure_servicebus._errors import REFUSED, translate
from diator_azure_servicebus._link import Link
from diator_azure_servicebus._messages import to_wire
from diator_azure_servicebus._names import path_of
from diator_azure_servicebus._sender import Sender, Wire


class _Parcel(NamedTuple):
    """What leaves in one frame, and the events in it."""

    sender: Sender
    wire: Wire
    events: Sequence[Outgoing]


class _Failure(NamedTuple):
    unsent: Sequence[Outgoing]
    unknown: Sequence[Outgoing]
    cause: BrokerError


class Publisher:
    """Sends events to their topics."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._settings = link.settings

    async def publish(self, messages: Sequence[Outgoing], timeout: float) -> None:
        """Store messages. Raises `~diator.NotPublishedError`."""
        deadline = asyncio.get_running_loop().time() + timeout
        runs = [[*run] for run in _runs(messages)]
        parcels = await self._packed(runs, messages, deadline)
        failures: list[_Failure] = []
        for failure in await asyncio.gather(*(self._send(lane, deadline) for lane in _lanes(parcels, messages))):
            failures += [failure] if failure is not None else []
        if failures:
            unsent = [message for failure in failures for message in failure.unsent]
            unknown = [message for failure in failures for message in failure.unknown]
            raise NotPublishedError(unsent, unknown) from failures[0].cause

    async def _packed(
        self, runs: Iterable[list[Outgoing]], messages: Sequence[Outgoing], deadline: float
    ) -> list[_Parcel]:
        """Fill all batches before anything is sent. Nothing has left if it fails."""
        parcels: list[_Parcel] = []
        left = deadline - asyncio.get_running_loop().time()
        try:
            for run in runs:
                parcels += await asyncio.wait_for(self._parcels(run), left)
        except Exception as error:  # noqa: BLE001 - translated
            what = path_of(messages[0].topic, self._settings.prefix)
            raise NotPublishedError(messages) from translate(error, what)
        return parcels

    async def _parcels(self, run: list[Outgoing]) -> list[_Parcel]:
        sender = self._link.sender(path_of(run[0].topic, self._settings.prefix))
        wired = [to_wire(message, sessions=self._settings.sessions) for message in run]
        if len(run) == 1 and len(run[0].data) <= _SMALL:
            return [_Parcel(sender, wired[0], run)]
        parcels: list[_Parcel] = []
        at = 0
        for wire in await sender.packed(wired):
            count = len(wire) if isinstance(wire, ServiceBusMessageBatch) else 1
            parcels.append(_Parcel(sender, wire, run[at : at + count]))
            if isinstance(wire, ServiceBusMessage):
                self._check_size(run[at])
            at += count
        return parcels

    def _check_size(self, message: Outgoing) -> None:
        """Refuse what fits into no batch, unless the tier takes larger messages than batches."""
        size, limit = len(message.structured), self._settings.max_message_bytes
        if size > limit or limit <= _LARGEST_BATCH:
            raise MessageTooLargeError(f"{message.envelope.type} {message.id}", size, limit)

    async def _send(self, lane: Sequence[_Parcel], deadline: float) -> _Failure | None:
        for at, parcel in enumerate(lane):
            rest = [event for later in lane[at + 1 :] for event in later.events]
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                text = f"Service Bus, {parcel.sender.path}: there was no time left to send"
                return _Failure([*parcel.events, *rest], [], BrokerUnavailableError(text))
            try:
                await parcel.sender.send(parcel.wire, left)
            except BrokerError as error:
                return _Failure([*parcel.events, *rest], [], error)
            except Exception as error:  # noqa: BLE001 - raised by `publish`
                cause = translate(error, parcel.sender.path)
                if isinstance(error, REFUSED):
                    return _Failure([*parcel.events, *rest], [], cause)
                return _Failure(rest, parcel.events, cause)
        return None


_SMALL = 32_768
"""Bytes of data that fit into any batch, whatever comes with them."""
_LARGEST_BATCH = 1_048_576
"""Bytes: no tier takes larger batches, though Premium takes larger messages."""


def _runs(messages: Sequence[Outgoing]) -> Iterable[Iterable[Outgoing]]:
    """Split into what may share a batch: all of a topic, or neighbours only where a key goes to several topics."""
    if _a_key_has_topics(messages):
        return (run for _, run in groupby(messages, key=lambda message: message.topic))
    by_topic: dict[str, list[Outgoing]] = {}
    for message in messages:
        by_topic.setdefault(message.topic, []).append(message)
    return by_topic.values()


def _lanes(parcels: Sequence[_Parcel], messages: Sequence[Outgoing]) -> Iterable[Sequence[_Parcel]]:
    """Split into what may leave side by side."""
    if _a_key_has_topics(messages):
        return [parcels]
    by_path: dict[str, list[_Parcel]] = {}
    for parcel in parcels:
        by_path.setdefault(parcel.sender.path, []).append(parcel)
    return by_path.values()


def _a_key_has_topics(messages: Sequence[Outgoing]) -> bool:
    topics: dict[str, str] = {}
    return any(
        topics.setdefault(message.key, message.topic) != message.topic
        for message in messages
        if message.key is not None
    )
