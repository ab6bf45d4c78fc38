"""Publishing: the messages of each topic over its own sender, side by side unless a key goes to several topics."""

import asyncio
from collections.abc import Sequence
from itertools import chain, groupby
from typing import NamedTuple

from azure.servicebus.exceptions import MessageSizeExceededError

from diator.brokers import OutgoingMessage
from diator.errors import BrokerError, NotPublishedError
from diator_azure_servicebus._errors import translate
from diator_azure_servicebus._messages import to_wire
from diator_azure_servicebus._names import path_of
from diator_azure_servicebus._namespace import NamespaceClient
from diator_azure_servicebus._sender import Sender, Wire


class _Run(NamedTuple):
    """Messages of one topic, in order."""

    sender: Sender
    messages: Sequence[OutgoingMessage]
    wires: Sequence[Wire]


class _Failure(NamedTuple):
    unsent: Sequence[OutgoingMessage]
    unknown: Sequence[OutgoingMessage]
    rejected: Sequence[OutgoingMessage]
    cause: BrokerError


class Publisher:
    """Sends events to their topics."""

    def __init__(self, client: NamespaceClient) -> None:
        self._client = client

    async def publish(self, messages: Sequence[OutgoingMessage], timeout: float) -> None:
        """Store messages. Raises `~diator.NotPublishedError`."""
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            groups = [[self._run(run) for run in group] for group in _parallel_groups(messages)]
        except Exception as error:  # noqa: BLE001 - translated
            raise NotPublishedError(messages) from translate(error, messages[0].topic)
        done = await asyncio.gather(*(_send(group, deadline) for group in groups))
        failures = [failure for failure in done if failure is not None]
        if failures:
            unsent, unknown, rejected = ([*chain(*parts)] for parts in list(zip(*failures, strict=True))[:3])
            raise NotPublishedError(unsent, unknown, rejected) from failures[0].cause

    def _run(self, messages: Sequence[OutgoingMessage]) -> _Run:
        settings = self._client.settings
        wires = [to_wire(message, sessions=settings.sessions) for message in messages]
        return _Run(self._client.sender(path_of(messages[0].topic, settings.prefix)), messages, wires)


async def _send(group: Sequence[_Run], deadline: float) -> _Failure | None:
    """Send runs one after the other, up to the first that fails."""
    for at, run in enumerate(group, 1):
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        stored, unknown, error = await run.sender.send(run.wires, left)
        if error is not None:
            rejected = 1 if isinstance(error, MessageSizeExceededError) else 0  # one that no batch has room for
            rest = [message for later in group[at:] for message in later.messages]
            first, of_unknown, others = stored + rejected, stored + unknown, run.messages[stored + unknown + rejected :]
            cause = translate(error, run.sender.path)
            return _Failure([*others, *rest], run.messages[stored:of_unknown], run.messages[stored:first], cause)
    return None


def _parallel_groups(messages: Sequence[OutgoingMessage]) -> list[list[list[OutgoingMessage]]]:
    """Return groups that may leave side by side, each of runs that must leave one after the other."""
    topics: dict[str, str] = {}
    by_topic: dict[str, list[OutgoingMessage]] = {}
    has_key_with_several_topics = False
    for message in messages:
        by_topic.setdefault(message.topic, []).append(message)
        if message.key is not None and topics.setdefault(message.key, message.topic) != message.topic:
            has_key_with_several_topics = True
    if has_key_with_several_topics:
        return [[[*run] for _, run in groupby(messages, key=lambda message: message.topic)]]
    return [[run] for run in by_topic.values()]
