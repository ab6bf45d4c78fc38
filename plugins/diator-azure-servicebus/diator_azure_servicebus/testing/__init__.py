"""A small Azure Service Bus for tests, in pure Python: the real SDK connects to it over plain TCP.

It has a codec of its own and does not use ``python-qpid-proton``, which comes without wheels, so that every machine
that runs the tests would need a C compiler and half a minute. Proton also hides the format code that tells a batch
from a message, and leaves no control over malformed and withheld frames.
"""

from diator_azure_servicebus.testing.declarations import Filter, Queue, Subscription, Topic
from diator_azure_servicebus.testing.faults import Action, Fault, Point
from diator_azure_servicebus.testing.haste import hasty_sdk
from diator_azure_servicebus.testing.server import ServiceBusServer
from diator_azure_servicebus.testing.stored import Counts
from diator_azure_servicebus.testing.topology import ServerTopology
from diator_azure_servicebus.testing.views import OpenConnection, StoredMessage

__all__ = [
    "Action",
    "Counts",
    "Fault",
    "Filter",
    "OpenConnection",
    "Point",
    "Queue",
    "ServerTopology",
    "ServiceBusServer",
    "StoredMessage",
    "Subscription",
    "Topic",
    "hasty_sdk",
]
