"""A small Azure Service Bus for tests, in pure Python: the real SDK connects to it over plain TCP.

It has a codec of its own and does not use ``python-qpid-proton``, which comes without wheels, so that every machine
that runs the tests would need a C compiler and half a minute. Proton also hides the format code that tells a batch
from a message, and leaves no control over malformed and withheld frames.
"""

from servicebus_test_server.declarations import Filter, Queue, Subscription, Topic
from servicebus_test_server.faults import Action, Fault, Point
from servicebus_test_server.sdk_sleeps import shorten_sdk_sleeps
from servicebus_test_server.server import ServiceBusServer
from servicebus_test_server.stored import MessageCounts
from servicebus_test_server.views import OpenConnection, StoredMessage

__all__ = [
    "Action",
    "Fault",
    "Filter",
    "MessageCounts",
    "OpenConnection",
    "Point",
    "Queue",
    "ServiceBusServer",
    "StoredMessage",
    "Subscription",
    "Topic",
    "shorten_sdk_sleeps",
]
