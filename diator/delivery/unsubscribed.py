"""Topics without a subscription: events published to them are dropped, so each topic is logged once."""

import asyncio
import logging
from collections.abc import Iterable

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import Broker, FindsUnsubscribed
from diator.delivery.error_texts import described
from diator.errors import BrokerError

logger = logging.getLogger("diator")

_TIMEOUT = 1.0
"""Seconds that the look-up may take: it delays the first message of a topic."""


class UnsubscribedTopics:
    """Asks a broker that can tell about each topic, after the first event was published to it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker if isinstance(broker, FindsUnsubscribed) else None
        self._known: set[str] = set()

    def are_new(self, messages: Iterable[OutgoingMessage]) -> bool:
        """Whether any of these messages is the first of its topic."""
        if self._broker is None:
            return False
        known = self._known
        for message in messages:  # noqa: SIM110 - asked for every message, and a generator costs
            if message.topic not in known:
                return True
        return False

    async def look(self, messages: Iterable[OutgoingMessage]) -> None:
        """Warn of new topics that have no subscription. Never fails: the messages are published already."""
        assert self._broker is not None, "only called for new topics"
        new = list(dict.fromkeys(message.topic for message in messages if message.topic not in self._known))
        self._known.update(new)
        try:
            for topic in await asyncio.wait_for(self._broker.unsubscribed(new), _TIMEOUT):
                logger.warning(
                    "Published to %r, which has no subscription: its messages are dropped; start a worker that "
                    "handles them, or create its subscriptions first: diator subscriptions apply",
                    topic,
                )
        except (BrokerError, asyncio.TimeoutError) as error:
            # Such as a permission that publishing does not need. Not asked again: publishing would be slow each time.
            logger.debug("The broker does not report whether %s have subscriptions (%s)", new, described(error))
        except Exception:
            logger.exception("Looking up the subscriptions of %s failed", new)
