"""RabbitMQ as a message broker for Diator.

`_broker` implements the port, `_settings` parses its address. `_link` is a connection, `_publisher` stores messages,
`_topology` has the exchanges of topics and the queues in which messages wait, `_subscriptions` creates, inspects and
removes subscriptions, and `_names` has the names of all of these. `_receiver` receives messages without an order,
`_ordered` those ordered by key, from the partitions of `_partition`. `_messages` contains the message format, and
`_dead_letters` reads, replays and purges dead letters; they and the register of subscriptions are a `_kept_queue`.
"""

from diator_rabbitmq._broker import RabbitBroker

__all__ = ["RabbitBroker"]
