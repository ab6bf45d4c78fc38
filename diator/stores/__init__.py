"""Stores: outbox and inbox in the user's own database. Plugins implement ``port.py``.

The relay, which publishes stored events, is part of `diator.delivery`.
"""

from diator.stores.port import (
    OperatesStore,
    OutboxDeadLetter,
    PartitionStatus,
    Store,
    StoredMessage,
    StoreStatus,
    Transaction,
    WakesRelays,
    partition_of,
)

__all__ = [
    "OperatesStore",
    "OutboxDeadLetter",
    "PartitionStatus",
    "Store",
    "StoreStatus",
    "StoredMessage",
    "Transaction",
    "WakesRelays",
    "partition_of",
]
