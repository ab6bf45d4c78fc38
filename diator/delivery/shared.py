"""What the consumers of one worker have in common."""

import asyncio
from typing import NamedTuple

from diator.brokers.port import Broker
from diator.delivery.outage import Outage
from diator.delivery.telling import Telling


class Shared(NamedTuple):
    """What the consumers of one worker have in common."""

    broker: Broker
    outage: Outage
    telling: Telling
    suspects: asyncio.Lock
    """Held while a message runs that may have killed a worker, so that no other is blamed with it."""
