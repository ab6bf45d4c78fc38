"""Redis as a message broker for Diator: `RedisBroker` on Streams, `RedisPubSubBroker` on Pub/Sub."""

from diator_redis._broker import RedisBroker
from diator_redis._pubsub import RedisPubSubBroker

__all__ = [
    "RedisBroker",
    "RedisPubSubBroker",
]
