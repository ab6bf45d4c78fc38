"""Creating subscriptions: what a process publishes to them waits until they exist, or it would be dropped."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import Broker, Subscription, Topic
from diator.delivery.error_texts import no_answer
from diator.delivery.outage import CREATE, Backoff, OutageTracker, unless_stopped
from diator.errors import BrokerUnavailableError, NotPublishedError

logger = logging.getLogger("diator")

ITSELF = "the worker"
"""What creates subscriptions, as outages name it."""
_MAX_DELAY = 1.0
"""Seconds between attempts, while published events wait."""


class Creation:
    """The subscriptions of one worker, from its start until they exist or the worker has ended."""

    def __init__(
        self,
        broker: Broker,
        pending: "set[Creation]",
        subscriptions: Sequence[Subscription],
        topics: Sequence[Topic],
        timeout: float,
        outage: OutageTracker,
    ) -> None:
        self._broker = broker
        self._pending = pending
        """The creations of all workers over one broker, which publishing over it waits for."""
        self._subscriptions, self._topics = subscriptions, topics
        self._timeout = timeout
        self._outage = outage
        self.topics = frozenset(topic.name for one in subscriptions for topic in one.topics)
        """The names of the topics that the subscriptions receive from."""
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether they were created, once that is known."""
        self._pending.add(self)

    @property
    def is_done(self) -> bool:
        """Whether the subscriptions exist."""
        return self.ended.done() and self.ended.result()

    @property
    def trouble(self) -> str:
        """Why they could not be created yet."""
        return "; ".join(self._outage.failures(ITSELF))

    async def attempt(self) -> bool:
        """Try once; return false if the broker is unavailable. Raises `BrokerError` if it rejects them permanently."""
        try:
            created = await asyncio.wait_for(self._broker.apply(self._subscriptions, self._topics), self._timeout)
        except asyncio.TimeoutError:
            self._outage.record_failure(CREATE, ITSELF, no_answer(self._broker, self._timeout))
            return False
        except BrokerUnavailableError as error:
            self._outage.record_failure(CREATE, ITSELF, error)
            return False
        for name, parts in group_created(created, [one.name for one in self._subscriptions]).items():
            logger.info("created %s", name)
            for part in parts:
                logger.debug("created %s", part)
        self._end(created=True)
        self._outage.record_success(CREATE, ITSELF)
        return True

    async def run(self, stopping: asyncio.Event) -> None:
        """Try until they exist, or ``stopping`` is set."""
        backoff = Backoff(_MAX_DELAY)
        while not self.is_done and not stopping.is_set():
            await backoff.wait(stopping)
            try:
                await unless_stopped(self.attempt(), stopping)
            except Exception as error:  # noqa: BLE001 - logged as what it is, which may be a fault of the plugin
                self._outage.record_failure(CREATE, ITSELF, error)

    def give_up(self) -> None:
        """Stop waiting for them: the worker has ended."""
        self._end(created=False)

    def _end(self, *, created: bool) -> None:
        self._pending.discard(self)
        if not self.ended.done():
            self.ended.set_result(created)


def group_created(created: Sequence[str], subscriptions: Iterable[str]) -> dict[str, list[str]]:
    """Return what a broker has created for each subscription; what is for none of them, such as a topic, has no parts.

    The parts are the broker's own names, which contain that of the subscription.
    """
    longest_first = sorted(subscriptions, key=len, reverse=True)
    groups: dict[str, list[str]] = {}
    for part in created:
        name = next((f"subscription {one}" for one in longest_first if one in part), None)
        groups.setdefault(name or part, []).extend([part] if name else [])
    return groups


async def wait_until_created(pending: set[Creation], messages: Sequence[OutgoingMessage], timeout: float) -> float:
    """Wait until the subscriptions of these messages exist, and return the seconds that remain.

    Raises `NotPublishedError` if they do not exist within ``timeout`` seconds, or their worker has ended.
    """
    topics = {message.topic for message in messages}
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout
    while waits := [one for one in pending if not topics.isdisjoint(one.topics)]:
        done, _ = await asyncio.wait(
            [one.ended for one in waits], timeout=ends - loop.time(), return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise NotPublishedError(messages) from _unavailable(waits, f"do not exist after {timeout:g} s")
        if not all(one.result() for one in done):
            raise NotPublishedError(messages) from _unavailable(waits, "were not created before their worker ended")
    return max(ends - loop.time(), 0.001)


def _unavailable(waits: Collection[Creation], what: str) -> BrokerUnavailableError:
    reasons = "; ".join(dict.fromkeys(one.trouble for one in waits if one.trouble))
    return BrokerUnavailableError(f"the subscriptions of this process {what}" + (f": {reasons}" if reasons else ""))
