"""RabbitMQ as a message broker for Diator.

`_broker` is the port and `_settings` its address. `_link` is a connection, `_publisher` stores messages, `_topology`
creates queues and exchanges, whose names are in `_names`. `_receiver` takes messages of any order, `_ordered` those in
order by key, from the partitions of `_partition`. `_messages` is what travels, `_dead_letters` what was not handled.
"""

from diator_rabbitmq._broker import RabbitBroker

__all__ = ["RabbitBroker"]
