"""The broker in memory passes the suite for plugins; and what is particular about it."""

from diator.brokers import MemoryBroker
from diator.conformance import BrokerSuite, Wanted


class TestMemoryBroker(BrokerSuite):
    def make_broker(self, space: str, wanted: Wanted) -> MemoryBroker:
        known: dict[str, MemoryBroker] = self.__dict__.setdefault("brokers", {})
        return known.setdefault(
            space, MemoryBroker(wanted.capacity, wanted.lease, duplicate_window=wanted.duplicate_window)
        )
