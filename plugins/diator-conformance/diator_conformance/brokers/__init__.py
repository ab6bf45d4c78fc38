"""The suite for broker plugins.

In reading order: `bench` (what the author of a plugin writes, and how a case gets its broker), `messages` (what cases
send), then the cases: `publishing`, `scheduling`, `receiving`, `settling`, `leases`, `order`, `letters`,
`backpressure`, `lifecycle`, `operating`, `removing`, `stress`, and `leaving` and `model_based` (random ones).
"""

from diator_conformance.brokers.backpressure import Room
from diator_conformance.brokers.bench import BrokerOptions
from diator_conformance.brokers.leases import Leases
from diator_conformance.brokers.leaving import Leaving
from diator_conformance.brokers.letters import Letters
from diator_conformance.brokers.lifecycle import Life
from diator_conformance.brokers.model_based import Programs
from diator_conformance.brokers.operating import Operating
from diator_conformance.brokers.order import Order
from diator_conformance.brokers.publishing import Publishing
from diator_conformance.brokers.receiving import Receiving
from diator_conformance.brokers.removing import Removing
from diator_conformance.brokers.scheduling import Scheduling
from diator_conformance.brokers.settling import Settling
from diator_conformance.brokers.stress import Crowd

__all__ = ["BrokerOptions", "BrokerSuite"]


# pytest runs the cases of the last base first: the simple ones, whose failures are easy to read.
class BrokerSuite(
    Programs,
    Leaving,
    Crowd,
    Removing,
    Operating,
    Room,
    Letters,
    Order,
    Leases,
    Settling,
    Receiving,
    Scheduling,
    Publishing,
    Life,
):
    """The contract of broker plugins. Subclass it as ``Test...``, and implement ``make_broker``.

    A case must pass if the broker declares the capabilities that it needs. Otherwise it is skipped: an app rejects
    subscriptions that need them. Optional hooks do what only the author can do, such as cutting connections; `Bench`
    has all of them. A case may be overridden only with a ``pytest.mark.xfail`` that has a reason.
    """
