"""The broker in memory, ``memory://``: for applications of one process, and for tests.

In reading order: `clock` (time, and one timer for many), `queues` (the messages of one subscription), `topics` (who
gets what is published, and who waits for room), `receivers` (leases and settling), `address` (settings), `broker` (the
port).
"""

from diator.brokers.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
