"""The broker in memory, ``memory://``: for applications of one process, and for tests.

In reading order: `clock` (time, and one timer), `queues` (the messages of one subscription), `topics` (who gets what
is published, and who waits for room), `receivers` (leases and settling), `broker` (settings, and the port).
"""

from diator.brokers.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
