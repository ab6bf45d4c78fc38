"""Topics without a subscription: what is published to them is dropped, which is logged once for each."""

import asyncio
import logging
from collections.abc import Iterable

from diator.brokers.envelope import Outgoing
from diator.brokers.port import Broker, FindsUnsubscribed
from diator.delivery.texts import described
from diator.errors import BrokerError

logger = logging.getLogger("diator")

_LONGEST = 1.0
"""Seconds that the look-up may take: it delays the first message of a topic."""


class DroppedTopics:
    """Asks the broker, where that can tell, about each topic when it was published to for the first time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker if isinstance(broker, FindsUnsubscribed) else None
        self._known: set[str] = set()

    def are_new(self, messages: Iterable[Outgoing]) -> bool:
        """Whether any of these messages is the first of its topic."""
        if self._broker is None:
            return False
        known = self._known
        for message in messages:  # noqa: SIM110 - asked for every message, and a generator costs
            if message.topic not in known:
                return True
        return False

    async def look(self, messages: Iterable[Outgoing]) -> None:
        """Warn of the new ones among their topics that have no subscription. Never fails: the messages have left."""
        assert self._broker is not None, "asked for topics that are new only"
        new = list(dict.fromkeys(message.topic for message in messages if message.topic not in self._known))
        self._known.update(new)
        try:
            for topic in await asyncio.wait_for(self._broker.unsubscribed(new), _LONGEST):
                logger.warning(
                    "published to %r, which has no subscription: such messages are dropped; start a worker that "
                    "handles them, or create its subscriptions before: diator subscriptions apply",
                    topic,
                )
        except (BrokerError, asyncio.TimeoutError) as error:
            # Such as a permission that publishing does not need. Not asked again: publishing would be slow each time.
            logger.debug("the broker does not tell whether %s have subscriptions (%s)", new, described(error))
        except Exception:
            logger.exception("looking up whether %s have subscriptions has failed", new)
