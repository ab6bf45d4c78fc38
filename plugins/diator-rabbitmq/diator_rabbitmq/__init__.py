"""RabbitMQ as a message broker for Diator.

`_broker` implements the port, `_settings` parses its address. `_link` is a connection, `_publisher` stores messages,
`_topology` creates queues and exchanges, whose names are in `_names`. `_receiver` receives messages without an order,
`_ordered` those ordered by key, from the partitions of `_partition`. `_messages` contains the message format, and
`_dead_letters` reads, replays and purges dead letters.
"""

from diator_rabbitmq._broker import RabbitBroker

__all__ = ["RabbitBroker"]
